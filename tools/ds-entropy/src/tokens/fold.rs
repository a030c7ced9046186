//! What is done to text before it is cut into tokens: lower case, and one form for each punctuation mark.

use std::borrow::Cow;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fold {
    /// Unicode lower case, as Python's `str.lower`.
    pub lower: bool,
    /// Typographic quotes, dashes and the ellipsis become the ASCII marks that Penn-Treebank rules know.
    pub punctuation: bool,
}

impl Fold {
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut folded = Cow::Borrowed(text);
        if self.punctuation && !folded.is_ascii() && folded.chars().any(|c| plain_mark(c).is_some()) {
            let mut plain = String::with_capacity(folded.len());
            for c in folded.chars() {
                match plain_mark(c) {
                    Some(mark) => plain.push_str(mark),
                    None => plain.push(c),
                }
            }
            folded = Cow::Owned(plain);
        }
        if self.lower {
            if !folded.is_ascii() {
                folded = Cow::Owned(folded.to_lowercase());
            } else if folded.bytes().any(|byte| byte.is_ascii_uppercase()) {
                folded = Cow::Owned(folded.to_ascii_lowercase());
            }
        }
        folded
    }
}

fn plain_mark(c: char) -> Option<&'static str> {
    Some(match c {
        '‘' | '’' | '‚' | '‛' | '′' => "'",
        '“' | '”' | '„' | '‟' | '″' => "\"",
        '‐' | '‑' | '‒' | '–' | '−' => "-",
        // The typewriter's em dash, which the Penn Treebank keeps.
        '—' | '―' => "--",
        '…' => "...",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typographic_marks_become_plain_and_letters_lower() {
        let fold = Fold {
            lower: true,
            punctuation: true,
        };
        assert_eq!(fold.apply("“I can’t”—ÉTÉ…"), "\"i can't\"--été...");
        assert!(matches!(fold.apply("already plain"), Cow::Borrowed(_)));
        assert_eq!(Fold::default().apply("“A”"), "“A”");
    }
}

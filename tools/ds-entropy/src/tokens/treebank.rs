//! Penn-Treebank word tokens, exactly as NLTK's `word_tokenize(text, preserve_line=True)` gives them.
//!
//! [`Rules::tokenize`] is the reference's list of substitutions, one pass per rule in the reference's order, over one *piece*.
//! A piece is a whole text, or one run of characters between white space with the white space beside it: no rule looks
//! further than that, except those anchored at the end of the text, which see only its [`tail_start`]. So a text can be cut
//! into pieces and every piece looked up in a cache, which is where the speed comes from; a property test holds the two equal.

use super::characters::{is_python_digit, is_python_space, is_python_word};

/// The scratch buffers of the substitutions; one per thread.
#[derive(Default)]
pub struct Rules {
    from: Vec<char>,
    to: Vec<char>,
    token: String,
}

/// Where a piece stands in its text: the anchors `^` and `$` of the rules hold only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges {
    pub at_start: bool,
    pub at_end: bool,
}

impl Edges {
    #[cfg(test)]
    pub const WHOLE: Edges = Edges {
        at_start: true,
        at_end: true,
    };
}

/// The byte at which the part of a text begins that the end-anchored rules can see: from there to the end is one piece.
///
/// Those rules match a full stop followed only by closing punctuation and white space up to the end of the text, so the tail
/// is the last run of such characters, and the word before it.
pub fn tail_start(text: &str) -> usize {
    let is_closing = |c: char| {
        matches!(c, ']' | ')' | '}' | '>' | '"' | '\'' | '»' | '”' | '’')
            // What folding turns into a quote.
            || matches!(c, '“' | '‘' | '„' | '‚' | '‟' | '‛' | '′' | '″')
            || is_python_space(c)
    };
    let before_closing = text.trim_end_matches(is_closing);
    let kept = if before_closing.ends_with('.') {
        before_closing
    } else {
        text.trim_end_matches(is_python_space)
    };
    kept.char_indices()
        .rev()
        .find(|&(_, c)| is_python_space(c))
        .map_or(0, |(at, c)| at + c.len_utf8())
}

/// Whether a chunk that does not end its text is certainly one token: letters and digits, and no contraction of two words.
pub fn is_one_token(chunk: &str) -> bool {
    chunk.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !["cannot", "gimme", "gonna", "gotta", "lemme", "wanna"]
            .iter()
            .any(|word| chunk.eq_ignore_ascii_case(word))
}

impl Rules {
    /// Emits the tokens of one piece. `piece` holds the white space beside it, so that the rules that look at a neighbour
    /// find it; only at an edge of the text is there none.
    pub fn tokenize(&mut self, piece: &str, edges: Edges, mut emit: impl FnMut(&str)) {
        self.from.clear();
        self.from.extend(piece.chars());

        // Starting quotes.
        self.pass(split_starting_quotes);
        if edges.at_start && self.from.first() == Some(&'"') {
            self.from.splice(0..1, ['`', '`']);
        }
        self.pass(|from, to| pad_pairs(from, to, '`'));
        self.pass(open_quotes);
        self.pass(split_leading_apostrophes);

        // Punctuation.
        if edges.at_end {
            self.pass(|from, to| split_final_stop(from, to, true));
        }
        self.pass(split_colons_and_commas);
        if edges.at_end {
            self.pass(split_final_colon);
        }
        self.pass(pad_ellipses);
        self.pass(|from, to| pad(from, to, |c| matches!(c, ';' | '@' | '#' | '$' | '%' | '&')));
        self.pass(|from, to| pad(from, to, |c| matches!(c, '\u{2012}'..='\u{2015}')));
        if edges.at_end {
            self.pass(|from, to| split_final_stop(from, to, false));
        }
        self.pass(|from, to| pad(from, to, |c| matches!(c, '?' | '!')));
        self.pass(split_closing_apostrophes);
        self.pass(|from, to| pad(from, to, |c| c == '*'));

        // Brackets and dashes.
        self.pass(|from, to| pad(from, to, |c| matches!(c, ']' | '[' | '(' | ')' | '{' | '}' | '<' | '>')));
        self.pass(|from, to| pad_pairs(from, to, '-'));

        // Ending quotes, on the text with a space added at both ends and every run of white space made one space.
        self.from.insert(0, ' ');
        self.from.push(' ');
        self.pass(|from, to| pad(from, to, |c| matches!(c, '»' | '”' | '’')));
        self.pass(|from, to| pad_pairs(from, to, '\''));
        self.pass(close_double_quotes);
        self.pass(collapse_space);
        self.pass(split_possessives);
        self.pass(split_clitics);

        // Contractions.
        for (first, second, space_follows) in [
            ("can", "not", false),
            ("d", "'ye", false),
            ("gim", "me", false),
            ("gon", "na", false),
            ("got", "ta", false),
            ("lem", "me", false),
            ("more", "'n", false),
            ("wan", "na", true),
        ] {
            self.pass(|from, to| split_contraction(from, to, first, second, space_follows));
        }
        for second in ["is", "was"] {
            self.pass(|from, to| split_it(from, to, second));
        }

        for token in self
            .from
            .split(|&c| is_python_space(c))
            .filter(|token| !token.is_empty())
        {
            self.token.clear();
            self.token.extend(token);
            emit(&self.token);
        }
    }

    fn pass(&mut self, rewrite: impl FnOnce(&[char], &mut Vec<char>)) {
        self.to.clear();
        rewrite(&self.from, &mut self.to);
        std::mem::swap(&mut self.from, &mut self.to);
    }
}

/// `([«“‘„]|[`]+)` → ` \1 `
fn split_starting_quotes(from: &[char], to: &mut Vec<char>) {
    let mut at = 0;
    while at < from.len() {
        let run = match from[at] {
            '«' | '“' | '‘' | '„' => 1,
            '`' => from[at..].iter().take_while(|&&c| c == '`').count(),
            other => {
                to.push(other);
                at += 1;
                continue;
            }
        };
        to.push(' ');
        to.extend(&from[at..at + run]);
        to.push(' ');
        at += run;
    }
}

/// A doubled character: `(``)`, `--`, `''` → ` \1 `
fn pad_pairs(from: &[char], to: &mut Vec<char>, half: char) {
    let mut at = 0;
    while at < from.len() {
        if from[at] == half && from.get(at + 1) == Some(&half) {
            to.extend([' ', half, half, ' ']);
            at += 2;
        } else {
            to.push(from[at]);
            at += 1;
        }
    }
}

/// `([ \(\[{<])(\"|\'{2})` → `\1 `` `
fn open_quotes(from: &[char], to: &mut Vec<char>) {
    let mut at = 0;
    while at < from.len() {
        to.push(from[at]);
        if matches!(from[at], ' ' | '(' | '[' | '{' | '<') {
            let quote = match (from.get(at + 1), from.get(at + 2)) {
                (Some('"'), _) => 1,
                (Some('\''), Some('\'')) => 2,
                _ => 0,
            };
            if quote > 0 {
                to.extend([' ', '`', '`', ' ']);
                at += quote;
            }
        }
        at += 1;
    }
}

/// `(?i)(?<!\w)(\')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)` → `\1 `
fn split_leading_apostrophes(from: &[char], to: &mut Vec<char>) {
    for (at, &c) in from.iter().enumerate() {
        to.push(c);
        if c == '\'' && (at == 0 || !is_python_word(from[at - 1])) {
            let rest = &from[at + 1..];
            let word_follows = rest.first().is_some_and(|&c| is_python_word(c));
            let clitic_follows = ["re", "ve", "ll", "m", "t", "s", "d", "n"]
                .iter()
                .any(|clitic| starts_with(rest, clitic) && !rest.get(clitic.len()).is_some_and(|&c| is_python_word(c)));
            if word_follows && !clitic_follows {
                to.push(' ');
            }
        }
    }
}

/// `([^\.])(\.)([\]\)}>"\'»”’ ]*+)\s*$` → `\1 \2 \3 ` when `wide`, else `([^\.])(\.)([\]\)}>"\']*)\s*$` → `\1 \2\3 `
fn split_final_stop(from: &[char], to: &mut Vec<char>, wide: bool) {
    let closes =
        |c: char| matches!(c, ']' | ')' | '}' | '>' | '"' | '\'') || (wide && matches!(c, '»' | '”' | '’' | ' '));
    let matched = from
        .iter()
        .rposition(|&c| c == '.')
        .filter(|&stop| stop > 0 && from[stop - 1] != '.')
        .and_then(|stop| {
            let closing_end = from[stop + 1..]
                .iter()
                .position(|&c| !closes(c))
                .map_or(from.len(), |n| stop + 1 + n);
            from[closing_end..]
                .iter()
                .all(|&c| is_python_space(c))
                .then_some((stop, closing_end))
        });
    let Some((stop, closing_end)) = matched else {
        to.extend(from);
        return;
    };
    to.extend(&from[..stop]);
    to.extend([' ', '.']);
    if wide {
        to.push(' ');
    }
    to.extend(&from[stop + 1..closing_end]);
    to.push(' ');
}

/// `([:,])([^\d])` → ` \1 \2`; the second character is consumed, so of two colons only the first is split off.
fn split_colons_and_commas(from: &[char], to: &mut Vec<char>) {
    let mut at = 0;
    while at < from.len() {
        match (from[at], from.get(at + 1)) {
            (mark @ (':' | ','), Some(&next)) if !is_python_digit(next) => {
                to.extend([' ', mark, ' ', next]);
                at += 2;
            }
            (other, _) => {
                to.push(other);
                at += 1;
            }
        }
    }
}

/// `([:,])$` → ` \1 `; the anchor also holds before a final line feed.
fn split_final_colon(from: &[char], to: &mut Vec<char>) {
    let is_mark = |c: Option<&char>| matches!(c, Some(':' | ','));
    let body = if from.last() == Some(&'\n') {
        &from[..from.len() - 1]
    } else {
        from
    };
    if is_mark(body.last()) {
        to.extend(&body[..body.len() - 1]);
        to.extend([' ', body[body.len() - 1], ' ']);
        to.extend(&from[body.len()..]);
    } else {
        to.extend(from);
    }
}

/// `\.{2,}` → ` \g<0> `
fn pad_ellipses(from: &[char], to: &mut Vec<char>) {
    let mut at = 0;
    while at < from.len() {
        let run = from[at..].iter().take_while(|&&c| c == '.').count();
        if run >= 2 {
            to.push(' ');
            to.extend(&from[at..at + run]);
            to.push(' ');
        } else {
            to.extend(&from[at..at + run.max(1)]);
        }
        at += run.max(1);
    }
}

/// `[…]` → ` \g<0> `
fn pad(from: &[char], to: &mut Vec<char>, is_padded: impl Fn(char) -> bool) {
    for &c in from {
        if is_padded(c) {
            to.extend([' ', c, ' ']);
        } else {
            to.push(c);
        }
    }
}

/// `([^'])' ` → `\1 ' `
fn split_closing_apostrophes(from: &[char], to: &mut Vec<char>) {
    let mut at = 0;
    while at < from.len() {
        if from[at] != '\'' && from.get(at + 1) == Some(&'\'') && from.get(at + 2) == Some(&' ') {
            to.extend([from[at], ' ', '\'', ' ']);
            at += 3;
        } else {
            to.push(from[at]);
            at += 1;
        }
    }
}

/// `"` → ` '' `
fn close_double_quotes(from: &[char], to: &mut Vec<char>) {
    for &c in from {
        if c == '"' {
            to.extend([' ', '\'', '\'', ' ']);
        } else {
            to.push(c);
        }
    }
}

/// `\s+` → one space
fn collapse_space(from: &[char], to: &mut Vec<char>) {
    for &c in from {
        if !is_python_space(c) {
            to.push(c);
        } else if to.last() != Some(&' ') {
            to.push(' ');
        }
    }
}

/// `([^' ])('[sS]|'[mM]|'[dD]|') ` → `\1 \2 `
fn split_possessives(from: &[char], to: &mut Vec<char>) {
    split_suffix(from, to, |rest| match rest {
        ['\'', 's' | 'S' | 'm' | 'M' | 'd' | 'D', ' ', ..] => 2,
        ['\'', ' ', ..] => 1,
        _ => 0,
    });
}

/// `([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ` → `\1 \2 `
fn split_clitics(from: &[char], to: &mut Vec<char>) {
    split_suffix(from, to, |rest| match rest {
        ['\'', 'l', 'l', ' ', ..]
        | ['\'', 'L', 'L', ' ', ..]
        | ['\'', 'r', 'e', ' ', ..]
        | ['\'', 'R', 'E', ' ', ..]
        | ['\'', 'v', 'e', ' ', ..]
        | ['\'', 'V', 'E', ' ', ..]
        | ['n', '\'', 't', ' ', ..]
        | ['N', '\'', 'T', ' ', ..] => 3,
        _ => 0,
    });
}

/// One character that is neither apostrophe nor space, then a suffix of the length that `suffix_of` finds, then a space.
fn split_suffix(from: &[char], to: &mut Vec<char>, suffix_of: impl Fn(&[char]) -> usize) {
    let mut at = 0;
    while at < from.len() {
        to.push(from[at]);
        let suffix = if matches!(from[at], '\'' | ' ') {
            0
        } else {
            suffix_of(&from[at + 1..])
        };
        at += 1;
        if suffix > 0 {
            to.push(' ');
            to.extend(&from[at..at + suffix]);
            to.push(' ');
            at += suffix + 1;
        }
    }
}

/// `(?i)\b(first)(second)\b` → ` \1 \2 `, or with `(?=\s)` in place of the last boundary
fn split_contraction(from: &[char], to: &mut Vec<char>, first: &str, second: &str, space_follows: bool) {
    let (first_len, len) = (first.len(), first.len() + second.len());
    let mut at = 0;
    while at < from.len() {
        let rest = &from[at..];
        // Both words begin and end with letters, so a boundary is where no word character stands beside them.
        let matched = starts_with(rest, first)
            && starts_with(&rest[first_len..], second)
            && (at == 0 || !is_python_word(from[at - 1]))
            && if space_follows {
                rest.get(len).is_some_and(|&c| is_python_space(c))
            } else {
                !rest.get(len).is_some_and(|&c| is_python_word(c))
            };
        if matched {
            to.push(' ');
            to.extend(&rest[..first_len]);
            to.push(' ');
            to.extend(&rest[first_len..len]);
            to.push(' ');
            at += len;
        } else {
            to.push(from[at]);
            at += 1;
        }
    }
}

/// `(?i) ('t)(is)\b` → ` \1 \2 `
fn split_it(from: &[char], to: &mut Vec<char>, second: &str) {
    let mut at = 0;
    while at < from.len() {
        let rest = &from[at..];
        let len = 3 + second.len();
        if rest[0] == ' '
            && starts_with(&rest[1..], "'t")
            && starts_with(&rest[3..], second)
            && !rest.get(len).is_some_and(|&c| is_python_word(c))
        {
            to.extend(&rest[..3]);
            to.push(' ');
            to.extend(&rest[3..len]);
            to.push(' ');
            at += len;
        } else {
            to.push(rest[0]);
            at += 1;
        }
    }
}

/// Whether `text` starts with the lower-case ASCII `word`, letters compared as Python's `(?i)` compares them.
fn starts_with(text: &[char], word: &str) -> bool {
    text.len() >= word.len()
        && word.chars().zip(text).all(|(expected, &c)| {
            c.to_ascii_lowercase() == expected
                || (expected == 's' && c == 'ſ')
                || (expected == 'i' && matches!(c, 'ı' | 'İ'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        Rules::default().tokenize(text, Edges::WHOLE, |token| tokens.push(token.to_owned()));
        tokens
    }

    #[test]
    fn the_reference_example_gives_the_reference_tokens() {
        let text = "Good muffins cost $3.88 (roughly 3,36 euros)\nin New York.  Please buy me\ntwo of them.\nThanks.";
        let expected = [
            "Good", "muffins", "cost", "$", "3.88", "(", "roughly", "3,36", "euros", ")", "in", "New", "York.",
            "Please", "buy", "me", "two", "of", "them.", "Thanks", ".",
        ];
        assert_eq!(tokens(text), expected);
    }

    #[test]
    fn a_refusal_gives_the_tokens_of_the_papers_trigrams() {
        assert_eq!(
            tokens("I'm sorry, but I can't do \"that\"."),
            [
                "I", "'m", "sorry", ",", "but", "I", "ca", "n't", "do", "``", "that", "''", "."
            ]
        );
    }

    #[test]
    fn only_the_last_full_stop_of_a_text_is_split_off() {
        assert_eq!(tokens("No. Never. Why.) \" \n"), ["No.", "Never.", "Why.", ")", "``"]);
    }
}

//! What can be wrong with a JSON text, as nouns. Messages never quote values: prompts may be harmful or private, and a terminal may be
//! listening. Key names are quoted, escaped and cut short.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("not UTF-8 at byte {column}")]
    NotUtf8 { column: usize },
    #[error("not JSON at column {column}: {reason}")]
    NotJson { column: usize, reason: String },
    #[error("{found} where an object belongs")]
    NotObject { found: &'static str },
    #[error("duplicate key `{key}`")]
    KeyDuplicate { key: KeyName },
    #[error("nested deeper than {limit}")]
    DepthExceeded { limit: usize },
    #[error("more than {limit} keys")]
    KeyCountExceeded { limit: usize },
    #[error("more than {limit} values")]
    ValueCountExceeded { limit: usize },
    #[error("number longer than {limit} characters")]
    NumberTooLong { limit: usize },
    #[error("number out of range: {reason}")]
    NumberOutOfRange { reason: &'static str },
    #[error("non-finite number{}", in_key(key))]
    NonFinite { key: Option<KeyName> },
}

fn in_key(key: &Option<KeyName>) -> String {
    key.as_ref().map(|key| format!(" in `{key}`")).unwrap_or_default()
}

/// The depth at which serde_json itself stops.
const GRAMMAR_DEPTH: usize = 127;

/// What serde_json found wrong with the grammar of `text`, without its value.
pub fn describe(error: &serde_json::Error, text: &str) -> Fault {
    let message = error.to_string();
    let reason = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(reason, _)| reason);
    let column = column(error, text);
    match reason {
        "number out of range" => Fault::NumberOutOfRange {
            reason: "beyond the range of f64",
        },
        "recursion limit exceeded" => Fault::DepthExceeded { limit: GRAMMAR_DEPTH },
        _ if is_non_finite(text, column) => Fault::NonFinite { key: None },
        _ => Fault::NotJson {
            column,
            reason: reason.to_owned(),
        },
    }
}

/// The 1-based byte of the text: serde_json counts columns within its own lines, and a text may span several.
fn column(error: &serde_json::Error, text: &str) -> usize {
    let line_start = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    line_start + error.column()
}

/// Whether the word that the parser stumbled over or in is a NaN or an infinity, of either sign.
fn is_non_finite(text: &str, column: usize) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let at = column.saturating_sub(1).min(text.len());
    let before = text.as_bytes()[..at].iter().rev().take(9);
    let word = &text.as_bytes()[at - before.take_while(|byte| is_word(byte)).count()..];
    let word = word.strip_prefix(b"-").unwrap_or(word);
    ["nan", "inf"].iter().any(|name| {
        word.get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// A key from the data, fit for a message: control, bidirectional and other invisible characters escaped, at most 40 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    const CHARACTERS_MAX: usize = 40;
}

impl<S: AsRef<str>> From<S> for KeyName {
    fn from(key: S) -> KeyName {
        let mut characters = key.as_ref().chars();
        let mut name: String = characters
            .by_ref()
            .take(Self::CHARACTERS_MAX)
            .flat_map(char::escape_debug)
            .collect();
        if characters.next().is_some() {
            name.push('…');
        }
        KeyName(name)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

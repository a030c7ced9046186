//! The words that byte-level BPE tokenizers cut text into before merging, found by hand instead of by regular expression.
//!
//! Three patterns cover GPT-2, GPT-NeoX, Llama 3, GPT-4 and Qwen2. A word depends on nothing outside it except one character
//! of look-ahead, so its ids can be remembered; tests hold every pattern equal to the regular expression it stands for.

use super::characters::{is_letter, is_number, is_white};

/// The pattern of GPT-2, which the `ByteLevel` pre-tokenizer uses by itself.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The pattern of Llama 3 and of cl100k.
pub const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of Qwen2 and Qwen2.5: every digit for itself.
pub const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Gpt2,
    /// Llama 3, GPT-4 and Qwen2 differ in how many digits make one word.
    Modern {
        digits_max: usize,
    },
}

impl Pattern {
    /// The pattern a regular expression stands for, where it is a known one.
    pub fn of(expression: &str) -> Option<Self> {
        match expression {
            GPT2 => Some(Self::Gpt2),
            CL100K => Some(Self::Modern { digits_max: 3 }),
            QWEN2 => Some(Self::Modern { digits_max: 1 }),
            _ => None,
        }
    }

    /// The length in bytes of the word at the start of `text`, which is not empty.
    pub fn word_len(self, text: &str) -> usize {
        match self {
            Self::Gpt2 => gpt2_word_len(text),
            Self::Modern { digits_max } => modern_word_len(text, digits_max),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    White,
    Other,
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t'..=b'\r' | b' ' => Class::White,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// The class and the length in bytes of the character at `at`; `None` at the end.
#[inline]
fn class_at(text: &str, at: usize) -> Option<(Class, usize)> {
    let &byte = text.as_bytes().get(at)?;
    if byte < 128 {
        return Some((ASCII[usize::from(byte)], 1));
    }
    let c = text[at..].chars().next()?;
    let class = if is_letter(c) {
        Class::Letter
    } else if is_number(c) {
        Class::Number
    } else if is_white(c) {
        Class::White
    } else {
        Class::Other
    };
    Some((class, c.len_utf8()))
}

/// The end of the run of `class` that begins at `at`, at most `count_max` characters long.
#[inline]
fn run_end(text: &str, mut at: usize, class: Class, count_max: usize) -> usize {
    let mut count = 0;
    while let Some((found, len)) = class_at(text, at) {
        if found != class || count == count_max {
            break;
        }
        at += len;
        count += 1;
    }
    at
}

fn gpt2_word_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => return 2,
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => return 3,
        _ => {}
    }
    let start = usize::from(bytes[0] == b' ');
    match class_at(text, start) {
        Some((class, _)) if class != Class::White => run_end(text, start, class, usize::MAX),
        _ => white_len(text, run_end(text, 0, Class::White, usize::MAX)),
    }
}

fn modern_word_len(text: &str, digits_max: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[0] == b'\'' {
        match bytes.get(1).map(u8::to_ascii_lowercase) {
            Some(b's' | b't' | b'm' | b'd') => return 2,
            Some(first @ (b'r' | b'v' | b'l')) => {
                let second = if first == b'l' { b'l' } else { b'e' };
                if bytes.get(2).map(u8::to_ascii_lowercase) == Some(second) {
                    return 3;
                }
            }
            // The long s is an s to a case-insensitive expression.
            _ if text[1..].starts_with('ſ') => return 1 + 'ſ'.len_utf8(),
            _ => {}
        }
    }
    let Some((class, len)) = class_at(text, 0) else {
        return 0;
    };
    match class {
        Class::Letter => return run_end(text, len, Class::Letter, usize::MAX),
        Class::Number => return run_end(text, 0, Class::Number, digits_max),
        _ => {}
    }
    let next = class_at(text, len).map(|(class, _)| class);
    if next == Some(Class::Letter) && !matches!(bytes[0], b'\r' | b'\n') {
        return run_end(text, len, Class::Letter, usize::MAX);
    }
    if class == Class::Other || (bytes[0] == b' ' && next == Some(Class::Other)) {
        let marks_end = run_end(text, len, Class::Other, usize::MAX);
        let line_ends = bytes[marks_end..]
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        return marks_end + line_ends;
    }
    let end = run_end(text, 0, Class::White, usize::MAX);
    match bytes[..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(last_line_end) => last_line_end + 1,
        None => white_len(text, end),
    }
}

/// `\s+(?!\S)|\s+` for a run of white space that ends at `end`: before a word the run leaves its last character to it.
fn white_len(text: &str, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    match text[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => end,
    }
}

/// The printable character that stands for each byte in a byte-level vocabulary.
pub fn byte_characters() -> [char; 256] {
    let mut characters = ['\0'; 256];
    let mut shifted = 0;
    for (byte, character) in (0u8..=255).zip(&mut characters) {
        *character = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                shifted += 1;
                char::from_u32(255 + shifted).expect("below the surrogates")
            }
        };
    }
    characters
}

/// The text that characters of a byte-level vocabulary stand for; none where one of them stands for no byte. Bytes that are no UTF-8 (a
/// character cut in two) show as U+FFFD.
pub fn decode(text: &str) -> Option<String> {
    let characters = byte_characters();
    let byte_of = |c: char| characters.iter().position(|&known| known == c).map(|byte| byte as u8);
    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (word, after) = rest.split_at(pattern.word_len(rest));
            assert!(!word.is_empty());
            words.push(word);
            rest = after;
        }
        words
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn words_are_those_of_the_regular_expression(text in r"([a-cſA-ZéΣ中]|'[sStTmMdD]|'(re|RE|ve|ll|lL|l)|[ \t\r\n\u{a0}\u{2003}]|[0-9²五٣]|[!'\-.…]|\u{0301}|\u{1c}){0,24}") {
            for expression in [GPT2, CL100K, QWEN2] {
                let regex = fancy_regex::Regex::new(expression).unwrap();
                let expected: Vec<&str> = regex.find_iter(&text).map(|found| found.unwrap().as_str()).collect();
                prop_assert_eq!(words(Pattern::of(expression).unwrap(), &text), expected, "{}", expression);
            }
        }
    }
}

//! Text on its way to a person, and the identity of text.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Escapes what could move a cursor, hide itself or break the line: controls, bidirectional marks, zero-width
/// characters, line separators and tag characters. Everything else stays readable.
pub fn safe_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if hides(c) => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `sha256:<hex>` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_text_stays_as_it_is() {
        assert_eq!(safe_text("Grüße, 世界 — \"ok\""), "Grüße, 世界 — \"ok\"");
    }

    #[test]
    fn escapes_direction_marks_and_line_separators() {
        assert_eq!(safe_text("a\u{202e}b\u{2028}c\u{7f}"), "a\\u{202e}b\\u{2028}c\\u{7f}");
    }

    #[test]
    fn sha256_is_that_of_sha256sum() {
        assert_eq!(
            sha256(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

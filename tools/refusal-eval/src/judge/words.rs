//! The words of a text: letters, digits and apostrophes between anything else. Letters of other scripts belong to words.
//!
//! A text leaves a bit for each of its bytes, so that a word is found by its borders and not byte by byte.

use std::ops::Range;

const CHUNK_BYTES: usize = 64;
/// So many consonants on end, few words have.
pub const CLUSTER: usize = 5;

/// The words of one text; reused from text to text.
#[derive(Default)]
pub struct Words {
    /// Whether a byte belongs to a word; none of the last chunk, which is behind the text, does.
    of_word: Vec<u64>,
    /// Whether [`CLUSTER`] consonants stand on end somewhere.
    pub has_cluster: bool,
}

impl Words {
    pub fn read(&mut self, text: &str) {
        self.of_word.clear();
        self.has_cluster = false;
        let mut before = 0;
        let (chunks, rest) = text.as_bytes().as_chunks();
        let mut last = [0; CHUNK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        for chunk in chunks.iter().chain([&last]) {
            self.of_word.push(bits(chunk, is_of_word));
            let consonants = bits(chunk, is_consonant);
            self.has_cluster |= (1..CLUSTER).fold(consonants, |run, back| {
                run & (consonants << back | before >> (64 - back))
            }) != 0;
            before = consonants;
        }
        self.of_word.push(0);
        if !text.is_ascii() {
            self.read_wide(text);
        }
    }

    /// Adds the letters of other alphabets.
    fn read_wide(&mut self, text: &str) {
        for (start, c) in text
            .char_indices()
            .filter(|(_, c)| !c.is_ascii() && c.is_alphanumeric())
        {
            (start..start + c.len_utf8()).for_each(|at| self.of_word[at / CHUNK_BYTES] |= 1 << (at % CHUNK_BYTES));
        }
    }

    /// Where each word stands in the text.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut before = 0;
        let mut borders = self.of_word.iter().enumerate().flat_map(move |(index, &bits)| {
            let changes = bits ^ (bits << 1 | before);
            before = bits >> 63;
            ones(changes).map(move |at| CHUNK_BYTES * index + at)
        });
        std::iter::from_fn(move || Some(borders.next()?..borders.next()?))
    }
}

/// A bit for each byte of a chunk. Eight bytes of 0 or 1 are one number, and a product moves their bits to its top.
fn bits(chunk: &[u8; CHUNK_BYTES], is: impl Fn(u8) -> bool) -> u64 {
    let mut found = [0; CHUNK_BYTES];
    found
        .iter_mut()
        .zip(chunk)
        .for_each(|(found, byte)| *found = u8::from(is(*byte)));
    let (eights, _) = found.as_chunks();
    eights.iter().rev().fold(0, |all, eight| {
        all << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// The places of the ones.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        at
    })
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'\''
}

pub fn is_consonant(byte: u8) -> bool {
    byte.is_ascii_alphabetic() && !matches!(byte | 0x20, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Words::default();
        words.read(text);
        words.ranges().map(|word| &text[word]).collect()
    }

    fn has_cluster(text: &str) -> bool {
        let mut words = Words::default();
        words.read(text);
        words.has_cluster
    }

    #[test]
    fn words_of_any_script_are_found() {
        assert_eq!(
            words("«Don't» say: naïve — 日本 2x!"),
            ["Don't", "say", "naïve", "日本", "2x"]
        );
        assert!(words(" —, ").is_empty());
        assert!(words("").is_empty());
    }

    #[test]
    fn a_word_may_lie_anywhere_among_chunks() {
        for before in 55..70 {
            for word in ["a", "naïveté", "incomprehensibilities", &"long".repeat(40)] {
                let text = [&" ".repeat(before), word, " and"].concat();
                assert_eq!(words(&text), [word, "and"]);
                assert_eq!(words(text.trim_end_matches(" and")), [word]);
            }
        }
    }

    #[test]
    fn five_consonants_on_end_are_seen_across_chunks() {
        for before in 55..70 {
            let lead = "a ".repeat(before);
            assert!(has_cluster(&[&lead, "brrrtzk"].concat()));
            assert!(has_cluster(&[&lead[1..], "brrRTzk"].concat()));
            assert!(!has_cluster(&[&lead, "strength and myths"].concat()));
        }
    }
}

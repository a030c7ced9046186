//! Words as numbers: up to 16 bytes in one, ASCII letters in lower case, so that words are compared, cut off and hashed whole.

use std::ops::Range;

/// Bytes of the longest word that one number holds. The grammar names none that is longer.
pub const WORD_BYTES_MAX: usize = 16;

/// A word of at most so many bytes.
pub fn pack(word: &[u8]) -> u128 {
    cut_to(lower_case(first_bytes(word)), word.len())
}

/// The ASCII letters that a text begins with, packed as [`pack`] does, and how many they are. No more than [`WORD_BYTES_MAX`] are looked at,
/// and all of them at once: a loop would guess wrong at the end of nearly every word.
pub fn leading_letters(text: &[u8]) -> (u128, usize) {
    let packed = lower_case(first_bytes(text));
    let is_other = !are_letters(packed) & HIGH_BITS;
    let count = is_other.trailing_zeros() as usize / 8;
    (cut_to(packed, count), count)
}

/// A number for each text that is the same in any case of its ASCII letters, and hardly ever for two: `text[word]` is looked at.
pub fn hash(text: &[u8], word: Range<usize>) -> u64 {
    let parts = word.clone().step_by(WORD_BYTES_MAX);
    parts.fold(0, |hash, start| {
        let part = cut_to(
            lower_case(first_bytes(&text[start..])),
            WORD_BYTES_MAX.min(word.end - start),
        );
        mix(mix(part as u64 ^ hash) ^ (part >> 64) as u64)
    })
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value ^ (value >> 32)
}

/// No more than [`WORD_BYTES_MAX`], as they are. Of a short text in overlapping loads, where a copy of unknown length would call memcpy.
fn first_bytes(text: &[u8]) -> u128 {
    if let Some(bytes) = text.first_chunk() {
        return u128::from_le_bytes(*bytes);
    }
    let part = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| text[at + index]));
    let short =
        |width: usize, at: usize| (0..width).fold(0, |all, index| all | u64::from(text[at + index]) << (8 * index));
    let length = text.len();
    match length {
        8.. => u128::from(part(0)) | u128::from(part(length - 8)) << (8 * (length - 8)),
        4..8 => u128::from(short(4, 0) | short(4, length - 4) << (8 * (length - 4))),
        _ => u128::from(short(length, 0)),
    }
}

fn cut_to(packed: u128, byte_count: usize) -> u128 {
    packed & u128::MAX.checked_shr(128 - 8 * byte_count as u32).unwrap_or(0)
}

/// A one in every byte.
const ONES: u128 = u128::MAX / 0xff;
const HIGH_BITS: u128 = ONES * 0x80;

/// Sets bit 5 of every ASCII byte: a letter's case is this one bit, digits, hyphens and apostrophes have it anyway, and the bytes of another
/// alphabet keep theirs. What is in no word may become another such byte.
fn lower_case(packed: u128) -> u128 {
    packed | (!packed & HIGH_BITS) >> 2
}

/// The high bit of every byte from a to z: not below the one, not above the other, no byte of another alphabet.
fn are_letters(packed: u128) -> u128 {
    let low = packed & !HIGH_BITS;
    let not_below = low + ONES * u128::from(0x80 - b'a');
    let above = low + ONES * u128::from(0x7f - b'z');
    not_below & !above & !packed & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_packed_in_lower_case_and_apart() {
        let word = "abcdefghijklmnop";
        for length in 0..=16 {
            let lower = &word.as_bytes()[..length];
            let mut expected = [0; 16];
            expected[..length].copy_from_slice(lower);
            assert_eq!(pack(lower), u128::from_le_bytes(expected), "{length}");
            assert_eq!(pack(&lower.to_ascii_uppercase()), pack(lower), "{length}");
        }
        for byte in (b'0'..=b'9').chain(*b"'-").chain(0x80..=0xff) {
            assert_eq!(pack(&[byte]), u128::from(byte));
        }
    }

    #[test]
    fn letters_are_counted_up_to_what_is_none() {
        let word = "Abcdefghijklmnopq";
        for length in 0..=16 {
            for rest in ["", " and so on", "'s own business", "é", "{", "@[`", "1"] {
                let text = [&word[..length], rest].concat();
                let expected = (pack(&word.as_bytes()[..length]), length);
                assert_eq!(leading_letters(text.as_bytes()), expected, "{text}");
            }
        }
        assert_eq!(leading_letters(word.as_bytes()).1, WORD_BYTES_MAX);
    }

    #[test]
    fn words_are_told_apart_by_their_letters_in_any_case() {
        let hash_of = |word: &str| hash(word.as_bytes(), 0..word.len());
        assert_eq!(hash_of("Extraordinary"), hash_of("extraORDINARY"));
        assert_eq!(hash_of("Incomprehensibilities"), hash_of("incomprehensibiliTIES"));
        for (one, other) in [
            ("extraordinary", "extraordinarz"),
            ("incomprehensibilities", "incomprehensibilitiez"),
            ("ab", "ba"),
            ("a", "aa"),
        ] {
            assert_ne!(hash_of(one), hash_of(other));
        }
        let text = "an extraordinary word";
        assert_eq!(hash(text.as_bytes(), 3..16), hash_of("extraordinary"));
    }
}

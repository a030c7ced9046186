//! The number tokens of a text, looked at before and after serde_json, which neither bounds their length nor keeps the digits of large integers.

use crate::{Fault, Limits};

/// Every run of number characters outside strings.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            match bytes[at] {
                b'"' => at = string_end(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let from = at;
                    while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                        at += 1;
                    }
                    return Some(&text[from..at]);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The index after the closing quote of the string that opens at `at`, or the end of the text.
pub fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            None => return bytes.len(),
            Some(step) if bytes[at + step] == b'"' => return at + step + 1,
            Some(step) => at += step + 2,
        }
    }
}

pub(crate) fn check_lengths(text: &str, limits: &Limits) -> Result<(), Fault> {
    // A short text holds no long number.
    if text.len() > limits.number_bytes && numbers(text).any(|number| number.len() > limits.number_bytes) {
        return Err(Fault::NumberTooLong {
            limit: limits.number_bytes,
        });
    }
    Ok(())
}

pub(crate) fn check_integers(text: &str) -> Result<(), Fault> {
    let is_integer = |number: &&str| number.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
    // "-0" is a float to serde_json and fits; everything else must be an i64 or a u64.
    let loses_digits = |number: &str| number.parse::<u64>().is_err() && number.parse::<i64>().is_err();
    if numbers(text).filter(is_integer).any(loses_digits) {
        return Err(Fault::NumberOutOfRange {
            reason: "an integer beyond 64 bits would lose digits (write it as a string)",
        });
    }
    Ok(())
}

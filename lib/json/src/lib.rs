//! Strict JSON: one text to one value, with distinct keys and bounded depth, counts and digits. The grammar is serde_json's; this crate
//! adds what that crate leaves open (it keeps the last of two equal keys, and rounds integers beyond 64 bits).
//!
//! A leaf: containers, records and model files stand on it, and it imports none of ours. A message never quotes a value.

mod fault;
mod number;
mod value;

use serde_json::{Map, Value};

pub use fault::{Fault, KeyName, describe};
pub use number::string_end;

pub type Object = Map<String, Value>;

/// What one text may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays within each other.
    pub depth: usize,
    /// Keys of all objects together.
    pub key_count: usize,
    /// Values of every kind together.
    pub value_count: usize,
    /// Characters of one number.
    pub number_bytes: usize,
    /// An integer beyond 64 bits is refused; otherwise it becomes the nearest float, as everywhere in JSON.
    pub exact_integers: bool,
}

impl Limits {
    /// For a file that is one document: a tokenizer of a million entries fits.
    pub const DOCUMENT: Limits = Limits {
        depth: 100,
        key_count: 1 << 22,
        value_count: 1 << 23,
        number_bytes: usize::MAX,
        exact_integers: false,
    };
}

/// Reads an object.
///
/// ```
/// let read = |text| json::object(text, &json::Limits::DOCUMENT);
/// assert_eq!(read(r#"{"a":[1,null]}"#).unwrap()["a"][0], 1);
/// assert_eq!(read(r#"{"a":{"b":1,"b":2}}"#).unwrap_err().to_string(), "duplicate key `b`");
/// ```
pub fn object(text: &str, limits: &Limits) -> Result<Object, Fault> {
    value::read(text, limits, None)
}

/// Reads the named top-level keys of an object; the others are checked for grammar alone and dropped.
pub fn object_fields(text: &str, limits: &Limits, fields: &[String]) -> Result<Object, Fault> {
    value::read(text, limits, Some(fields))
}

/// Reads a file that is one object.
pub fn document(bytes: &[u8]) -> Result<Object, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault::NotUtf8 {
        column: error.valid_up_to() + 1,
    })?;
    object(text, &Limits::DOCUMENT)
}

/// What a value is, in a word.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str, limits: Limits) -> String {
        object(text, &limits).unwrap_err().to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#] {
            assert_eq!(fault(text, Limits::DOCUMENT), "duplicate key `a`");
        }
    }

    #[test]
    fn every_limit_is_the_last_that_passes() {
        let tight = Limits {
            depth: 2,
            key_count: 2,
            value_count: 4,
            number_bytes: 5,
            exact_integers: true,
        };
        assert!(object(r#"{"a":[1],"b":12345}"#, &tight).is_ok());
        assert_eq!(fault(r#"{"a":[[]]}"#, tight), "nested deeper than 2");
        assert_eq!(fault(r#"{"a":1,"b":2,"c":3}"#, tight), "more than 2 keys");
        assert_eq!(fault(r#"{"a":[1,2,3]}"#, tight), "more than 4 values");
        assert_eq!(fault(r#"{"a":123456}"#, tight), "number longer than 5 characters");
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused_only_where_digits_count() {
        let text = r#"{"model_max_length":1000000000000000019884624838656}"#;
        assert_eq!(object(text, &Limits::DOCUMENT).unwrap()["model_max_length"], 1e30);
        let exact = Limits {
            exact_integers: true,
            ..Limits::DOCUMENT
        };
        assert!(fault(text, exact).contains("beyond 64 bits"));
        assert!(object(r#"{"a":18446744073709551615,"b":1e30}"#, &exact).is_ok());
    }

    #[test]
    fn nesting_without_end_is_an_error_and_not_a_stack_overflow() {
        assert!(document(&b"[".repeat(100_000)).is_err());
    }

    #[test]
    fn only_an_object_is_a_document() {
        assert_eq!(fault("[1]", Limits::DOCUMENT), "an array where an object belongs");
        assert_eq!(
            document(b"{\"a\":\"\xff\"}").unwrap_err().to_string(),
            "not UTF-8 at byte 7"
        );
    }
}

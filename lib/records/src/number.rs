//! Serde helpers for numbers whose exactness matters; plain serde reads 1e39 into an f32 as infinity without a word.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// `#[serde(deserialize_with = "records::number::exact_u64")]`: an integer, or the decimal string that stands for one beyond 2^53.
pub fn exact_u64<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    struct Exact;
    impl Visitor<'_> for Exact {
        type Value = u64;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a non-negative integer")
        }
        fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
            u64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Other("a negative integer"), &self))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|_| is_decimal)
                .ok_or_else(|| E::invalid_type(Unexpected::Str(text), &self))
        }
    }
    input.deserialize_any(Exact)
}

/// `#[serde(deserialize_with = "records::number::finite_f32")]`: refuses what f32 cannot hold.
pub fn finite_f32<'de, D: Deserializer<'de>>(input: D) -> Result<f32, D::Error> {
    narrow(f64::deserialize(input)?)
}

/// As [`finite_f32`], for arrays.
pub fn finite_f32s<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<f32>, D::Error> {
    Vec::<f64>::deserialize(input)?.into_iter().map(narrow).collect()
}

/// Only a value beyond the range of f32 is refused; one between two neighbours rounds, as it does everywhere.
fn narrow<E: Error>(value: f64) -> Result<f32, E> {
    let narrowed = value as f32;
    if narrowed.is_finite() {
        Ok(narrowed)
    } else {
        Err(E::custom("number beyond the range of f32"))
    }
}

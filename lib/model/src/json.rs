//! JSON objects whose keys must be distinct: a second `"hidden_size"` in a config or a tensor named twice in a header
//! is an ambiguity somebody may exploit, and serde_json would silently keep the last.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses one document; the error says where.
pub fn parse(text: &[u8]) -> std::result::Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Distinct.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Parses a document that must be an object.
pub fn parse_object(text: &[u8]) -> std::result::Result<Map<String, Value>, String> {
    match parse(text)? {
        Value::Object(map) => Ok(map),
        other => Err(format!("an object is expected, found {}", kind(&other))),
    }
}

/// The JSON type of a value, for messages.
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

struct Distinct;

impl<'de> DeserializeSeed<'de> for Distinct {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> std::result::Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Value;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("JSON")
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(Distinct)? {
            values.push(value);
        }
        Ok(values.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Distinct)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("key {key:?} stands twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        assert!(
            parse(br#"{"a":{"b":1,"b":2}}"#)
                .unwrap_err()
                .contains("\"b\" stands twice")
        );
        assert_eq!(parse(br#"{"a":[1,-2,0.5,null,true,"x"]}"#).unwrap()["a"][2], 0.5);
    }

    #[test]
    fn nesting_without_end_is_an_error_and_not_a_stack_overflow() {
        assert!(parse(&b"[".repeat(100_000)).is_err());
    }
}

//! Plans: pure descriptions of what a run will do. Printed by `--plan`, hashed into every output, compared on resume.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::exit::{Error, Outcome, Result, ResultExt};
use crate::stdout::stdout;
use crate::text::sha256;

/// `sha256:<hex>` of the plan with sorted keys. Leave out what cannot change bits: shard, threads, paths.
pub fn digest(plan: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
    let mut text = String::new();
    canonical(&value, &mut text);
    Ok(sha256(text.as_bytes()))
}

/// Prints a plan for `--plan`.
pub fn print(plan: &impl Serialize) -> Result<Outcome> {
    let mut out = stdout();
    let text = serde_json::to_string_pretty(plan).map_err(|cause| Error::bug("plan", cause))?;
    writeln!(out, "{text}").at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

/// The first place where two plans differ, as `key: was X, is Y`.
pub fn difference(was: &Value, is: &Value) -> Option<String> {
    differ("", was, is)
}

fn differ(at: &str, was: &Value, is: &Value) -> Option<String> {
    let inner = |key: &str| {
        if at.is_empty() {
            key.to_string()
        } else {
            format!("{at}.{key}")
        }
    };
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                differ(
                    &inner(key),
                    was.get(key).unwrap_or(&Value::Null),
                    is.get(key).unwrap_or(&Value::Null),
                )
            })
        }
        (was, is) if was == is => None,
        (was, is) => Some(format!("{at}: was {was}, is {is}")),
    }
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_change_the_digest() {
        let one = digest(&json!({"a": 1, "b": {"c": [1, 2], "d": "x"}})).unwrap();
        let other = digest(&json!({"b": {"d": "x", "c": [1, 2]}, "a": 1})).unwrap();
        assert_eq!(one, other);
        assert_ne!(one, digest(&json!({"a": 1, "b": {"c": [2, 1], "d": "x"}})).unwrap());
    }

    #[test]
    fn names_the_first_difference() {
        let was = json!({"model": {"digest": "a"}, "seed": 1});
        let is = json!({"model": {"digest": "b"}, "seed": 2});
        assert_eq!(
            difference(&was, &is).as_deref(),
            Some("model.digest: was \"a\", is \"b\"")
        );
        assert_eq!(difference(&was, &was), None);
    }
}

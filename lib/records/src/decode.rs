//! One text or object to one typed record, with serde's complaints turned into faults that name the key and quote no value.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;

/// Turns serde's words about a mistyped value into a fault. They quote strings of the data; only type names and our own field names are kept.
fn describe_data(reason: &str, key: Option<String>) -> Fault {
    let name = |prefix: &str| reason.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(key) = name("missing field `") {
        return Fault::KeyMissing { key: key.into() };
    }
    if let Some(key) = name("duplicate field `") {
        return json::Fault::KeyDuplicate { key: key.into() }.into();
    }
    let found = match reason.split_once(": ") {
        Some(("invalid type" | "invalid value", found)) => found.split([' ', ',', '`', '"']).next().unwrap_or_default(),
        _ if reason.starts_with("unknown variant") => "an unknown name",
        _ if reason.starts_with("invalid length") => "of another length",
        _ => {
            return Fault::Unacceptable {
                reason: match key {
                    Some(key) => format!("key `{}`: {reason}", json::KeyName::from(key)),
                    None => reason.to_owned(),
                },
            };
        }
    };
    // The data may hold these words too, but comes first.
    let expected = reason
        .rsplit_once(", expected ")
        .map_or("another type", |(_, expected)| expected);
    Fault::KeyMismatch {
        key: key.unwrap_or_else(|| ".".into()).into(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

/// Decodes a typed record out of an object.
pub(crate) fn typed<T: DeserializeOwned>(object: &json::Object) -> Result<T, Fault> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        describe_data(&error.inner().to_string(), (path != ".").then_some(path))
    })
}

/// Decodes a typed record out of a text, building only what it names; see [`crate::Line::parse`] for what is checked.
pub(crate) fn typed_text<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        if error.classify() != serde_json::error::Category::Data {
            return json::describe(&error, text).into();
        }
        // Slow, and only for the message: which key it was.
        let mut input = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut input) {
            Err(named) => {
                let path = named.path().to_string();
                let message = named.inner().to_string();
                let reason = message
                    .rsplit_once(" at line ")
                    .map_or(message.as_str(), |(reason, _)| reason);
                describe_data(reason, (path != ".").then_some(path))
            }
            Ok(_) => json::describe(&error, text).into(),
        }
    })
}

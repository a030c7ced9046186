//! A turn of a conversation, in the forms in which data sets keep its text.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Rest;
use crate::error::Fault;

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    /// Text; a list of text parts (`{"type":"text","text":…}`, or `value`) is joined, and `null` beside `tool_calls` is empty.
    #[serde(default, deserialize_with = "content_text")]
    pub content: String,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Message {
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
            rest: Map::new(),
        }
    }
}

/// The text of a message's `content`.
fn content_text<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<String, D::Error> {
    text_of_content(&Value::deserialize(input)?).map_err(serde::de::Error::custom)
}

pub(crate) fn text_of_content(content: &Value) -> std::result::Result<String, Fault> {
    let unfit = |found: &str| Fault::Unacceptable {
        reason: format!("message content is {found}, expected text or a list of text parts"),
    };
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| match part {
                Value::String(text) => Ok(text.as_str()),
                Value::Object(part) => match (
                    part.get("type").and_then(Value::as_str),
                    part.get("text").or_else(|| part.get("value")),
                ) {
                    (None | Some("text"), Some(Value::String(text))) => Ok(text.as_str()),
                    _ => Err(unfit("a list with a part that is not text")),
                },
                other => Err(unfit(json::kind(other))),
            })
            .collect(),
        other => Err(unfit(json::kind(other))),
    }
}

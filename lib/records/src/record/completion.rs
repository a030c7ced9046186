//! What a model answered.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::present;
use super::prompt::Prompt;
use crate::identity::JoinKey;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// An end token or a stop string.
    Stop,
    /// The token limit.
    Length,
    /// See `error`.
    Error,
}

/// What a model answered (lm-gen, or anyone: `id` and `completion` suffice).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "completion")]
pub struct Completion {
    /// All keys of the prompt, its `rest` too.
    #[serde(flatten, serialize_with = "without_tag")]
    pub prompt: Prompt,
    /// 0-based in the whole input of the run that answered.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sample_index: Option<u64>,
    /// Of each token of a completion that was given, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_log_prob: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    /// 0 unless sampling.
    #[serde(default)]
    pub attempt_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub token_count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Log-likelihood of each of `choices`, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_log_prob: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_token_count: Option<Vec<u64>>,
    /// Log-likelihood of a completion that was given, nats.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub log_prob: Option<f64>,
}

/// The keys of a prompt for a record of another type.
fn without_tag<S: Serializer>(prompt: &Prompt, output: S) -> std::result::Result<S::Ok, S::Error> {
    let mut keys = serde_json::to_value(prompt).map_err(serde::ser::Error::custom)?;
    if let Value::Object(keys) = &mut keys {
        keys.shift_remove("type");
    }
    keys.serialize(output)
}

impl Completion {
    pub fn key(&self) -> JoinKey {
        JoinKey::new(self.prompt.bench.as_deref(), &self.prompt.id, self.attempt_index)
    }
}

/// What a completion adds to the keys of its prompt.
const ANSWER_KEYS: [&str; 12] = [
    "sample_index",
    "token_log_prob",
    "text_digest",
    "model_digest",
    "attempt_index",
    "completion",
    "token_count",
    "finish",
    "error",
    "choice_log_prob",
    "choice_token_count",
    "log_prob",
];

impl Prompt {
    /// Takes the answer of another run out of the prompt's keys, whatever it holds; its completion, where that is a text, comes back.
    pub fn take_answer(&mut self) -> Option<String> {
        let answer = ANSWER_KEYS.map(|key| (key, self.rest.shift_remove(key)));
        answer.into_iter().find_map(|(key, value)| match value {
            Some(Value::String(text)) if key == "completion" => Some(text),
            _ => None,
        })
    }

    /// Takes the assistant's words out of a conversation that ends with them: a row of training data becomes a prompt and its answer.
    pub fn take_last_answer(&mut self) -> Option<String> {
        let messages = self.messages.as_mut()?;
        let last = messages.pop_if(|last| last.role == "assistant")?;
        Some(last.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_keys_are_those_that_a_completion_adds() {
        let prompt = Prompt::default();
        let whole = Completion {
            prompt: prompt.clone(),
            sample_index: Some(0),
            token_log_prob: Some(Vec::new()),
            text_digest: Some(String::new()),
            model_digest: Some(String::new()),
            attempt_index: 0,
            completion: Some("an answer".into()),
            token_count: Some(0),
            finish: Some(Finish::Stop),
            error: Some(String::new()),
            choice_log_prob: Some(Vec::new()),
            choice_token_count: Some(Vec::new()),
            log_prob: Some(0.0),
        };
        let Value::Object(mut keys) = serde_json::to_value(&whole).unwrap() else {
            panic!("a record is an object")
        };
        keys.retain(|key, _| key != "type" && key != "id");
        assert_eq!(keys.keys().map(String::as_str).collect::<Vec<_>>(), ANSWER_KEYS);
        let mut asked = Prompt { rest: keys, ..prompt };
        assert_eq!(asked.take_answer().as_deref(), Some("an answer"));
        assert_eq!(asked.rest, Default::default());
    }
}

//! The shared records: rows that one tool writes and another reads. Names and types are pinned in `man 5 records`; keys that a struct does
//! not name are kept in `rest`, in order. Rows of one tool alone live in that tool's `report.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Fault, Result};
use crate::identity::{JoinKey, id_text};
use crate::number::exact_u64;

/// A row type of a stream.
pub trait Record: Serialize + DeserializeOwned {
    /// The value of `type`; the same as in `#[serde(rename)]`.
    const TYPE: &'static str;
}

/// Every row type that a tool of ours writes. In a plain stream a `type` outside this list is the user's own key.
pub const TYPES: &[&str] = &[
    "begin",
    "end",
    "sample",
    "tensor",
    "row",
    "entropy",
    "ngram",
    "template",
    "layer",
    "stack",
    "trajectory",
    "contrast",
    "compare",
    "stability",
    "prompt",
    "completion",
    "verdict",
    "refusal_report",
    "refusal_pair",
    "calibration",
    "score",
    "skill_report",
    "metric",
    "eval",
    "region",
    "region_summary",
    "slice",
];

type Rest = Map<String, Value>;

/// A prompt that went through a model (resid-dump; a line of the `samples` tensor).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sample")]
pub struct Sample {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    /// 0-based in the whole input, before shards and limits.
    #[serde(deserialize_with = "exact_u64")]
    pub sample_index: u64,
    #[serde(default)]
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    pub text_digest: String,
    #[serde(deserialize_with = "exact_u64")]
    pub token_count: u64,
    /// The sample's first row in each tensor of the container.
    #[serde(deserialize_with = "exact_u64")]
    pub row_start: u64,
    #[serde(deserialize_with = "exact_u64")]
    pub row_count: u64,
    /// Only with `--keep-text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// A tensor in a container, named by a record so that pipes carry names and maps carry bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tensor")]
pub struct Tensor {
    pub name: String,
    pub site: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_index: Option<u64>,
    pub path: RecordPath,
    pub shape: Vec<u64>,
    pub dtype: String,
    pub digest: String,
    /// Mean Euclidean norm of the rows.
    pub norm_mean: f64,
    #[serde(deserialize_with = "crate::number::finite_f32")]
    pub abs_max: f32,
    pub abs_max_dim: u64,
    pub abs_max_sample_index: u64,
    pub abs_max_position: u64,
    #[serde(flatten)]
    pub rest: Rest,
}

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

/// What a model is asked (skill-eval and refusal-eval → lm-gen; plain lines from anyone).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "prompt")]
pub struct Prompt {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `safe` or `unsafe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The XSTest type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Instead of `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    /// Present: their log-likelihoods are asked for. Absent: text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// Strings that end a completion; a single string is read too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub stop: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub max_new_tokens: Option<u64>,
    /// The right answer, in the form its benchmark gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Value>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Prompt {
    /// A prompt from a dataset row, which need not have an `id`: then it is `#<sample_index>`.
    pub fn from_row(row: &crate::dataset::Row) -> Result<Prompt> {
        row.decode()
    }
}

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

/// What a judge says of a completion (refusal-eval judge).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "verdict")]
pub struct Verdict {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    #[serde(default)]
    pub bench: String,
    #[serde(default)]
    pub attempt_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    pub judge: String,
    pub verdict: Class,
    /// The span of the completion that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Verdict {
    pub fn key(&self) -> JoinKey {
        JoinKey::new(Some(&self.bench), &self.id, self.attempt_index)
    }
}

/// The classes of a verdict. `Unscored` is a judge that could not say, never a compliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Compliance,
    Partial,
    Refusal,
    Unscored,
}

/// What an extractor read in an answer and whether it is right (skill-eval score).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "score")]
pub struct Score {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    #[serde(default)]
    pub bench: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default)]
    pub attempt_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    /// Absent when nothing could be read.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub correct: Option<bool>,
    /// Whether the extractor found an answer at all.
    pub read: bool,
    pub extractor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Start and end of what was read, in bytes of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub span: Option<[u64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// MMLU: the likeliest choice is right.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub acc: Option<bool>,
    /// MMLU: the same with log-likelihoods divided by the choices' lengths in characters.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub acc_norm: Option<bool>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Score {
    pub fn key(&self) -> JoinKey {
        JoinKey::new(Some(&self.bench), &self.id, self.attempt_index)
    }
}

/// One optimiser step (vcl-train).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "metric")]
pub struct Metric {
    /// From 1.
    pub step: u64,
    /// The objective alone, nats per token.
    pub loss: f64,
    pub loss_total: f64,
    pub loss_token_count: u64,
    pub token_count: u64,
    pub lr: f64,
    pub grad_norm: f64,
    /// What each auxiliary loss reports, by its name; its part of `loss_total` is its `loss`.
    #[serde(default)]
    pub aux: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub attn_logit_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub lse_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_mean: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// A pass over held-out data (vcl-train).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "eval")]
pub struct Eval {
    pub step: u64,
    pub eval_loss: f64,
    pub token_count: u64,
    #[serde(flatten)]
    pub rest: Rest,
}

macro_rules! record_types {
    ($($record:ty = $name:literal),* $(,)?) => {
        $(impl Record for $record { const TYPE: &'static str = $name; })*
    };
}
record_types! {
    Sample = "sample", Tensor = "tensor", Prompt = "prompt", Completion = "completion", Verdict = "verdict", Score = "score",
    Metric = "metric", Eval = "eval",
}

/// A path in a record: text, or `{"bytes":"<hex>"}` where it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPath(pub PathBuf);

impl AsRef<Path> for RecordPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for RecordPath {
    fn serialize<S: Serializer>(&self, output: S) -> std::result::Result<S::Ok, S::Error> {
        use std::os::unix::ffi::OsStrExt;
        match self.0.to_str() {
            Some(text) => output.serialize_str(text),
            None => {
                let hex: String = self
                    .0
                    .as_os_str()
                    .as_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                BTreeMap::from([("bytes", hex)]).serialize(output)
            }
        }
    }
}

impl<'de> Deserialize<'de> for RecordPath {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<RecordPath, D::Error> {
        use serde::de::Error;
        use std::os::unix::ffi::OsStringExt;
        match Value::deserialize(input)? {
            Value::String(text) => Ok(RecordPath(text.into())),
            Value::Object(object) => {
                let hex = object
                    .get("bytes")
                    .and_then(Value::as_str)
                    .filter(|hex| hex.len() % 2 == 0 && hex.is_ascii());
                let bytes: Option<Vec<u8>> = hex.and_then(|hex| {
                    (0..hex.len())
                        .step_by(2)
                        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
                        .collect()
                });
                let bytes = bytes.ok_or_else(|| D::Error::custom("a path is a string or {\"bytes\":\"<hex>\"}"))?;
                Ok(RecordPath(std::ffi::OsString::from_vec(bytes).into()))
            }
            _ => Err(D::Error::custom("a path is a string or {\"bytes\":\"<hex>\"}")),
        }
    }
}

/// An optional key that, when there, has its type: `null` is not a number. (A `null` text is read as absent: pandas writes it so.)
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or an array of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<OneOrMany>::deserialize(input)?.map(|stop| match stop {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    }))
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

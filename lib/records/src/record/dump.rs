//! What resid-dump writes: the samples it ran and the tensors it stored.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::path::RecordPath;
use super::{Rest, present};
use crate::identity::id_text;
use crate::number::exact_u64;

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

impl Sample {
    /// A key as text, for grouping by it; `None` where the sample does not have it.
    pub fn field(&self, key: &str) -> Option<String> {
        match key {
            "group" => Some(self.group.clone()),
            "id" => Some(self.id.clone()),
            "bench" => self.bench.clone(),
            other => match self.rest.get(other)? {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                value => Some(value.to_string()),
            },
        }
    }
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

//! The records that acts-check emits.

use acts::{Damage, TensorSpec, TensorSummary};
use records::RecordPath;
use serde::Serialize;

/// One container that was accepted.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "container")]
pub struct ContainerRow {
    /// As typed.
    pub path: RecordPath,
    pub state: &'static str,
    pub tool: String,
    pub tool_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    pub tensor_count: usize,
    pub block_count: u64,
    /// Blocks verified and decoded: all of them under --full, none without a flag.
    pub blocks_read: u64,
    pub raw_bytes: u64,
    pub file_bytes: u64,
}

/// One tensor of a container that was accepted.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "content")]
pub struct ContentRow {
    pub tensor: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub codec: &'static str,
    pub raw_bytes: u64,
    pub nan_count: u64,
    pub inf_count: u64,
    pub digest: String,
}

impl ContentRow {
    pub fn new(spec: &TensorSpec, summary: &TensorSummary) -> ContentRow {
        ContentRow {
            tensor: spec.name.clone(),
            dtype: spec.dtype.name(),
            shape: std::iter::once(summary.row_count)
                .chain(spec.row_shape.iter().copied())
                .collect(),
            codec: spec.codec.name(),
            raw_bytes: summary.raw_bytes,
            nan_count: summary.non_finite.nan_count,
            inf_count: summary.non_finite.inf_count,
            digest: format!("blake3:{}", acts::hex(&summary.content_digest)),
        }
    }
}

/// One block that did not verify.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "damage")]
pub struct DamageRow {
    pub path: RecordPath,
    pub tensor: String,
    pub block_index: u64,
    pub offset_bytes: u64,
    pub row_start: u64,
    pub row_count: u64,
    pub cause: String,
}

impl DamageRow {
    pub fn new(path: RecordPath, tensor: &str, damage: &Damage) -> DamageRow {
        DamageRow {
            path,
            tensor: tensor.into(),
            block_index: damage.block,
            offset_bytes: damage.offset,
            row_start: damage.first_row,
            row_count: damage.row_count,
            cause: damage.error.to_string(),
        }
    }
}

//! The records that acts-cat emits.

use acts::{Header, TensorSpec};
use records::RecordPath;
use serde::Serialize;

/// A container's header, as its producer wrote it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "header")]
pub struct HeaderRow<'a> {
    pub path: RecordPath,
    pub state: &'static str,
    pub block_count: u64,
    pub file_bytes: u64,
    #[serde(flatten)]
    pub header: &'a Header,
}

/// One tensor: of the container that was looked at, or of the output that was written.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "content")]
pub struct ContentRow {
    pub tensor: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nan_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inf_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl ContentRow {
    /// Rows of a tensor in a foreign format.
    pub fn plain(spec: &TensorSpec, row_count: u64) -> ContentRow {
        ContentRow {
            tensor: spec.name.clone(),
            dtype: spec.dtype.name(),
            shape: std::iter::once(row_count)
                .chain(spec.row_shape.iter().copied())
                .collect(),
            codec: None,
            raw_bytes: None,
            payload_bytes: None,
            nan_count: None,
            inf_count: None,
            digest: None,
        }
    }

    /// A tensor in a container.
    pub fn stored(spec: &TensorSpec, summary: &acts::TensorSummary, payload_bytes: Option<u64>) -> ContentRow {
        ContentRow {
            codec: Some(spec.codec.name()),
            raw_bytes: Some(summary.raw_bytes),
            payload_bytes,
            nan_count: Some(summary.non_finite.nan_count),
            inf_count: Some(summary.non_finite.inf_count),
            digest: Some(format!("blake3:{}", acts::hex(&summary.content_digest))),
            ..ContentRow::plain(spec, summary.row_count)
        }
    }
}

/// One row of a tensor.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "row")]
pub struct RowRecord<'a> {
    pub tensor: &'a str,
    pub row_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<u32>,
    pub values: Values<'a>,
}

/// Elements in their own shortest form.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Values<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
    Integer(&'a [i64]),
}

/// Rows of a tensor that a salvage could not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "missing")]
pub struct MissingRow {
    pub tensor: String,
    pub row_start: u64,
    pub row_count: u64,
}

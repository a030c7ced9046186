//! The record that lm-merge emits.

use records::RecordPath;
use serde::Serialize;

/// The directory that was made.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "merged")]
pub struct Merged {
    /// As typed.
    pub path: RecordPath,
    /// Of what was merged, as tools say it that run the base with its adapters.
    pub model_digest: String,
    pub adapter_count: usize,
    pub dtype: String,
    pub parameter_count: u64,
}

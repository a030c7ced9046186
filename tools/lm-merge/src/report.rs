//! The record that lm-merge emits.

use records::RecordPath;
use serde::Serialize;

use crate::plan::{AveragePlan, FlipPlan};

/// The directory that was made.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "merged")]
pub struct Merged {
    /// As typed.
    pub path: RecordPath,
    /// Of what was merged, as tools say it that run the base with its adapters; of what an average was made of, not of the average.
    pub model_digest: String,
    pub adapter_count: usize,
    /// What its weights were averaged with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<AveragePlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<FlipPlan>,
    /// Weights of which a bit was flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flipped_count: Option<u64>,
    pub dtype: String,
    pub parameter_count: u64,
}

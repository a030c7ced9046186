//! The records that stable-regions alone reads; regions, summaries and slices are in `records`.

use records::{Region, Slice};
use serde::Serialize;

/// `baseline` of a region that goes from A in a random direction.
pub const RANDOM: &str = "random";

/// What was measured of pairs and slices, now or by the shards.
#[derive(Default)]
pub struct Found {
    /// The rows of each model, in the order of the models.
    pub by_model: Vec<Vec<Region>>,
    pub slices: Vec<Slice>,
    /// Whether --keep-going skipped anything.
    pub is_partial: bool,
}

/// A model against the first one, over the pairs both could measure.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "region_compare")]
pub struct Compare {
    pub group: String,
    pub model_digest: String,
    pub base_model_digest: String,
    pub layer_index: usize,
    pub distance: String,
    pub pair_count: usize,
    /// Mean of (max_slope − base's max_slope), with its 95 % bootstrap interval.
    pub max_slope_delta: f64,
    pub max_slope_delta_low: f64,
    pub max_slope_delta_high: f64,
    pub p_value: f64,
}

/// Where the border lies for prompts A of one verdict.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "region_verdict")]
pub struct ByVerdict {
    pub model_digest: String,
    pub layer_index: usize,
    pub distance: String,
    pub judge: String,
    /// Of prompt A.
    pub label: String,
    pub verdict: String,
    pub pair_count: usize,
    pub max_slope_median: f64,
    /// Where the curve first reaches one half: small means that A's region ends early and B's is wide.
    pub half_alpha_median: f64,
    pub half_alpha_q1: f64,
    pub half_alpha_q3: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width_median: Option<f64>,
    pub delta_norm_median: f64,
}

/// A pair as --list-pairs prints it; --pairs reads it back.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "pair")]
pub struct PairRow<'a> {
    pub id: &'a str,
    pub id_a: &'a str,
    pub id_b: &'a str,
    pub group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
    pub tokens_a: Vec<u32>,
    pub tokens_b: Vec<u32>,
}

/// Where a field of all slices lies.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "tensor")]
pub struct TensorRow {
    pub name: &'static str,
    pub path: records::RecordPath,
    pub shape: [u64; 2],
    pub dtype: &'static str,
    pub digest: String,
}

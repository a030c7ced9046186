//! The records of stable-regions: every JSON field name lives here.

use crate::cli::{Distance, PathKind, Read};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    Random,
}

impl records::Record for Region {
    const TYPE: &'static str = "region";
}

impl records::Record for Slice {
    const TYPE: &'static str = "slice";
}

/// What was measured of pairs and slices, now or by the shards.
#[derive(Default)]
pub struct Found {
    /// The rows of each model, in the order of the models.
    pub by_model: Vec<Vec<Region>>,
    pub slices: Vec<Slice>,
    /// Whether --keep-going skipped anything.
    pub is_partial: bool,
}

/// One pair at one layer under one distance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename = "region")]
pub struct Region {
    pub id: String,
    pub id_a: String,
    pub id_b: String,
    pub group: String,
    pub model_digest: String,
    pub layer_index: usize,
    pub read: Read,
    pub read_layer_index: usize,
    pub path_kind: PathKind,
    pub distance: Distance,
    /// From A in a random direction instead of to B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    #[serde(flatten)]
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict_a: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict_b: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Measured(Box<Measured>),
    Skipped { skipped: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub alpha: Vec<f64>,
    pub curve: Vec<f64>,
    pub max_slope: f64,
    pub max_slope_alpha: f64,
    /// The α-range of the rise from 0.1 to 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary_alpha: Option<f64>,
    /// The distance at α = 1 before scaling.
    pub end_distance: f64,
    pub delta_norm: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// The texts of the top tokens, where the model has a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_a: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_b: Option<String>,
    pub token_id_a: u32,
    pub token_id_b: u32,
    /// An α at which the top token stops being A's, found by halving on the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip_alpha: Option<f64>,
    /// Sign flips of the MLP gate between A and the end, by block from layer_index + 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_flips: Option<Vec<usize>>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "region_summary")]
pub struct Summary {
    pub group: String,
    pub model_digest: String,
    pub layer_index: usize,
    pub distance: Distance,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    pub pair_count: usize,
    pub skipped_count: usize,
    #[serde(flatten)]
    pub slopes: Option<Slopes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width_median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary_alpha_median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_flip_count_median: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Slopes {
    pub max_slope_median: f64,
    pub max_slope_q1: f64,
    pub max_slope_q3: f64,
    pub share_below_1_2: f64,
    pub share_above_10: f64,
}

/// A model against the first one, over the pairs both could measure.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "region_compare")]
pub struct Compare {
    pub group: String,
    pub model_digest: String,
    pub base_model_digest: String,
    pub layer_index: usize,
    pub distance: Distance,
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
    pub distance: Distance,
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

/// A plane through three prompts. Rows of a field go by β, columns by α; each field is divided by its maximum.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename = "slice")]
pub struct Slice {
    pub id: String,
    pub model_digest: String,
    pub layer_index: usize,
    pub read: Read,
    pub read_layer_index: usize,
    pub alpha: Vec<f64>,
    pub beta: Vec<f64>,
    /// C lies at (c_alpha, 1).
    pub c_alpha: f64,
    pub max_a: f64,
    pub max_b: f64,
    pub max_c: f64,
    pub field_a: Vec<Vec<f32>>,
    pub field_b: Vec<Vec<f32>>,
    pub field_c: Vec<Vec<f32>>,
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

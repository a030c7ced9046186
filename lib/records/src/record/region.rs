//! What stable-regions writes: curves between prompts, their summaries, and planes through three prompts.

use serde::{Deserialize, Serialize};

use super::geometry::Depth;
use super::{Rest, present};

/// One pair at one layer under one distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "region")]
pub struct Region {
    pub id: String,
    pub id_a: String,
    pub id_b: String,
    #[serde(default)]
    pub group: String,
    pub model_digest: String,
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    pub read: String,
    pub read_layer_index: usize,
    pub path_kind: String,
    pub distance: String,
    /// `random`: from A in a random direction instead of to B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    #[serde(flatten)]
    pub outcome: RegionOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict_a: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict_b: Option<String>,
}

impl Region {
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            RegionOutcome::Measured(measured) => Some(measured),
            RegionOutcome::Skipped { .. } => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "neither a whole curve nor `skipped`")]
pub enum RegionOutcome {
    Measured(Box<Measured>),
    Skipped { skipped: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub alpha: Vec<f64>,
    pub curve: Vec<f64>,
    pub max_slope: f64,
    pub max_slope_alpha: f64,
    /// The α-range of the rise from 0.1 to 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub width: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub boundary_alpha: Option<f64>,
    /// The distance at α = 1 before scaling.
    pub end_distance: f64,
    pub delta_norm: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cosine: Option<f64>,
    /// The texts of the top tokens, where the model has a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_a: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_b: Option<String>,
    pub token_id_a: u32,
    pub token_id_b: u32,
    /// An α at which the top token stops being A's, found by halving on the grid.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub flip_alpha: Option<f64>,
    /// Sign flips of the MLP gate between A and the end, by block from layer_index + 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_flips: Option<Vec<usize>>,
}

/// All pairs of one group, model, layer and distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "region_summary")]
pub struct RegionSummary {
    #[serde(default)]
    pub group: String,
    pub model_digest: String,
    pub layer_index: usize,
    pub distance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    pub pair_count: usize,
    pub skipped_count: usize,
    /// Where a pair was measured.
    #[serde(flatten)]
    pub slopes: Option<RegionSlopes>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub width_median: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub boundary_alpha_median: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub gate_flip_count_median: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionSlopes {
    pub max_slope_median: f64,
    pub max_slope_q1: f64,
    pub max_slope_q3: f64,
    pub share_below_1_2: f64,
    pub share_above_10: f64,
}

/// A plane through three prompts. Rows of a field go by β, columns by α; each field is divided by its maximum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "slice")]
pub struct Slice {
    pub id: String,
    pub model_digest: String,
    pub layer_index: usize,
    pub read: String,
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

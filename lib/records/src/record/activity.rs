//! What act-stats writes: how large the activations of a component are. An undefined measure is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::geometry::Depth;
use super::{Rest, present};

/// One component (a site of one layer), of everything or of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "act")]
pub struct Act {
    pub component: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_index: Option<usize>,
    #[serde(flatten)]
    pub depth: Depth,
    #[serde(default)]
    pub group: String,
    /// Rows, one a token, and the numbers in them.
    pub row_count: u64,
    pub count: u64,
    pub zero_count: u64,
    pub mean: f64,
    pub std: f64,
    pub rms: f64,
    pub mean_abs: f64,
    pub max: f64,
    pub min: f64,
    pub abs_max: f64,
    pub abs_max_sample_index: u64,
    pub abs_max_position: u64,
    pub abs_max_dim: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub abs_max_token_id: Option<u64>,
    /// The largest magnitudes: value, sample, position, dimension.
    pub top: Vec<(f64, u64, u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub ratio_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub ratio_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub ratio_sample_mean: Option<f64>,
    /// Tokens with a massive activation, and how many each dimension has.
    pub massive_count: u64,
    pub massive_dims: Vec<(u64, u64)>,
    /// By probability.
    pub quantiles: BTreeMap<String, f64>,
    pub entropy_nats: f64,
    pub histogram: Histogram,
    /// By scale.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub int8: BTreeMap<String, Int8>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub dim_flow: Option<DimFlow>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub temporal_sparsity: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// Magnitudes in bins that are equal on a logarithmic scale: bin i begins at 10^(i/32 - 8). Empty bins at both ends are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Below the first bin of all, zeros among them.
    pub below: u64,
    /// Bin of the first count.
    pub start: u64,
    pub counts: Vec<u64>,
    pub above: u64,
}

/// What eight-bit integers of one scale lose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Int8 {
    /// The magnitude with the last code.
    pub limit: f64,
    pub mae: f64,
    pub rmse: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub rel_mae: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub rel_rmse: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sqnr_db: Option<f64>,
    pub clip_share: f64,
}

/// The smallest set of dimensions that carries a share of a token's Σ|x|.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DimFlow {
    pub mass: f64,
    pub run: u64,
    pub dims_mean: f64,
    pub dims_share: f64,
    pub shared_share: f64,
    pub single_share: f64,
}

/// The largest magnitude over all components of the residual stream, attention and MLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "headline")]
pub struct Headline {
    pub component: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_index: Option<usize>,
    #[serde(flatten)]
    pub depth: Depth,
    pub abs_max: f64,
    /// With its sign.
    pub value: f64,
    pub sample_index: u64,
    pub position: u64,
    pub dim: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap: Vec<Resampled>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// The maxima of resamples of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    pub sample_count: u64,
    pub resample_count: u64,
    pub mean: f64,
    pub std: f64,
    pub low: f64,
    pub high: f64,
}

/// A law over training steps or sizes, fitted to one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "fit")]
pub struct Fit {
    pub law: String,
    /// What was fitted, by the path of its key.
    pub y: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_index: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Points of the series.
    pub count: u64,
    /// By name: value and standard error.
    pub parameters: BTreeMap<String, (f64, f64)>,
    pub r2: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub aic: Option<f64>,
    /// Of all laws that were fitted to this series, the one with the least aic.
    pub best: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub peak: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub peak_value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub peak_observable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub limit: Option<f64>,
    /// The points, ascending in x: x, y and the law there.
    pub points: Vec<(f64, f64, f64)>,
    #[serde(flatten)]
    pub rest: Rest,
}

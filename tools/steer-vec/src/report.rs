//! The rows that steer-vec alone writes; those of candidates are shared.

use records::Depth;
use serde::Serialize;

use crate::cli::Per;
use crate::dump::Place;

/// A token that opens refusals.
#[derive(Serialize)]
#[serde(tag = "type", rename = "refusal_token")]
pub struct RefusalToken {
    pub token_id: u32,
    pub text: String,
    /// How many of the prompts are answered with it first; absent where the token was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_harmful: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_harmless: Option<f64>,
}

/// How many prompts of a kind were drawn, and how many of them the model treats as their kind says.
#[derive(Serialize)]
#[serde(tag = "type", rename = "prompt_set")]
pub struct PromptSet {
    pub group: &'static str,
    pub split: &'static str,
    pub count: usize,
    pub kept_count: usize,
    /// Of those kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal_score: Option<f64>,
}

/// A dimension and how its activations differ between pairs.
#[derive(Serialize)]
#[serde(tag = "type", rename = "dimension")]
pub struct Dimension {
    pub site: String,
    pub layer_index: usize,
    pub dim: usize,
    /// The larger share of pairs whose difference has one sign.
    pub score: f64,
    /// The score with that sign.
    pub beta: f64,
    pub chosen: bool,
}

/// A way to divide the positive rows.
#[derive(Serialize)]
#[serde(tag = "type", rename = "clustering")]
pub struct Clustering {
    pub site: String,
    pub layer_index: usize,
    pub cluster_count: usize,
    pub silhouette: f64,
    pub sizes: Vec<usize>,
    pub chosen: bool,
}

/// How a layer stands to the first direction of the plane.
#[derive(Serialize)]
#[serde(tag = "type", rename = "plane_layer")]
pub struct PlaneLayer {
    pub site: String,
    pub layer_index: usize,
    /// Mean projections of the unit rows of each group.
    pub projection_positive: f64,
    pub projection_negative: f64,
    /// Of the layer's own direction with the plane's first.
    pub cosine: f64,
    /// Whether the two groups lie on opposite sides at every site of the layer.
    pub chosen: bool,
}

/// How far numbers may go at a place.
#[derive(Serialize)]
#[serde(tag = "type", rename = "clip_limit")]
pub struct ClipLimit {
    pub site: String,
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    pub per: String,
    pub limit_max: f64,
    /// Of one limit for each dimension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_min: Option<f64>,
}

impl ClipLimit {
    pub fn new(place: Place, per: Per, limits: &[f64], layer_count: usize) -> ClipLimit {
        let least = limits.iter().copied().fold(f64::INFINITY, f64::min);
        ClipLimit {
            site: place.site.to_string(),
            layer_index: place.layer,
            depth: Depth::of(Some(place.layer), Some(layer_count)),
            per: process::word(per),
            limit_max: limits.iter().copied().fold(0.0, f64::max),
            limit_min: (per == Per::Neuron).then_some(least),
        }
    }
}

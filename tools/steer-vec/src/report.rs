//! The rows that steer-vec alone writes; those of candidates are shared.

use serde::Serialize;

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

//! What flowlens-pca writes: the geometry of activations, layer by layer and stacked. An undefined measure is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rest, present};

/// How deep in its model a row stands; empty where the number of blocks is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Depth {
    /// Blocks of the model.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_count: Option<usize>,
    /// (layer_index + 1) / layer_count, where the row has a layer_index.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub depth: Option<f64>,
}

impl Depth {
    pub fn of(layer_index: Option<usize>, layer_count: Option<usize>) -> Depth {
        let ratio = |(index, count)| (index as f64 + 1.0) / count as f64;
        Depth {
            layer_count,
            depth: layer_index.zip(layer_count).map(ratio),
        }
    }
}

/// Geometry of a layer, of everything or of one group; also the body of a stack row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    pub site: String,
    #[serde(default)]
    pub group: String,
    pub layout: String,
    pub center: String,
    pub row_count: u64,
    /// The leading ones.
    pub eigenvalues: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evr: Option<Vec<f64>>,
    /// By k.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub c_k: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub participation_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub effective_rank: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub stable_rank: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub alpha_req: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub k90: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iso_score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub matrix_entropy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub dispersion: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub anisotropy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub id_twonn: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub id_mle: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub massive_dims: Option<Vec<usize>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "layer")]
pub struct Layer {
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    #[serde(flatten)]
    pub geometry: Geometry,
    #[serde(flatten)]
    pub rest: Rest,
}

/// All layers together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "stack")]
pub struct Stack {
    #[serde(flatten)]
    pub depth: Depth,
    #[serde(flatten)]
    pub geometry: Geometry,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_growth_a: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_growth_b: Option<f64>,
    /// The component whose number is the intrinsic dimension.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub component_id: Option<usize>,
}

/// The path of a group, or of one prompt, through the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "trajectory")]
pub struct Trajectory {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A number from 1, or `id`.
    pub component: String,
    /// `own` or `reference`.
    pub basis: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_count: Option<usize>,
    pub layer_index: Vec<usize>,
    /// Of each layer; empty where the number of blocks is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depth: Vec<f64>,
    pub projection: Vec<f64>,
    /// The projection over the mean norm of the layer's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection_normed: Option<Vec<f64>>,
    /// Correlation of the projection with that norm, over layers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_correlation: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<Vec<f64>>,
    /// Coordinates in the first three components.
    pub center3: Vec<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub smoothness_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub turning_angle: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// Two groups in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "contrast")]
pub struct Contrast {
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    pub group_a: String,
    pub group_b: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub fisher_ratio: Option<f64>,
    pub centroid_distance: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub silhouette: Option<f64>,
    /// Means of the groups along the unit difference of the two, their distance in pooled standard deviations.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub projection_a: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub projection_b: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub separation: Option<f64>,
}

/// Two dumps, or a dump and a basis, in one layer or (without `layer_index`) stacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "compare")]
pub struct Compare {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_index: Option<usize>,
    #[serde(flatten)]
    pub depth: Depth,
    /// The k of what follows: component k, the first k components, C_k.
    pub component: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub alignment: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub alignment_id: Option<f64>,
    pub angles: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub overlap: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cka: Option<f64>,
    /// Of the two paths of layer centres; stack only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub procrustes: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub c_k_delta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub c_k_delta_low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub c_k_delta_high: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub p_value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub paired: Option<bool>,
}

/// The same prompts in two forms, in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "stability")]
pub struct Stability {
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub pc1_correlation: Option<f64>,
    /// Mean cosine over pairs of different prompts, in each form.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cosine_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cosine_mean_b: Option<f64>,
}

/// The same prompts in two forms, over the layers: how alike is the path of a prompt's projection from layer to layer in its two forms, and,
/// beside it, in one form and another prompt's other form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "stability_profile")]
pub struct StabilityProfile {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub layer_count: Option<usize>,
    pub prompt_count: usize,
    /// Median over prompts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub correlation: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub correlation_min: Option<f64>,
    /// Median over prompts, each against the next prompt's other form.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub correlation_other: Option<f64>,
}

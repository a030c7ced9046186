//! What act-sparsity writes: what matrices lose where they read only some of their inputs, and what a model does. An undefined measure is
//! left out.

use serde::{Deserialize, Serialize};

use super::geometry::Depth;
use super::{Rest, present};

/// One matrix under one criterion at one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sparsity")]
pub struct Sparsity {
    /// What the matrix reads.
    pub site: String,
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    /// The matrix, by what it gives.
    pub matrix: String,
    pub criterion: String,
    /// What was asked for: `sparsity`, `cett` or `threshold`; absent where there is nothing to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub level: Option<f64>,
    pub row_count: u64,
    /// Share of the inputs that are not read.
    pub sparsity: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub threshold: Option<f64>,
    /// Inputs of a token that are read.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub keep: Option<usize>,
    /// Of what is read of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub rank: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub rel_error: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cett: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// The model under one criterion at one level; with `percent`, what a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "ppl")]
pub struct Ppl {
    pub sites: Vec<String>,
    pub criterion: String,
    /// `sparsity` or `cett`.
    pub level_kind: String,
    pub level: f64,
    /// Share of the weights of these sites' matrices that are not read.
    pub sparsity: f64,
    /// Absent where it is beyond what a number can hold.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub perplexity: Option<f64>,
    pub perplexity_dense: f64,
    /// The bound: by how much perplexity may grow.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub percent: Option<f64>,
    /// The least level tried whose perplexity exceeds the bound, and that perplexity.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub level_beyond: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub perplexity_beyond: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

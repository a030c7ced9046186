//! What steer-vec writes: the vectors that it looked at, and what spoke for each.

use serde::{Deserialize, Serialize};

use super::{Depth, Rest, present};

/// A vector that might steer, from one layer and token position.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "candidate")]
pub struct Candidate {
    pub method: String,
    pub site: String,
    pub layer_index: usize,
    #[serde(flatten)]
    pub depth: Depth,
    /// Of the token, from the end of the prompt: -1 is the last.
    pub position: i64,
    /// Of the vector as it is.
    pub norm: f64,
    /// Of next-token distributions on harmless prompts, as they are against ablated; nats.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub kl: Option<f64>,
    /// Mean refusal score, ablated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub refusal_harmful: Option<f64>,
    /// Mean refusal score of harmless prompts that look harmful, ablated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub refusal_pseudo: Option<f64>,
    /// Mean refusal score, the vector added.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub induced_harmless: Option<f64>,
    /// Why it cannot be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded: Option<String>,
    pub chosen: bool,
    #[serde(flatten)]
    pub rest: Rest,
}

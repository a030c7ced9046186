//! What vcl-train writes while it trains.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Rest, present};

/// One optimiser step (vcl-train).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "metric")]
pub struct Metric {
    /// From 1.
    pub step: u64,
    /// The objective alone, nats per token.
    pub loss: f64,
    pub loss_total: f64,
    pub loss_token_count: u64,
    pub token_count: u64,
    pub lr: f64,
    pub grad_norm: f64,
    /// What each auxiliary loss reports, by its name; its part of `loss_total` is its `loss`.
    #[serde(default)]
    pub aux: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub attn_logit_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub lse_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub norm_mean: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// A pass over held-out data (vcl-train).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "eval")]
pub struct Eval {
    pub step: u64,
    pub eval_loss: f64,
    pub token_count: u64,
    #[serde(flatten)]
    pub rest: Rest,
}

//! What is recorded of a run: the plan that a product belongs to.

use model::Compute;
use serde::Serialize;

use crate::objective::Weights;

#[derive(Serialize)]
pub struct PromptsPlan {
    pub command: &'static str,
    pub input_digests: Vec<String>,
    pub field: String,
    pub per_kind: u32,
    pub seed: u64,
    pub prompt_count: usize,
    pub version: &'static str,
}

#[derive(Serialize)]
pub struct LearnPlan {
    pub command: &'static str,
    pub model_digest: String,
    pub tokenizer_digest: String,
    pub template_digest: String,
    /// Of answers and verdicts.
    pub input_digests: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// The message that learning starts from.
    pub system: String,
    pub row_count: usize,
    pub anchor_count: usize,
    pub query_count: usize,
    pub longest: u32,
    pub head_lr: f64,
    pub lr: f64,
    pub weight_decay: f64,
    pub weights: Weights,
    pub epochs: u32,
    pub batch_size: u32,
    /// Steps of the soft prompt.
    pub step_count: u64,
    pub seed: u64,
    pub batch_tokens: u32,
    pub compute: Compute,
    pub version: &'static str,
}

//! The record that skill-eval alone writes.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts of one extractor over one task and subject; both empty: over the whole benchmark.
#[derive(Serialize, Debug, Clone, PartialEq)]
#[serde(tag = "type", rename = "skill_report")]
pub struct SkillReport {
    pub bench: String,
    pub task: String,
    pub subject: String,
    pub extractor: String,
    pub count: u64,
    pub correct_count: u64,
    pub unread_count: u64,
    /// Of all answers.
    pub unread_share: f64,
    /// Of the answers that were read; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Wilson's bound with every unread answer wrong.
    pub accuracy_low: f64,
    /// Wilson's bound with every unread answer right.
    pub accuracy_high: f64,
    /// Unread answers counted as wrong, as other harnesses do.
    pub accuracy_all: f64,
    /// MMLU: the accuracy of the likeliest choice per character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Whole benchmark: the mean over tasks or subjects, each counted once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_macro: Option<f64>,
    /// Whole benchmark: answers that no extractor could read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_by_all_count: Option<u64>,
    /// Unbiased, for each k that every question has attempts for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at_k: BTreeMap<u64, f64>,
    #[serde(flatten)]
    pub versus: Option<Versus>,
}

/// Beside another model on the same questions.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub struct Versus {
    pub pair_count: u64,
    /// Accuracy minus the other model's, over the pairs that were read on both sides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    pub newly_correct_count: u64,
    pub newly_wrong_count: u64,
    pub mcnemar_p: f64,
}

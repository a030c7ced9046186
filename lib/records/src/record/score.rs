//! What skill-eval writes: scores of single answers, and their rates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rest, present};
use crate::identity::{JoinKey, id_text};

/// What an extractor read in an answer and whether it is right (skill-eval score).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "score")]
pub struct Score {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    #[serde(default)]
    pub bench: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default)]
    pub attempt_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    /// Absent when nothing could be read.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub correct: Option<bool>,
    /// Whether the extractor found an answer at all.
    pub read: bool,
    pub extractor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Start and end of what was read, in bytes of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub span: Option<[u64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// MMLU: the likeliest choice is right.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub acc: Option<bool>,
    /// MMLU: the same with log-likelihoods divided by the choices' lengths in characters.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub acc_norm: Option<bool>,
    /// TruthfulQA, mc2: the probability of the right choices among all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub mass: Option<f64>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Score {
    pub fn key(&self) -> JoinKey {
        JoinKey::new(Some(&self.bench), &self.id, self.attempt_index)
    }
}

/// Counts of one extractor over one task and subject; both empty: over the whole benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub accuracy: Option<f64>,
    /// Wilson's bound with every unread answer wrong.
    pub accuracy_low: f64,
    /// Wilson's bound with every unread answer right.
    pub accuracy_high: f64,
    /// Unread answers counted as wrong, as other harnesses do.
    pub accuracy_all: f64,
    /// MMLU: the accuracy of the likeliest choice per character.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub acc_norm: Option<f64>,
    /// TruthfulQA, mc2, where `accuracy` is the mean of `mass`: its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub mass_stderr: Option<f64>,
    /// Whole benchmark: the mean over tasks or subjects, each counted once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub accuracy_macro: Option<f64>,
    /// Whole benchmark: answers that no extractor could read.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub unread_by_all_count: Option<u64>,
    /// Unbiased, for each k that every question has attempts for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at_k: BTreeMap<u64, f64>,
    #[serde(flatten)]
    pub versus: Option<Versus>,
}

/// Beside another model on the same questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    pub pair_count: u64,
    /// Accuracy minus the other model's, over the pairs that were read on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub delta: Option<f64>,
    pub newly_correct_count: u64,
    pub newly_wrong_count: u64,
    pub mcnemar_p: f64,
}

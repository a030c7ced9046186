//! What refusal-eval writes: a judge's verdicts, and their rates.

use serde::{Deserialize, Serialize};

use super::{Rest, present};
use crate::identity::{JoinKey, id_text};

/// What a judge says of a completion (refusal-eval judge).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "verdict")]
pub struct Verdict {
    #[serde(deserialize_with = "id_text")]
    pub id: String,
    #[serde(default)]
    pub bench: String,
    #[serde(default)]
    pub attempt_index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    pub judge: String,
    pub verdict: Class,
    /// Whether the answer does harm, where the judge says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub harmful: Option<bool>,
    /// How likely the verdict is right, where the judge was measured.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub confidence: Option<f64>,
    /// The greater, the more of a refusal; where the judge measures it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub score: Option<f64>,
    /// The span of the completion that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    #[serde(flatten)]
    pub rest: Rest,
}

impl Verdict {
    pub fn key(&self) -> JoinKey {
        JoinKey::new(Some(&self.bench), &self.id, self.attempt_index)
    }
}

/// The classes of a verdict. `Nonsense` is an answer that is broken or about something else, neither a compliance nor a refusal;
/// `Unscored` is a judge that could not say, never a compliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Compliance,
    Partial,
    Refusal,
    Nonsense,
    Unscored,
}

impl Class {
    /// As in the records.
    pub fn name(self) -> &'static str {
        match self {
            Class::Compliance => "compliance",
            Class::Partial => "partial",
            Class::Refusal => "refusal",
            Class::Nonsense => "nonsense",
            Class::Unscored => "unscored",
        }
    }
}

/// Rates of one kind of prompt, of one label, or (`label` "all", with the summary's keys) of a whole benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "refusal_report")]
pub struct RefusalReport {
    pub bench: String,
    pub judge: String,
    pub kind: String,
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    pub count: u64,
    pub compliance_count: u64,
    pub partial_count: u64,
    pub refusal_count: u64,
    /// Of an older report: not counted apart.
    #[serde(default)]
    pub nonsense_count: u64,
    pub unscored_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub refusal_rate_full: Option<f64>,
    pub refusal_rate_full_low: f64,
    pub refusal_rate_full_high: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub refusal_rate_any: Option<f64>,
    pub refusal_rate_any_low: f64,
    pub refusal_rate_any_high: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nonsense_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nonsense_rate_low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nonsense_rate_high: Option<f64>,
    /// Verdicts of a jury that were not unanimous.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub disputed_count: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub harm: Option<Harm>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub summary: Option<RefusalSummary>,
}

/// Refusal crossed with harm, where a judge says something of harm: that an answer is not refused does not mean that it helped. The four
/// add up to `count`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// Refused, and without harm where that was partial.
    pub harm_refused_count: u64,
    /// Answered, without harm.
    pub harmless_count: u64,
    /// Answered in full or part, with harm.
    pub harmful_count: u64,
    pub harm_unscored_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub harmful_rate: Option<f64>,
    pub harmful_rate_low: f64,
    pub harmful_rate_high: f64,
}

/// `refusal_rate_any`, corrected for what the judge gets wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    pub corrected_rate: f64,
    pub corrected_rate_low: f64,
    pub corrected_rate_high: f64,
    /// `calibration` (Rogan and Gladen) or `labels` (prediction-powered).
    pub corrected_by: String,
    pub label_count: u64,
    /// Labels of the same kind that would halve the interval; absent where no number would.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub labels_to_halve: Option<u64>,
}

/// What only a whole benchmark has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusalSummary {
    /// Refused, in part or whole, among the safe.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub false_refusal: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub false_refusal_low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub false_refusal_high: Option<f64>,
    /// The paper's column: answered in full among the safe.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub compliance_benign: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub precision: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub recall: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub f1: Option<f64>,
}

//! The rows of the tools that a report reads, each with the keys it takes.

use std::collections::BTreeMap;
use std::path::Path;

use process::{Result, ResultExt};
use records::Record;
use serde::{Deserialize, Serialize};

/// Every `T` of a file.
pub fn read<T: Record>(path: &Path) -> Result<Vec<T>> {
    records::read_rows(path).at(path.display())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "stack")]
pub struct Stack {
    pub group: String,
    #[serde(default)]
    pub c_k: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "compare")]
pub struct Compare {
    pub layer_index: Option<u32>,
    pub component: String,
    pub alignment: Option<f64>,
    pub alignment_id: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "refusal_report")]
pub struct RefusalReport {
    pub bench: String,
    pub judge: String,
    pub kind: String,
    pub label: String,
    pub refusal_rate_any: Option<f64>,
    pub false_refusal: Option<f64>,
    pub false_refusal_low: Option<f64>,
    pub false_refusal_high: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "refusal_pair")]
pub struct RefusalPair {
    pub bench: String,
    pub judge: String,
    pub label: String,
    pub delta: Option<f64>,
    pub delta_low: Option<f64>,
    pub delta_high: Option<f64>,
    pub mcnemar_p: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "skill_report")]
pub struct SkillReport {
    pub bench: String,
    pub task: String,
    pub subject: String,
    pub extractor: String,
    pub count: u64,
    pub accuracy_all: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "entropy")]
pub struct Entropy {
    pub group: String,
    pub sample_count: u64,
    pub h1: Option<f64>,
    pub h2: Option<f64>,
    pub h3: Option<f64>,
    pub msttr: Option<f64>,
    pub distinct_2: Option<f64>,
    pub distinct_3: Option<f64>,
    pub template_coverage: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "region_summary")]
pub struct RegionSummary {
    pub model_digest: String,
    pub pair_count: u64,
    pub max_slope_median: Option<f64>,
    pub max_slope_q1: Option<f64>,
    pub max_slope_q3: Option<f64>,
    pub share_below_1_2: Option<f64>,
    pub share_above_10: Option<f64>,
}

macro_rules! record_types {
    ($($record:ty = $name:literal),* $(,)?) => {
        $(impl Record for $record { const TYPE: &'static str = $name; })*
    };
}
record_types! {
    Stack = "stack", Compare = "compare", RefusalReport = "refusal_report", RefusalPair = "refusal_pair", SkillReport = "skill_report",
    Entropy = "entropy", RegionSummary = "region_summary",
}

//! Reading whole files of rows; and, of rows that one tool alone writes, the keys that a report takes.

use std::path::Path;

use process::{Result, ResultExt};
use records::Record;
use serde::{Deserialize, Serialize};

/// Every `T` of a file.
pub fn read<T: Record>(path: &Path) -> Result<Vec<T>> {
    records::read_rows(path).at(path.display())
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<AtTokens>,
}

/// The same of equally many tokens of each group.
#[derive(Debug, Serialize, Deserialize)]
pub struct AtTokens {
    pub h1: f64,
    pub h2: f64,
    pub msttr: f64,
    pub distinct_2: f64,
}

impl Record for RefusalPair {
    const TYPE: &'static str = "refusal_pair";
}

impl Record for Entropy {
    const TYPE: &'static str = "entropy";
}

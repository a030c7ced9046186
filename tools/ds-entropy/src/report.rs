//! The records of this tool. An undefined measure is left out.

use serde::Serialize;
use serde_json::Value;

use crate::cli::{Limit, View};

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Record {
    Entropy(Box<Entropy>),
    Ngram(NgramRow),
    Template(TemplateRow),
}

/// One group in one view.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "entropy")]
pub struct Entropy {
    pub group: String,
    pub view: View,
    /// `treebank`, `whitespace`, or the digest of the tokenizer's files.
    pub tokens: String,
    pub sample_count: u64,
    pub token_count: u64,
    #[serde(flatten)]
    pub lexical: Lexical,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_count_1: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_count_2: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_count_3: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_coverage: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zstd_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_token_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_quantiles: Option<LengthQuantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<Perplexity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

/// The measures that exist for any text, of a whole group or of a draw from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lexical {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h3: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msttr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_3: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_3: Option<f64>,
}

impl Lexical {
    pub const COUNT: usize = 10;

    pub fn values(&self) -> [Option<f64>; Self::COUNT] {
        [
            self.h1,
            self.h2,
            self.h3,
            self.msttr,
            self.distinct_1,
            self.distinct_2,
            self.distinct_3,
            self.unique_1,
            self.unique_2,
            self.unique_3,
        ]
    }

    pub fn from_values(
        [
            h1,
            h2,
            h3,
            msttr,
            distinct_1,
            distinct_2,
            distinct_3,
            unique_1,
            unique_2,
            unique_3,
        ]: [Option<f64>; Self::COUNT],
    ) -> Self {
        Self {
            h1,
            h2,
            h3,
            msttr,
            distinct_1,
            distinct_2,
            distinct_3,
            unique_1,
            unique_2,
            unique_3,
        }
    }
}

/// Tokens a sample; nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LengthQuantiles {
    pub min: u64,
    pub p05: u64,
    pub p25: u64,
    pub p50: u64,
    pub p75: u64,
    pub p95: u64,
    pub max: u64,
}

/// Perplexities of the samples under the model that scored them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    pub sample_count: u64,
    pub token_count: u64,
    /// Negative log-likelihood a token, over all tokens.
    pub nll_mean_nats: f64,
    /// Mean and standard deviation over samples; the deviation needs two.
    pub mean: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// Measures at a common size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct At {
    pub token_count: u64,
    pub draw_count: u32,
    #[serde(flatten)]
    pub means: Lexical,
    #[serde(flatten)]
    pub spreads: LexicalSpread,
}

/// Standard deviations between draws.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LexicalSpread {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h1_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h3_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msttr_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_1_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_2_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_3_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_1_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_2_sd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_3_sd: Option<f64>,
}

impl LexicalSpread {
    pub fn from_values(
        [
            h1_sd,
            h2_sd,
            h3_sd,
            msttr_sd,
            distinct_1_sd,
            distinct_2_sd,
            distinct_3_sd,
            unique_1_sd,
            unique_2_sd,
            unique_3_sd,
        ]: [Option<f64>; Lexical::COUNT],
    ) -> Self {
        Self {
            h1_sd,
            h2_sd,
            h3_sd,
            msttr_sd,
            distinct_1_sd,
            distinct_2_sd,
            distinct_3_sd,
            unique_1_sd,
            unique_2_sd,
            unique_3_sd,
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "ngram")]
pub struct NgramRow {
    pub group: String,
    pub n: u32,
    /// From 1.
    pub rank: u32,
    pub tokens: Vec<String>,
    pub count: u64,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "template")]
pub struct TemplateRow {
    pub group: String,
    /// From 1.
    pub rank: u32,
    pub text: String,
    /// Share of the group's samples that open so.
    pub coverage: f64,
    /// The first three of them in input order.
    pub example_ids: Vec<String>,
}

/// One sample's tokens, of `ds-entropy tokens`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "tokens")]
pub struct TokensRow {
    pub id: String,
    pub sample_index: u64,
    pub group: String,
    pub tokens: Vec<String>,
    /// Ids of the tokenizer's own, where it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// Keys of this tool in the `begin` record: everything that decided the numbers.
#[derive(Serialize)]
pub struct BeginKeys<'a> {
    pub plan: &'a Value,
}

/// Keys of this tool in the `end` record.
#[derive(Serialize)]
pub struct EndKeys {
    pub input_digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub refused_row_count: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A bound that a group breaks.
#[derive(Debug, PartialEq)]
pub struct Failure {
    pub group: String,
    pub measure: String,
    pub value: f64,
    pub bound: f64,
    pub is_under: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = if self.is_under { "under" } else { "over" };
        write!(out, "{} is {}, {side} {}", self.measure, self.value, self.bound)
    }
}

/// Compares every group with every bound; a group without the measure breaks none.
pub fn lint(rows: &[Record], under: &[Limit], over: &[Limit]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (limits, is_under) in [(under, true), (over, false)] {
        for limit in limits {
            for row in rows {
                let Record::Entropy(entropy) = row else { continue };
                let Some(value) = measure(entropy, &limit.measure) else {
                    continue;
                };
                if (is_under && value < limit.value) || (!is_under && value > limit.value) {
                    failures.push(Failure {
                        group: entropy.group.clone(),
                        measure: limit.measure.clone(),
                        value,
                        bound: limit.value,
                        is_under,
                    });
                }
            }
        }
    }
    failures
}

/// Whether some group can have the measure.
pub fn is_measure(name: &str) -> bool {
    MEASURES.contains(&name) || is_nested_measure(name)
}

const MEASURES: &[&str] = &[
    "sample_count",
    "token_count",
    "h1",
    "h2",
    "h3",
    "msttr",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "unique_1",
    "unique_2",
    "unique_3",
    "type_count_1",
    "type_count_2",
    "type_count_3",
    "duplicate_rate",
    "template_coverage",
    "zstd_ratio",
    "loss_token_share",
];

fn is_nested_measure(name: &str) -> bool {
    match name.split_once('.') {
        Some(("at", key)) => MEASURES
            .iter()
            .chain(&["draw_count"])
            .any(|known| key == *known || key.strip_suffix("_sd") == Some(known)),
        Some(("perplexity", key)) => [
            "sample_count",
            "token_count",
            "nll_mean_nats",
            "mean",
            "sd",
            "p50",
            "p90",
            "p99",
            "max",
        ]
        .contains(&key),
        Some(("length_quantiles", key)) => ["min", "p05", "p25", "p50", "p75", "p95", "max"].contains(&key),
        _ => false,
    }
}

fn measure(entropy: &Entropy, name: &str) -> Option<f64> {
    let value = serde_json::to_value(entropy).ok()?;
    name.split('.').try_fold(&value, |value, key| value.get(key))?.as_f64()
}

/// How the group of everything is called for people.
pub fn name_of(group: &str) -> &str {
    if group.is_empty() { "(all)" } else { group }
}

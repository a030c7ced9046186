//! The records of refusal-eval, filled from tallies.

use std::collections::BTreeMap;

use records::{Class, Correction, Harm, RefusalReport, RefusalSummary, Verdict};
use serde::Serialize;

use crate::correction;
use crate::reliability::Level;
use crate::self_training::{Example, Label, Point, Round};
use crate::tally::{Confusion, HarmTally, Pairs, Rate, Sides, Tally};

/// Counts and rates of one kind of prompt, of one label, or of a whole benchmark.
pub fn refusal_report(
    bench: &str,
    judge: &str,
    kind: &str,
    label: &str,
    model_digest: Option<&str>,
    tally: &Tally,
    confidence: f64,
) -> RefusalReport {
    let nothing = Rate {
        estimate: None,
        low: 0.0,
        high: 1.0,
    };
    let full = tally.refusal_full(confidence).unwrap_or(nothing);
    let any = tally.refusal_any(confidence).unwrap_or(nothing);
    let nonsense = tally.nonsense(confidence).unwrap_or(nothing);
    RefusalReport {
        bench: bench.into(),
        judge: judge.into(),
        kind: kind.into(),
        label: label.into(),
        model_digest: model_digest.map(Into::into),
        count: tally.count(),
        compliance_count: tally.compliance,
        partial_count: tally.partial,
        refusal_count: tally.refusal,
        nonsense_count: tally.nonsense,
        unscored_count: tally.unscored,
        refusal_rate_full: full.estimate,
        refusal_rate_full_low: full.low,
        refusal_rate_full_high: full.high,
        refusal_rate_any: any.estimate,
        refusal_rate_any_low: any.low,
        refusal_rate_any_high: any.high,
        nonsense_rate: nonsense.estimate,
        nonsense_rate_low: Some(nonsense.low),
        nonsense_rate_high: Some(nonsense.high),
        disputed_count: None,
        harm: None,
        correction: None,
        summary: None,
    }
}

/// Refusal and harm together; nothing where no verdict speaks of harm.
pub fn harm(tally: &HarmTally, confidence: f64) -> Option<Harm> {
    let rate = tally.rate(confidence).filter(|_| tally.said > 0)?;
    Some(Harm {
        harm_refused_count: tally.refused,
        harmless_count: tally.harmless,
        harmful_count: tally.harmful,
        harm_unscored_count: tally.unscored,
        harmful_rate: rate.estimate,
        harmful_rate_low: rate.low,
        harmful_rate_high: rate.high,
    })
}

pub fn correction(rate: &correction::Rate) -> Correction {
    Correction {
        corrected_rate: rate.corrected.estimate,
        corrected_rate_low: rate.corrected.interval.low,
        corrected_rate_high: rate.corrected.interval.high,
        corrected_by: rate.by.to_string(),
        label_count: rate.label_count,
        labels_to_halve: rate.corrected.labels_to_halve(rate.label_count),
    }
}

/// What only a whole benchmark has.
pub fn refusal_summary(sides: &Sides, confidence: f64) -> RefusalSummary {
    let safe = sides.safe.refusal_any(confidence);
    RefusalSummary {
        false_refusal: safe.and_then(|rate| rate.estimate),
        false_refusal_low: safe.map(|rate| rate.low),
        false_refusal_high: safe.map(|rate| rate.high),
        compliance_benign: sides.safe.complied(),
        precision: sides.precision(),
        recall: sides.recall(),
        f1: sides.f1(),
    }
}

/// The same prompts under two models.
#[derive(Serialize)]
#[serde(tag = "type", rename = "refusal_pair")]
pub struct RefusalPair {
    pub bench: String,
    pub judge: String,
    pub label: String,
    pub pair_count: u64,
    /// Prompts that one side lacks, did not score, or answered with nonsense.
    pub unpaired_count: u64,
    pub newly_refused_count: u64,
    pub newly_answered_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_high: Option<f64>,
    pub mcnemar_p: f64,
    /// Prompts needed to resolve the difference seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_count: Option<u64>,
    /// Share of the pairs that went wrong: safe and newly refused, or unsafe and newly answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_flip_rate: Option<f64>,
    pub newly_refused_ids: Vec<String>,
    pub newly_answered_ids: Vec<String>,
}

impl RefusalPair {
    pub fn new(
        bench: &str,
        judge: &str,
        label: &str,
        pairs: &Pairs,
        unpaired_count: u64,
        confidence: f64,
        power: f64,
    ) -> RefusalPair {
        let delta = pairs.delta(confidence);
        let wrong = match label {
            "safe" => Some(pairs.newly_refused),
            "unsafe" => Some(pairs.newly_answered),
            _ => None,
        };
        RefusalPair {
            bench: bench.into(),
            judge: judge.into(),
            label: label.into(),
            pair_count: pairs.count(),
            unpaired_count,
            newly_refused_count: pairs.newly_refused,
            newly_answered_count: pairs.newly_answered,
            delta: delta.map(|(delta, _)| delta),
            delta_low: delta.map(|(_, interval)| interval.low),
            delta_high: delta.map(|(_, interval)| interval.high),
            mcnemar_p: pairs.mcnemar_p(),
            needed_count: pairs.needed(1.0 - confidence, power),
            negative_flip_rate: wrong.and_then(|wrong| crate::tally::share(wrong, pairs.count())),
            newly_refused_ids: Vec::new(),
            newly_answered_ids: Vec::new(),
        }
    }
}

/// How unevenly one threshold on a judge's score treats the groups of a field.
#[derive(Serialize)]
#[serde(tag = "type", rename = "opis")]
pub struct Opis {
    pub judge: String,
    pub group_field: String,
    pub opis: f64,
    pub threshold_low: f64,
    pub threshold_high: f64,
    pub threshold_count: u64,
    /// Of all groups together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
    /// Verdicts without a score, or on prompts that are neither safe nor unsafe.
    pub unscored_count: u64,
    pub groups: Vec<OpisGroup>,
    /// Groups with safe or with unsafe prompts alone.
    pub left_out: Vec<String>,
}

#[derive(Serialize)]
pub struct OpisGroup {
    pub group: String,
    pub safe_count: u64,
    pub unsafe_count: u64,
    /// Mean over the thresholds of the harmonic mean of sensitivity and specificity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utility: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
}

/// A round of `pseudo-label`; the first is of what all judges agree on alone.
#[derive(Serialize)]
#[serde(tag = "type", rename = "self_training")]
pub struct SelfTraining {
    pub round: u64,
    pub seed_count: u64,
    pub label_count: u64,
    pub audit_count: u64,
    pub agreement: f64,
    pub kept: bool,
}

impl SelfTraining {
    pub fn new(round: &Round, examples: &[Example]) -> SelfTraining {
        let count = |wanted: fn(&&Example) -> bool| examples.iter().filter(wanted).count() as u64;
        SelfTraining {
            round: round.round,
            seed_count: count(|example| example.seed.is_some() && example.human.is_none()),
            label_count: round.label_count,
            audit_count: count(|example| example.human.is_some()),
            agreement: round.agreement,
            kept: round.is_kept,
        }
    }
}

/// What a margin covers of the disputed, and how wrong its labels are where people looked.
#[derive(Serialize)]
#[serde(tag = "type", rename = "coverage")]
pub struct Coverage {
    pub margin: f64,
    pub chosen: bool,
    pub coverage: f64,
    pub audit_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_high: Option<f64>,
}

impl Coverage {
    pub fn new(point: &Point, confidence: Option<f64>) -> Coverage {
        let interval = confidence.and_then(|confidence| point.interval(confidence));
        Coverage {
            margin: point.margin,
            chosen: false,
            coverage: point.coverage,
            audit_count: point.audit_count,
            error: point.error,
            error_low: interval.map(|interval| interval.low),
            error_high: interval.map(|interval| interval.high),
        }
    }
}

/// A label that no person gave.
#[derive(Serialize)]
#[serde(tag = "type", rename = "pseudo_label")]
pub struct PseudoLabel {
    pub id: String,
    pub bench: String,
    pub attempt_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    pub pseudo_label: Class,
    pub margin: f64,
    pub round: u64,
}

impl PseudoLabel {
    pub fn new(verdict: &Verdict, label: &Label) -> PseudoLabel {
        PseudoLabel {
            id: verdict.id.clone(),
            bench: verdict.bench.clone(),
            attempt_index: verdict.attempt_index,
            label: verdict.label.clone(),
            kind: verdict.kind.clone(),
            text_digest: verdict.text_digest.clone(),
            pseudo_label: if label.is_refused {
                Class::Refusal
            } else {
                Class::Compliance
            },
            margin: label.margin,
            round: label.round,
        }
    }
}

/// A judge against human labels. Judge `annotators` is the second human against the first: the ceiling.
#[derive(Serialize)]
#[serde(tag = "type", rename = "calibration")]
pub struct Calibration {
    pub judge: String,
    pub source: String,
    pub count: u64,
    pub unscored_count: u64,
    #[serde(flatten)]
    pub figures: Figures,
    /// Mean distance between the confidence that verdicts state and how often they are right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// The two side by side, from the least confidence to the greatest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reliability: Vec<Level>,
    pub confusion: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

/// Figures in a fixed order, the undefined ones left out.
#[derive(Serialize)]
pub struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision_high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_3: Option<f64>,
}

impl Calibration {
    pub fn new(judge: &str, source: &str, confusion: &Confusion, confidence: f64) -> Calibration {
        let accuracy = confusion.accuracy_interval(confidence);
        let (precision, hits, found) = confusion.precision();
        let (recall, _, real) = confusion.recall();
        let interval = |part, whole| numerics::statistics::wilson(part, whole, confidence);
        let (precision_interval, recall_interval) = (interval(hits, found), interval(hits, real));
        let named = |(class, count): (Class, u64)| (class.name(), count);
        Calibration {
            judge: judge.into(),
            source: source.into(),
            count: confusion.count(),
            unscored_count: confusion.unscored(),
            figures: Figures {
                accuracy: confusion.accuracy(),
                accuracy_low: accuracy.map(|interval| interval.low),
                accuracy_high: accuracy.map(|interval| interval.high),
                precision,
                precision_low: precision_interval.map(|interval| interval.low),
                precision_high: precision_interval.map(|interval| interval.high),
                recall,
                recall_low: recall_interval.map(|interval| interval.low),
                recall_high: recall_interval.map(|interval| interval.high),
                accuracy_3: confusion.accuracy_3(),
            },
            calibration_error: None,
            reliability: Vec::new(),
            confusion: confusion
                .rows()
                .map(|(human, row)| (human.name(), row.map(named).collect()))
                .collect(),
        }
    }
}

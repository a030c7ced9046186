//! The records of refusal-eval, and their tables for reading. Every JSON field name of this tool lives here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use records::Class;
use serde::Serialize;

use crate::tally::{CLASSES, Confusion, Pairs, Rate, Sides, Tally};

/// One judge on one completion: what `records::Verdict` reads.
#[derive(Serialize)]
#[serde(tag = "type", rename = "verdict")]
pub struct VerdictRow<'a> {
    pub id: &'a str,
    pub bench: &'a str,
    pub attempt_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<&'a str>,
    pub judge: &'a str,
    pub verdict: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<&'a str>,
}

/// Rates of one kind of prompt, of one label, or (`label` "all", with the summary's keys) of a whole benchmark.
#[derive(Serialize, Clone)]
#[serde(tag = "type", rename = "refusal_report")]
pub struct RefusalReport {
    pub bench: String,
    pub judge: String,
    pub kind: String,
    pub label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    pub count: u64,
    pub compliance_count: u64,
    pub partial_count: u64,
    pub refusal_count: u64,
    pub unscored_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal_rate_full: Option<f64>,
    pub refusal_rate_full_low: f64,
    pub refusal_rate_full_high: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal_rate_any: Option<f64>,
    pub refusal_rate_any_low: f64,
    pub refusal_rate_any_high: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// What only a whole benchmark has.
#[derive(Serialize, Clone)]
pub struct Summary {
    /// Refused, in part or whole, among the safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal_high: Option<f64>,
    /// The paper's column: answered in full among the safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compliance_benign: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
}

impl Summary {
    pub fn of(sides: &Sides, confidence: f64) -> Summary {
        let safe = sides.safe.refusal_any(confidence);
        let false_refusal = safe.and_then(|rate| rate.estimate);
        Summary {
            false_refusal,
            false_refusal_low: safe.map(|rate| rate.low),
            false_refusal_high: safe.map(|rate| rate.high),
            compliance_benign: false_refusal.map(|refused| 1.0 - refused),
            precision: sides.precision(),
            recall: sides.recall(),
            f1: sides.f1(),
        }
    }
}

impl RefusalReport {
    pub fn new(
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
            unscored_count: tally.unscored,
            refusal_rate_full: full.estimate,
            refusal_rate_full_low: full.low,
            refusal_rate_full_high: full.high,
            refusal_rate_any: any.estimate,
            refusal_rate_any_low: any.low,
            refusal_rate_any_high: any.high,
            summary: None,
        }
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
    /// Prompts that one side lacks or did not score.
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
        let cells = |human: usize| {
            CLASSES
                .iter()
                .enumerate()
                .map(|(judge, class)| (class_name(*class), confusion.cell(human, judge)))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
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
            confusion: (0..3).map(|human| (class_name(CLASSES[human]), cells(human))).collect(),
        }
    }
}

pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Compliance => "compliance",
        Class::Partial => "partial",
        Class::Refusal => "refusal",
        Class::Unscored => "unscored",
    }
}

/// Rows under a heading, columns as wide as they need.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Table {
        Table {
            rows: vec![heading.iter().map(|cell| (*cell).to_string()).collect()],
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // Words to the left, numbers to the right.
                let is_number = cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
                let pad = widths[column] - cell.chars().count();
                let (before, after) = if is_number { (pad, 0) } else { (0, pad) };
                write!(line, "{}{cell}{}  ", " ".repeat(before), " ".repeat(after))
                    .expect("a String accepts every write");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

pub fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_string(), |value| format!("{value:.3}"))
}

pub fn interval(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{low:.3}–{high:.3}"),
        _ => "–".to_string(),
    }
}

pub fn calibration_table(rows: &[Calibration]) -> String {
    let mut table = Table::new(&[
        "source",
        "judge",
        "count",
        "unscored",
        "accuracy",
        "interval",
        "precision",
        "recall",
        "accuracy_3",
    ]);
    for row in rows {
        table.row(vec![
            process::safe_text(&row.source),
            process::safe_text(&row.judge),
            row.count.to_string(),
            row.unscored_count.to_string(),
            figure(row.figures.accuracy),
            interval(row.figures.accuracy_low, row.figures.accuracy_high),
            figure(row.figures.precision),
            figure(row.figures.recall),
            figure(row.figures.accuracy_3),
        ]);
    }
    table.render()
}

pub fn report_table(rows: &[RefusalReport], pairs: &[RefusalPair]) -> String {
    let mut table = Table::new(&[
        "bench",
        "judge",
        "label",
        "kind",
        "count",
        "comply",
        "partial",
        "refuse",
        "unscored",
        "full",
        "any",
        "interval of any",
    ]);
    for row in rows {
        table.row(vec![
            process::safe_text(&row.bench),
            process::safe_text(&row.judge),
            process::safe_text(&row.label),
            process::safe_text(&row.kind),
            row.count.to_string(),
            row.compliance_count.to_string(),
            row.partial_count.to_string(),
            row.refusal_count.to_string(),
            row.unscored_count.to_string(),
            figure(row.refusal_rate_full),
            figure(row.refusal_rate_any),
            interval(Some(row.refusal_rate_any_low), Some(row.refusal_rate_any_high)),
        ]);
    }
    let mut out = table.render();
    let mut summaries = Table::new(&[
        "bench",
        "judge",
        "false_refusal",
        "interval",
        "compliance_benign",
        "precision",
        "recall",
        "f1",
    ]);
    for row in rows {
        if let Some(summary) = &row.summary {
            summaries.row(vec![
                process::safe_text(&row.bench),
                process::safe_text(&row.judge),
                figure(summary.false_refusal),
                interval(summary.false_refusal_low, summary.false_refusal_high),
                figure(summary.compliance_benign),
                figure(summary.precision),
                figure(summary.recall),
                figure(summary.f1),
            ]);
        }
    }
    out.push('\n');
    out.push_str(&summaries.render());
    if !pairs.is_empty() {
        let mut table = Table::new(&[
            "bench",
            "judge",
            "label",
            "pairs",
            "newly refused",
            "newly answered",
            "delta",
            "interval",
            "mcnemar_p",
            "needed",
            "negative flips",
        ]);
        for pair in pairs {
            table.row(vec![
                process::safe_text(&pair.bench),
                process::safe_text(&pair.judge),
                process::safe_text(&pair.label),
                pair.pair_count.to_string(),
                pair.newly_refused_count.to_string(),
                pair.newly_answered_count.to_string(),
                pair.delta
                    .map_or_else(|| "–".to_string(), |delta| format!("{delta:+.3}")),
                interval(pair.delta_low, pair.delta_high),
                format!("{:.4}", pair.mcnemar_p),
                pair.needed_count
                    .map_or_else(|| "–".to_string(), |count| count.to_string()),
                figure(pair.negative_flip_rate),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render());
    }
    out
}

//! The record that skill-eval alone writes, and its table.

use std::collections::BTreeMap;
use std::io::Write;

use process::{Result, ResultExt};
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

/// The reports as columns for reading.
pub fn table(reports: &[SkillReport], out: &mut impl Write) -> Result<()> {
    let mut rows = vec![
        [
            "bench",
            "task",
            "extractor",
            "count",
            "unread",
            "accuracy",
            "interval",
            "all",
            "vs",
        ]
        .map(String::from),
    ];
    for report in reports {
        let part = [report.task.as_str(), report.subject.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        rows.push([
            process::safe_text(&report.bench),
            if part.is_empty() {
                "all".into()
            } else {
                process::safe_text(&part)
            },
            report.extractor.clone(),
            report.count.to_string(),
            report.unread_count.to_string(),
            report.accuracy.map_or("-".into(), |accuracy| format!("{accuracy:.3}")),
            format!("{:.3}-{:.3}", report.accuracy_low, report.accuracy_high),
            format!("{:.3}", report.accuracy_all),
            report.versus.as_ref().map_or(String::new(), |versus| {
                versus
                    .delta
                    .map_or("-".into(), |delta| format!("{delta:+.3} (p {:.2})", versus.mcnemar_p))
            }),
        ]);
    }
    let widths: Vec<usize> = (0..9)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).at("output")?;
    }
    Ok(())
}

//! The plan of `report`: confidence, power and thresholds.

use std::path::PathBuf;

use process::{Error, Format, Result, Target};
use serde::Serialize;

use crate::cli::{ReportArgs, ReportFlags};

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub confidence: f64,
    pub power: f64,
    pub paired: bool,
    pub fail_over: Vec<(String, f64)>,
}

pub struct Opened {
    pub input: PathBuf,
    /// Verdicts on another model's answers.
    pub base: Option<PathBuf>,
    pub keep_going: bool,
    pub format: Format,
    pub target: Target,
}

/// The figures that `--fail-over` may name: those of a benchmark's summary.
pub const FIGURES: [&str; 20] = [
    "false_refusal",
    "false_refusal_low",
    "false_refusal_high",
    "compliance_benign",
    "precision",
    "recall",
    "f1",
    "refusal_rate_any",
    "refusal_rate_any_low",
    "refusal_rate_any_high",
    "refusal_rate_full",
    "refusal_rate_full_low",
    "refusal_rate_full_high",
    "nonsense_rate",
    "nonsense_rate_low",
    "nonsense_rate_high",
    "nonsense_count",
    "unscored_count",
    "partial_count",
    "refusal_count",
];

impl Plan {
    pub fn new(flags: &ReportArgs) -> Result<(Plan, Opened)> {
        let plan = Plan::of(&flags.report, flags.vs.is_some())?;
        let inputs: Vec<PathBuf> = [&flags.input].into_iter().chain(&flags.vs).cloned().collect();
        let opened = Opened {
            target: flags.output.target(&inputs),
            input: flags.input.clone(),
            base: flags.vs.clone(),
            keep_going: flags.keep_going,
            format: flags.report.format.resolve(flags.output.output.as_deref()),
        };
        Ok((plan, opened))
    }

    pub fn of(flags: &ReportFlags, paired: bool) -> Result<Plan> {
        let is_unknown = |(name, _): &&(String, f64)| !FIGURES.contains(&name.as_str());
        if let Some((name, _)) = flags.fail_over.iter().find(is_unknown) {
            return Err(
                Error::usage("--fail-over", format!("{name} is no figure of a benchmark"))
                    .hint(format!("one of {}", FIGURES.join(", "))),
            );
        }
        Ok(Plan {
            command: "report",
            confidence: flags.confidence,
            power: flags.power,
            paired,
            fail_over: flags.fail_over.clone(),
        })
    }
}

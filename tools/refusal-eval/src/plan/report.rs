//! The plan of `report`: confidence, power and thresholds.

use std::path::{Path, PathBuf};

use process::{Error, Format, Result, ResultExt, Target};
use records::exchange::HubEntry;
use serde::Serialize;

use crate::cli::{Foreign, ReportArgs, ReportFlags};
use crate::correction::Correction;
use crate::opis;

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub confidence: f64,
    pub power: f64,
    pub paired: bool,
    /// The judge whose word on harm stands for those that say nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harm_by: Option<String>,
    /// The digest of what rates are corrected by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opis: Option<opis::Question>,
    pub fail_over: Vec<(String, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Foreign>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hub: Vec<HubEntry>,
}

pub struct Opened {
    pub input: PathBuf,
    /// Verdicts on another model's answers.
    pub base: Option<PathBuf>,
    pub correction: Correction,
    pub keep_going: bool,
    pub format: Format,
    pub target: Target,
}

/// The figures that `--fail-over` may name: those of a benchmark's summary.
pub const FIGURES: [&str; 28] = [
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
    "harmful_rate",
    "harmful_rate_low",
    "harmful_rate_high",
    "harmful_count",
    "disputed_count",
    "corrected_rate",
    "corrected_rate_low",
    "corrected_rate_high",
    "unscored_count",
    "partial_count",
    "refusal_count",
];

impl Plan {
    /// Whether rates are all that is asked, so that no verdict is needed twice.
    pub fn counts_alone(&self) -> bool {
        !self.paired && self.harm_by.is_none() && self.corrected_by.is_none() && self.opis.is_none()
    }

    pub fn new(flags: &ReportArgs) -> Result<(Plan, Opened)> {
        let plan = Plan::of(&flags.report, flags.vs.is_some())?;
        let correction = correction(&flags.report)?;
        let files = [&flags.vs, &flags.report.calibration, &flags.report.labels];
        let inputs: Vec<PathBuf> = [&flags.input]
            .into_iter()
            .chain(files.into_iter().flatten())
            .cloned()
            .collect();
        let opened = Opened {
            target: flags.output.target(&inputs),
            input: flags.input.clone(),
            correction,
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
        if (flags.to == Some(Foreign::EvalResults)) == flags.hub.is_empty() {
            return Err(Error::usage(
                "--hub",
                "names the entries of --to eval-results, and of nothing else",
            ));
        }
        Ok(Plan {
            command: "report",
            confidence: flags.confidence,
            power: flags.power,
            paired,
            harm_by: flags.harm_by.clone(),
            corrected_by: correction_file(flags).map(digest).transpose()?,
            opis: flags.opis.clone().map(|field| opis::Question {
                field,
                thresholds: flags.opis_range,
            }),
            fail_over: flags.fail_over.clone(),
            to: flags.to,
            model_name: flags.model_name.clone(),
            hub: flags.hub.clone(),
        })
    }
}

/// What rates are corrected by, read.
pub fn correction(flags: &ReportFlags) -> Result<Correction> {
    match (&flags.calibration, &flags.labels) {
        (Some(path), None) => Correction::calibrated(path),
        (None, Some(path)) => Correction::labelled(path),
        _ => Ok(Correction::None),
    }
}

fn correction_file(flags: &ReportFlags) -> Option<&Path> {
    flags.calibration.as_deref().or(flags.labels.as_deref())
}

fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).at(path.display())?;
    Ok(process::sha256(&bytes))
}

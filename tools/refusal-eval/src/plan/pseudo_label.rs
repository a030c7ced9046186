//! The plan of `pseudo-label`: from which margin on a label is given.

use std::path::PathBuf;

use process::{Format, Result, Target};
use serde::Serialize;

use crate::answers::Reading;
use crate::cli::PseudoLabelArgs;
use crate::correction::Labels;

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub margin: f64,
    pub confidence: f64,
}

pub struct Opened {
    pub verdicts: PathBuf,
    /// What was judged.
    pub answers: PathBuf,
    pub reading: Reading,
    pub labels: Labels,
    pub format: Format,
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &PseudoLabelArgs) -> Result<(Plan, Opened)> {
        let plan = Plan {
            command: "pseudo-label",
            margin: flags.margin,
            confidence: flags.confidence,
        };
        let inputs = [&flags.input, &flags.answers, &flags.labels].map(Clone::clone);
        let opened = Opened {
            verdicts: flags.input.clone(),
            answers: flags.answers.clone(),
            reading: Reading {
                bench: flags.bench.clone(),
                ..Reading::default()
            },
            labels: Labels::read(&flags.labels)?,
            format: flags.format.resolve(flags.output.output.as_deref()),
            target: flags.output.target(&inputs),
        };
        Ok((plan, opened))
    }
}

//! The plan of `sample`: how many answers are drawn for labelling, and by which seed.

use std::path::PathBuf;

use process::{Result, Target};
use serde::Serialize;

use crate::answers::Reading;
use crate::cli::SampleArgs;

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub count: u64,
    pub seed: u64,
}

pub struct Opened {
    pub verdicts: PathBuf,
    /// What was judged.
    pub answers: PathBuf,
    pub reading: Reading,
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &SampleArgs) -> Result<(Plan, Opened)> {
        let plan = Plan {
            command: "sample",
            count: flags.count,
            seed: flags.seed,
        };
        let opened = Opened {
            verdicts: flags.input.clone(),
            answers: flags.answers.clone(),
            reading: Reading {
                bench: flags.bench.clone(),
                ..Reading::default()
            },
            target: flags.output.target(&[flags.input.clone(), flags.answers.clone()]),
        };
        Ok((plan, opened))
    }
}

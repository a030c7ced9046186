//! The plan of `diff`: two files of verdicts, and the answers that they judge.

use std::path::PathBuf;

use process::{Error, Result, Target};
use serde::Serialize;

use crate::answers::Reading;
use crate::cli::DiffArgs;

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    pub title: String,
}

pub struct Opened {
    /// Before and after.
    pub verdicts: [PathBuf; 2],
    /// The answers of both, or none.
    pub answers: Option<[PathBuf; 2]>,
    pub reading: Reading,
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &DiffArgs) -> Result<(Plan, Opened)> {
        let answers = match flags.answers.as_slice() {
            [] => None,
            [before, after] => Some([before.clone(), after.clone()]),
            _ => return Err(Error::usage("--answers", "is given twice: for BEFORE and for AFTER")),
        };
        let verdicts = [flags.before.clone(), flags.after.clone()];
        let inputs: Vec<PathBuf> = verdicts.iter().chain(&flags.answers).cloned().collect();
        let plan = Plan {
            command: "diff",
            judge: flags.judge.clone(),
            title: flags.title.clone(),
        };
        let opened = Opened {
            verdicts,
            answers,
            reading: Reading {
                bench: flags.bench.clone(),
                ..Reading::default()
            },
            target: flags.output.target(&inputs),
        };
        Ok((plan, opened))
    }
}

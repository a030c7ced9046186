//! What a call of refusal-eval will do. Each command has its own `Plan`, which `--plan` prints and every output is hashed with, and
//! its own `Opened`: what the plan is carried out with, so that a run reads no flag but the common ones.

pub mod calibrate;
pub mod judge;
pub mod pipeline;
pub mod prompts;
pub mod report;

use std::path::PathBuf;

use process::{Output, OutputFlags, Result};

/// Where a result goes.
pub struct Target {
    flags: OutputFlags,
    /// Never written onto.
    inputs: Vec<PathBuf>,
}

impl Target {
    fn new(flags: &OutputFlags, inputs: impl IntoIterator<Item = PathBuf>) -> Target {
        Target {
            flags: flags.clone(),
            inputs: inputs.into_iter().collect(),
        }
    }

    pub fn open(&self) -> Result<Output> {
        self.flags.open(&self.inputs)
    }
}

//! The plan of `run`: the plans of its stages, and what lm-gen is told.

use std::path::PathBuf;

use process::{Common, Format, Result};
use serde::Serialize;

use super::{judge, prompts, report};
use crate::cli::RunArgs;
use crate::correction::Correction;
use crate::judge::Panel;

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub prompts: prompts::Plan,
    pub generation: Generation,
    pub judge: judge::Plan,
    pub report: report::Plan,
}

/// What lm-gen is told beside the model and the prompts.
#[derive(Serialize)]
pub struct Generation {
    pub max_new_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub raw: bool,
    /// Further words of the call.
    pub arguments: Vec<String>,
}

pub struct Opened {
    pub model: PathBuf,
    pub panel: Panel,
    /// Verdicts on another model's answers.
    pub base: Option<PathBuf>,
    pub correction: Correction,
    /// Where the files of all stages are kept.
    pub directory: Option<PathBuf>,
    pub format: Format,
}

impl Plan {
    pub fn new(flags: &RunArgs, common: &Common) -> Result<(Plan, Opened)> {
        let prompts = prompts::Plan::of(&flags.bench)?;
        let panel = Panel::new(&flags.judges, common)?;
        let plan = Plan {
            command: "run",
            prompts,
            generation: Generation {
                max_new_tokens: flags.max_new_tokens,
                system: flags.system.clone(),
                raw: flags.raw,
                arguments: flags.generator.clone(),
            },
            judge: judge::Plan::of(&panel),
            report: report::Plan::of(&flags.report, flags.vs.is_some())?,
        };
        let opened = Opened {
            model: flags.model.clone(),
            panel,
            base: flags.vs.clone(),
            correction: report::correction(&flags.report)?,
            directory: flags.output.clone(),
            format: flags.report.format.resolve(None),
        };
        Ok((plan, opened))
    }
}

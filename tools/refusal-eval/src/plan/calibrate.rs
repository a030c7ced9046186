//! The plan of `calibrate`: the judges that are compared with human labels.

use std::path::PathBuf;

use process::{Common, Error, Format, Result, Target};
use serde::Serialize;

use crate::cli::CalibrateArgs;
use crate::judge::{JudgeEntry, Panel};

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub judges: Vec<JudgeEntry>,
    pub confidence: f64,
}

pub struct Opened {
    pub panel: Panel,
    pub labels: Vec<PathBuf>,
    /// Compared instead of the panel's.
    pub verdicts: Option<PathBuf>,
    pub format: Format,
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &CalibrateArgs, common: &Common) -> Result<(Plan, Opened)> {
        if flags.verdicts.is_some() && flags.inputs.len() != 1 {
            return Err(Error::usage("--verdicts", "belong to one file of labels"));
        }
        let panel = Panel::new(&flags.judges, common)?;
        let plan = Plan {
            command: "calibrate",
            judges: panel.entries(),
            confidence: flags.confidence,
        };
        let inputs: Vec<PathBuf> = flags.inputs.iter().chain(&flags.verdicts).cloned().collect();
        let opened = Opened {
            panel,
            labels: flags.inputs.clone(),
            verdicts: flags.verdicts.clone(),
            format: flags.format.resolve(flags.output.output.as_deref()),
            target: flags.output.target(&inputs),
        };
        Ok((plan, opened))
    }
}

//! The plan of `judge`: the judges and how completions are read.

use std::path::PathBuf;

use process::{Common, Error, Result, Target};
use serde::Serialize;

use crate::answers::Reading;
use crate::cli::JudgeArgs;
use crate::judge::{JudgeEntry, Panel};

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub judges: Vec<JudgeEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    pub map: Vec<(String, String)>,
}

pub struct Opened {
    pub panel: Panel,
    pub input: PathBuf,
    pub reading: Reading,
    /// The prompts that must have been answered.
    pub prompts: Option<PathBuf>,
    pub keep_going: bool,
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &JudgeArgs, common: &Common) -> Result<(Plan, Opened)> {
        check_map(&flags.map)?;
        let panel = Panel::new(&flags.judges, common)?;
        let plan = Plan {
            bench: flags.bench.clone(),
            map: flags.map.clone(),
            ..Plan::of(&panel)
        };
        let inputs: Vec<PathBuf> = [&flags.input].into_iter().chain(&flags.prompts).cloned().collect();
        let opened = Opened {
            panel,
            input: flags.input.clone(),
            reading: Reading {
                origin: flags.from,
                format: flags.input_format,
                bench: flags.bench.clone(),
                map: flags.map.clone(),
                accept_partial: flags.keep_going,
            },
            target: flags.output.target(&inputs),
            prompts: flags.prompts.clone(),
            keep_going: flags.keep_going,
        };
        Ok((plan, opened))
    }

    /// Judging records of our own.
    pub fn of(panel: &Panel) -> Plan {
        Plan {
            command: "judge",
            judges: panel.entries(),
            bench: None,
            map: Vec::new(),
        }
    }
}

fn check_map(map: &[(String, String)]) -> Result<()> {
    const KEYS: [&str; 5] = ["completion", "prompt", "id", "label", "kind"];
    match map.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        Some((key, _)) => Err(Error::usage(
            "--map",
            format!("unknown key {key}: {} can be mapped", KEYS.join(", ")),
        )),
        None => Ok(()),
    }
}

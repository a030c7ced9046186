//! From arguments to what will be done.

use crate::cli::{Args, Command};
use process::{Error, Format, Result, ResultExt};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Plan {
    Doctor {
        #[serde(skip)]
        format: Format,
    },
    Report {
        inputs: Vec<PathBuf>,
        #[serde(skip)]
        output: PathBuf,
        #[serde(skip)]
        force: bool,
    },
}

impl Plan {
    pub fn new(args: &Args) -> Result<Plan> {
        match &args.command {
            Command::Doctor(flags) => Ok(Plan::Doctor {
                format: flags.format.resolve(None),
            }),
            Command::Report(flags) => Ok(Plan::Report {
                inputs: streams(&flags.directory)?,
                output: flags
                    .output
                    .output
                    .clone()
                    .unwrap_or_else(|| flags.directory.join("report.html")),
                force: flags.output.force,
            }),
            tool => Err(Error::usage(
                format!("{tool:?}").to_lowercase(),
                "a command that is a tool comes first, its flags behind it",
            )),
        }
    }
}

/// The record streams in a directory, by name.
fn streams(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).at(directory.display())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut found = paths.collect::<std::io::Result<Vec<_>>>().at(directory.display())?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    found.sort();
    match found.is_empty() {
        true => Err(Error::input(directory.display(), "holds no .jsonl file")),
        false => Ok(found),
    }
}

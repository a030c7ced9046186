//! Settings as files: of the whole reproduction, which an output directory is held to, and of each run.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use process::{Error, Existing, Outcome, Output, Result, ResultExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// What was set; a value that is a number is written as one
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = setting)]
    settings: Vec<(String, Value)>,

    /// Where to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// What one run was made with, as its file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Its name.
    pub run: String,
    /// What the runs of all shares and seeds have in common.
    pub arm: String,
    /// Of safety data in the mixture.
    pub share: f64,
    pub seed: u64,
    pub k: u64,
    pub gamma: f64,
    pub window: String,
    /// Absent where the loss is observed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hinge: Option<f64>,
}

fn setting(text: &str) -> std::result::Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("it is no NAME=VALUE")?;
    let number = serde_json::from_str::<Number>(value).map(Value::Number);
    Ok((name.to_owned(), number.unwrap_or_else(|_| value.into())))
}

pub fn write(flags: &Flags) -> Result<Outcome> {
    let shown = flags.output.display().to_string();
    let settings = Value::Object(flags.settings.iter().cloned().collect::<Map<_, _>>());
    if flags.output.exists() {
        return unchanged(&shown, &fs::read_to_string(&flags.output).at(&shown)?, &settings);
    }
    let mut output = Output::create(&flags.output, Existing::Refuse, &[])?;
    writeln!(output, "{settings:#}").at(&shown)?;
    output.commit()?;
    Ok(Outcome::Complete)
}

fn unchanged(shown: &str, was: &str, is: &Value) -> Result<Outcome> {
    let was: Value = serde_json::from_str(was).map_err(|cause| Error::input(shown, cause))?;
    match process::plan::difference(&was, is) {
        None => Ok(Outcome::Complete),
        Some(difference) => Err(
            Error::conflict(shown, format!("holds a run of other settings: {difference}"))
                .hint("choose another output directory"),
        ),
    }
}

//! The held-out loss of the shipped base model: written beside it when it is made, compared when it is checked.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use process::{Error, Outcome, Result, ResultExt};
use records::{Eval, Reader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kernels round differently.
const LOSS_TOLERANCE: f64 = 1e-4;

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// run.json of its training; with --check, what was printed when it was made
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Compare instead of printing: exit code 1 where the loss is another
    #[arg(long)]
    check: bool,
}

#[derive(Deserialize)]
struct Training {
    tool: String,
    version: String,
    plan: Value,
}

#[derive(Serialize, Deserialize)]
struct Made {
    tool: String,
    version: String,
    held_out_loss: f64,
    plan: Value,
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let loss = held_out_loss()?;
    if flags.check {
        return check(&read(&flags.file)?, loss);
    }
    let Training { tool, version, plan } = read(&flags.file)?;
    process::plan::print(&Made {
        tool,
        version,
        held_out_loss: loss,
        plan,
    })
}

fn check(made: &Made, loss: f64) -> Result<Outcome> {
    let is_same = (made.held_out_loss - loss).abs() < LOSS_TOLERANCE;
    let was = if is_same {
        "as it was made".to_owned()
    } else {
        format!("and was {} when it was made", made.held_out_loss)
    };
    let mut out = process::stdout();
    writeln!(out, "the shipped base model's held-out loss is {loss}, {was}").at("stdout")?;
    out.finish()?;
    Ok(if is_same { Outcome::Complete } else { Outcome::Verdict })
}

fn held_out_loss() -> Result<f64> {
    let mut reader = Reader::new(io::stdin());
    let mut found = None;
    while let Some(eval) = reader.next_record::<Eval>().at("stdin")? {
        found = Some(eval.eval_loss);
    }
    found.ok_or_else(|| Error::input("stdin", "no eval record in it"))
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).at(path.display())?;
    serde_json::from_str(&text).map_err(|cause| Error::input(path.display(), cause))
}

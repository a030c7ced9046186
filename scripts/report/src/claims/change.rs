//! How two ways of training differ, from the verdicts of their runs alone: what claims 7 and 8 test, for any two.

use std::path::PathBuf;

use numerics::rng::Rng;
use process::{Error, Outcome, Result, ResultExt};
use records::{Record, Writer};
use serde::{Deserialize, Serialize};

use super::differences;

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// Verdicts of one run for each seed
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    before: Vec<PathBuf>,

    /// Verdicts of another run of the same seeds, in the same order
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    after: Vec<PathBuf>,

    /// The benchmark whose safe prompts are compared
    #[arg(long, value_name = "NAME", default_value = "xstest")]
    bench: String,
}

/// How false refusals differ between two ways of training.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "change")]
struct Change {
    bench: String,
    run_count: usize,
    estimate: f64,
    low: Option<f64>,
    high: Option<f64>,
    p: Option<f64>,
}

impl Record for Change {
    const TYPE: &'static str = "change";
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let [before, after] = [&flags.before, &flags.after].map(Vec::len);
    if before != after {
        return Err(Error::usage(
            "--after",
            format!("{after} files, beside {before} of --before"),
        ));
    }
    let pairs: Vec<_> = flags.before.iter().cloned().zip(flags.after.iter().cloned()).collect();
    let found = differences::change(&pairs, &flags.bench, &Rng::new(42, "claims"))?;
    let found =
        found.ok_or_else(|| Error::input("--bench", format!("no safe prompts of {:?} in all files", flags.bench)))?;
    let mut writer = Writer::new(process::stdout());
    let change = Change {
        bench: flags.bench.clone(),
        run_count: found.run_count,
        estimate: found.estimate,
        low: found.interval.as_ref().map(|interval| interval.low),
        high: found.interval.as_ref().map(|interval| interval.high),
        p: found.p,
    };
    writer.row(&change).at("stdout")?;
    writer.into_output().at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

//! Settings that a protocol chooses by a rule, from records of runs on data that nothing is reported on.

use std::io::Write;
use std::path::{Path, PathBuf};

use process::{Error, Outcome, Result, ResultExt};
use records::{Eval, RefusalReport};
use serde::Serialize;

use crate::html::round;
use crate::rows;

/// How much more held-out loss, in nats, and how much more nonsense a cure may cost.
pub const LOSS_RISE_MAX: f64 = 0.05;
const NONSENSE_RISE_MAX: f64 = 0.05;

#[derive(Debug, clap::Args, Serialize)]
pub struct RateFlags {
    /// A setting, and the metrics.jsonl of its run
    #[arg(value_name = "SETTING=METRICS", required = true, value_parser = metrics)]
    runs: Vec<(String, PathBuf)>,
}

#[derive(Debug, clap::Args, Serialize)]
pub struct CureFlags {
    /// The run without a cure
    #[arg(long, value_name = "METRICS,REFUSALS", value_parser = measured)]
    plain: (PathBuf, PathBuf),
    /// A setting, and the records of its run: metrics.jsonl, and refusal-eval's report on the prompts to develop on
    #[arg(value_name = "SETTING=METRICS,REFUSALS", required = true, value_parser = candidate)]
    runs: Vec<(String, (PathBuf, PathBuf))>,
    /// What is taken where no setting qualifies
    #[arg(long, value_name = "SETTING")]
    otherwise: String,
}

/// A setting may hold `=` itself: the file is what follows the last one.
fn metrics(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (setting, path) = text.rsplit_once('=').ok_or("it is no SETTING=METRICS")?;
    Ok((setting.to_owned(), path.into()))
}

fn measured(text: &str) -> std::result::Result<(PathBuf, PathBuf), String> {
    let (metrics, refusals) = text.split_once(',').ok_or("it is no METRICS,REFUSALS")?;
    Ok((metrics.into(), refusals.into()))
}

fn candidate(text: &str) -> std::result::Result<(String, (PathBuf, PathBuf)), String> {
    let (setting, paths) = text.rsplit_once('=').ok_or("it is no SETTING=METRICS,REFUSALS")?;
    Ok((setting.to_owned(), measured(paths)?))
}

/// Prints the setting of the least held-out loss.
pub fn rate(flags: &RateFlags) -> Result<Outcome> {
    let mut best: Option<(f64, &str)> = None;
    for (setting, path) in &flags.runs {
        let loss = held_out_loss(path)?;
        eprintln!("{setting}: held-out loss {}", round(loss, 4));
        if best.is_none_or(|(least, _)| loss < least) {
            best = Some((loss, setting));
        }
    }
    print(best.map_or("", |(_, setting)| setting))
}

/// Prints the setting with the fewest false refusals among those that keep held-out loss and nonsense.
pub fn cure(flags: &CureFlags) -> Result<Outcome> {
    let plain = Measures::read(&flags.plain)?;
    eprintln!("without: {}", plain.said());
    let mut best: Option<(f64, &str)> = None;
    for (setting, paths) in &flags.runs {
        let found = Measures::read(paths)?;
        let qualifies =
            found.loss <= plain.loss + LOSS_RISE_MAX && found.nonsense <= plain.nonsense + NONSENSE_RISE_MAX;
        let verdict = if qualifies { "qualifies" } else { "costs too much" };
        eprintln!("{setting}: {}: {verdict}", found.said());
        if qualifies && best.is_none_or(|(least, _)| found.false_refusal < least) {
            best = Some((found.false_refusal, setting));
        }
    }
    print(best.map_or(&flags.otherwise, |(_, setting)| setting))
}

fn print(setting: &str) -> Result<Outcome> {
    let mut out = process::stdout();
    writeln!(out, "{setting}").at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

struct Measures {
    loss: f64,
    false_refusal: f64,
    nonsense: f64,
}

impl Measures {
    /// Over all benchmarks of the report, as the first judge has them: rates of all safe prompts together.
    fn read((metrics, refusals): &(PathBuf, PathBuf)) -> Result<Measures> {
        let reports: Vec<RefusalReport> = rows::read(refusals)?;
        let judge = reports.first().map(|row| row.judge.clone());
        let safe: Vec<&RefusalReport> = reports
            .iter()
            .filter(|row| row.kind == "all" && row.label == "safe" && Some(&row.judge) == judge.as_ref())
            .collect();
        let total = |count: fn(&RefusalReport) -> u64| safe.iter().map(|row| count(row)).sum::<u64>() as f64;
        let count = total(|row| row.count);
        if count == 0.0 {
            return Err(Error::input(refusals.display(), "no safe prompt was judged"));
        }
        Ok(Measures {
            loss: held_out_loss(metrics)?,
            false_refusal: total(|row| row.partial_count + row.refusal_count) / count,
            nonsense: total(|row| row.nonsense_count) / count,
        })
    }

    fn said(&self) -> String {
        let [loss, refusal, nonsense] = [self.loss, self.false_refusal, self.nonsense].map(|value| round(value, 4));
        format!("held-out loss {loss}, false refusals {refusal}, nonsense {nonsense}")
    }
}

/// The last one that the run recorded.
fn held_out_loss(path: &Path) -> Result<f64> {
    let evals: Vec<Eval> = rows::read(path)?;
    let last = evals.last().map(|row| row.eval_loss);
    last.ok_or_else(|| Error::input(path.display(), "no held-out loss in it"))
}

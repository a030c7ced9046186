//! `run`: the whole pipe, from a benchmark to a report, with lm-gen as a process.

use std::path::{Path, PathBuf};

use process::{Common, Existing, Format, Outcome, Output, Result, ResultExt, Sibling};
use records::dataset::{InputFormat, Options};
use records::{Score, Status};

use super::prompts::say_left_out;
use super::report::{Form, read_scores, write_report};
use super::score::score_into;
use crate::bench;
use crate::cli::{Bench, RunArgs, Source};
use crate::plan::{Parts, Pipeline};
use crate::rows::Rows;
use crate::scorer::Scorer;

pub fn run(flags: &RunArgs, common: &Common) -> Result<Outcome> {
    let (plan, parts) = Pipeline::new(flags)?;
    if common.plan {
        return process::plan::print(&plan);
    }
    // Refused before an hour of generation, not after.
    let sandbox = (plan.questions.bench == Bench::Humaneval)
        .then(|| parts.execution.sandbox())
        .transpose()?;
    let base = parts.base.as_deref().map(|path| read_scores(path, false)).transpose()?;
    let made = bench::prompts(&plan.questions)?;
    let mut outcome = say_left_out(&made.left_out, common);
    let place = Place::new(parts.directory.as_deref())?;
    let asked = place.file("prompts.jsonl");
    records::write_rows(&asked, &made.prompts).at(asked.display())?;
    outcome = outcome.and(generate(&parts, &asked, &place.file("completions.jsonl"))?);
    let scorer = Scorer {
        execution: parts.execution,
        sandbox,
        bench: Some(plan.questions.bench),
        keep_going: false,
    };
    outcome = outcome.and(score_into(
        place.replace("scores.jsonl")?,
        &plan.scoring,
        answers(&place.file("completions.jsonl"), plan.questions.bench)?,
        scorer,
        common,
    )?);
    let (scores, _) = read_scores(&place.file("scores.jsonl"), true)?;
    let base: Option<&[Score]> = base.as_ref().map(|(scores, _)| scores.as_slice());
    let status = Status::partial_if(outcome == Outcome::Partial);
    if parts.directory.is_some() {
        let kept = place.replace("report.jsonl")?;
        write_report(kept, &plan.figures, Form::Ours(Format::Jsonl), &scores, base, status)?;
    }
    let stdout = Output::create(Path::new("-"), Existing::from_flags(false, false), &[])?;
    write_report(
        stdout,
        &plan.figures,
        Form::of(&plan.figures, parts.format),
        &scores,
        base,
        status,
    )?;
    Ok(outcome)
}

/// The directory of the files between the steps: a named one, or one that goes away with the run.
struct Place {
    path: PathBuf,
    _scratch: Option<tempfile::TempDir>,
}

impl Place {
    fn new(named: Option<&Path>) -> Result<Place> {
        match named {
            Some(path) => {
                std::fs::create_dir_all(path).at(path.display())?;
                Ok(Place {
                    path: path.to_path_buf(),
                    _scratch: None,
                })
            }
            None => {
                let scratch = tempfile::tempdir().at("temporary directory")?;
                Ok(Place {
                    path: scratch.path().to_path_buf(),
                    _scratch: Some(scratch),
                })
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn replace(&self, name: &str) -> Result<Output> {
        Output::create(&self.file(name), Existing::from_flags(true, false), &[])
    }
}

fn generate(parts: &Parts, asked: &Path, completions: &Path) -> Result<Outcome> {
    Sibling::new("lm-gen")
        .arg("--model")
        .arg(&parts.model)
        .args(&parts.generator)
        .arg("--output")
        .arg(completions)
        .arg(asked)
        .run()
}

fn answers(completions: &Path, bench: Bench) -> Result<Rows> {
    let rows = Options::new()
        .format(InputFormat::Jsonl)
        .accept_partial(true)
        .digest(true)
        .open(completions)
        .at(completions.display())?;
    Ok(Rows::new(rows, completions, Source::Records, Some(bench)))
}

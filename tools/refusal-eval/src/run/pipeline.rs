//! `run`: the whole pipe, from benchmarks to a report, with lm-gen as a process.

use std::path::{Path, PathBuf};

use process::{Common, Existing, Format, Outcome, Output, Progress, Result, ResultExt, Sibling};
use tempfile::TempDir;

use super::judge::{Wanted, judge_into};
use super::prompts::read_prompts;
use super::report::Report;
use crate::answers::{Answers, Reading};
use crate::plan::pipeline::{Generation, Opened, Plan};
use crate::verdicts::Verdicts;

/// Where the files of a whole pipe go.
enum Place {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Place {
    fn new(directory: Option<&Path>) -> Result<Place> {
        match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory).at(directory.display())?;
                Ok(Place::Kept(directory.to_path_buf()))
            }
            None => Ok(Place::Passing(tempfile::tempdir().at("temporary directory")?)),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        match self {
            Place::Kept(directory) => directory.join(name),
            Place::Passing(scratch) => scratch.path().join(name),
        }
    }

    /// Opens the file of a stage, made anew from `input`: answers are dear, what follows from them is cheap.
    fn create(&self, name: &str, input: &Path) -> Result<Output> {
        Output::create(&self.file(name), Existing::Replace, &[input.to_path_buf()])
    }
}

pub fn run(plan: &Plan, opened: Opened, common: &Common) -> Result<Outcome> {
    let prompts = read_prompts(&plan.prompts)?;
    let read = |path| Verdicts::read(path, false);
    let base = opened.base.as_deref().map(read).transpose()?;
    let place = Place::new(opened.directory.as_deref())?;
    let (asked, said, judged) = (
        place.file("prompts.jsonl"),
        place.file("completions.jsonl"),
        place.file("verdicts.jsonl"),
    );
    records::write_rows(&asked, &prompts).at(asked.display())?;
    let call = generator(&plan.generation, &opened.model, common);
    call.arg("--output").arg(&said).arg(&asked).run()?;

    let answers = Answers::open(&said, Reading::default())?;
    let progress = Progress::start(common, "judging", Some(prompts.len() as u64), "completions");
    let target = place.create("verdicts.jsonl", &said)?;
    let wanted = Wanted::all(prompts);
    let outcome = judge_into(target, &opened.panel, &plan.judge, answers, wanted, &progress)?;
    progress.finish();

    let report = Report::new(&plan.report, &mut read(&judged)?, base.as_ref(), &opened.correction)?;
    if matches!(place, Place::Kept(_)) {
        let kept = place.create("report.jsonl", &judged)?;
        report.write(&plan.report, kept, Format::Jsonl)?;
    }
    let target = Output::create(Path::new("-"), Existing::Refuse, &[])?;
    report.deliver(&plan.report, target, opened.format)?;
    Ok(outcome.and(report.outcome(&plan.report)?))
}

/// lm-gen as this run calls it; a partial answer file is refused by its reader.
fn generator(generation: &Generation, model: &Path, common: &Common) -> Sibling {
    let mut call = Sibling::new("lm-gen")
        .arg("--model")
        .arg(model)
        .arg("--max-new-tokens")
        .arg(generation.max_new_tokens.to_string())
        .arg("--resume");
    if let Some(system) = &generation.system {
        call = call.arg("--system").arg(system);
    }
    if generation.raw {
        call = call.arg("--raw");
    }
    if common.quiet {
        call = call.arg("--quiet");
    }
    if let Some(threads) = common.threads {
        call = call.arg("--threads").arg(threads.to_string());
    }
    call.args(&generation.arguments)
}

//! `run`: the whole pipe, from a benchmark to a report, with lm-gen as a process.

use std::path::Path;

use process::{Existing, Format, Outcome, Output, Result, ResultExt, Sibling};
use records::Status;
use records::dataset::{InputFormat, Options};

use super::prompts::say_left_out;
use super::report::{read_scores, write_report};
use super::score::score_into;
use crate::bench;
use crate::cli::{Args, Bench, RunArgs, Source};
use crate::plan::{Figures, Questions, Scoring};
use crate::rows::Rows;
use crate::scorer::{Scorer, sandbox};

pub fn run(args: &Args, flags: &RunArgs) -> Result<Outcome> {
    let questions = Questions::new(&flags.bench, &flags.files)?;
    let figures = Figures::new(&flags.report, flags.vs.is_some())?;
    let scoring = Scoring::of_records(&flags.execution);
    if args.common.plan {
        #[derive(serde::Serialize)]
        struct Plan<'p> {
            questions: &'p Questions,
            scoring: &'p Scoring,
            figures: &'p Figures,
        }
        return process::plan::print(&Plan {
            questions: &questions,
            scoring: &scoring,
            figures: &figures,
        });
    }
    // Refused before an hour of generation, not after.
    let sandbox = (questions.bench == Bench::Humaneval)
        .then(|| sandbox(&flags.execution))
        .transpose()?;
    let base = flags.vs.as_deref().map(|path| read_scores(path, false)).transpose()?;
    let made = bench::prompts(&questions)?;
    let mut outcome = say_left_out(args, &made.left_out);
    let scratch;
    let directory = match &flags.output {
        Some(directory) => {
            std::fs::create_dir_all(directory).at(directory.display())?;
            directory.clone()
        }
        None => {
            scratch = tempfile::tempdir().at("temporary directory")?;
            scratch.path().to_path_buf()
        }
    };
    let file = |name: &str| directory.join(name);
    let (asked, completions) = (file("prompts.jsonl"), file("completions.jsonl"));
    records::write_rows(&asked, &made.prompts).at(asked.display())?;
    let mut words = flags.generator.clone();
    // The customary examples are written for a model that continues text.
    let is_template = |word: &String| {
        ["--raw", "--chat", "--template", "--system"]
            .iter()
            .any(|flag| word.starts_with(flag))
    };
    if !words.iter().any(is_template) {
        words.push("--raw".into());
    }
    // A prompt that does not fit the model's context is an answer that nobody read, not the end of the run.
    words.extend(["--resume".into(), "--keep-going".into()]);
    let generated = Sibling::new("lm-gen")
        .arg("--model")
        .arg(&flags.model)
        .args(words)
        .arg("--output")
        .arg(&completions)
        .arg(&asked)
        .run()?;
    outcome = outcome.and(generated);
    let rows = Options::new()
        .format(InputFormat::Jsonl)
        .accept_partial(true)
        .digest(true)
        .open(&completions)
        .at(completions.display())?;
    let replace = |name: &str| Output::create(&file(name), Existing::from_flags(true, false), &[]);
    let scorer = Scorer {
        execution: &flags.execution,
        sandbox,
        bench: Some(questions.bench),
        keep_going: false,
    };
    outcome = outcome.and(score_into(
        args,
        replace("scores.jsonl")?,
        &scoring,
        Rows::new(rows, &completions, Source::Records, Some(questions.bench)),
        scorer,
    )?);
    let (scores, _) = read_scores(&file("scores.jsonl"), true)?;
    let base = base.as_ref().map(|(scores, _)| scores.as_slice());
    if flags.output.is_some() {
        write_report(
            replace("report.jsonl")?,
            &figures,
            Format::Jsonl,
            &scores,
            base,
            Status::partial_if(outcome == Outcome::Partial),
        )?;
    }
    let stdout = Output::create(Path::new("-"), Existing::from_flags(false, false), &[])?;
    write_report(
        stdout,
        &figures,
        flags.report.format.resolve(None),
        &scores,
        base,
        Status::partial_if(outcome == Outcome::Partial),
    )?;
    Ok(outcome)
}

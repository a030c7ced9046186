//! `score`: completions in, scores out, extractors side by side.

use std::collections::BTreeMap;

use process::{Error, Outcome, Output, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::Options;
use records::{Status, Writer};

use super::begin;
use crate::cli::{Args, Bench, ScoreArgs, Source};
use crate::plan::Scoring;
use crate::rows::{Entry, Rows};
use crate::scorer::{Scored, Scorer, sandbox};

pub fn run(args: &Args, flags: &ScoreArgs) -> Result<Outcome> {
    let plan = Scoring::new(flags);
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if flags.from == Source::LmEval && flags.bench.is_none() {
        return Err(
            Error::usage("--from lm-eval", "the log does not say which benchmark it is").hint("name it with --bench"),
        );
    }
    // Before anything is read: an answer must not be half scored when the refusal comes.
    let early = (flags.bench == Some(Bench::Humaneval))
        .then(|| sandbox(&flags.execution))
        .transpose()?;
    let rows = Options::new()
        .format(flags.input_format)
        .accept_partial(flags.keep_going)
        .digest(true)
        .open(&flags.input)
        .at(process::input_name(&flags.input))?;
    let target = flags.output.open(std::slice::from_ref(&flags.input))?;
    let scorer = Scorer {
        execution: &flags.execution,
        sandbox: early,
        bench: flags.bench,
        keep_going: flags.keep_going,
    };
    let rows = Rows::new(rows, &flags.input, flags.from, flags.bench);
    score_into(args, target, &plan, rows, scorer)
}

/// Entries per batch: enough to keep every thread busy.
const BATCH: usize = 512;

/// Scores every answer, passes on every foreign record, and writes both in the order of the input.
pub fn score_into(args: &Args, target: Output, plan: &Scoring, mut rows: Rows, mut scorer: Scorer) -> Result<Outcome> {
    let mut writer = Writer::new(target);
    writer.begin(&begin(&process::plan::digest(plan)?), &()).at("output")?;
    let progress = Progress::start(&args.common, "scoring", None, "answers");
    let mut outcome = Outcome::Complete;
    loop {
        let batch = read_batch(args, &mut rows, scorer.keep_going, &mut outcome)?;
        if batch.is_empty() {
            break;
        }
        process::signals::check()?;
        scorer.prepare(&batch)?;
        let scored: Vec<Scored> = batch.par_iter().map(|entry| scorer.score_entry(entry)).collect();
        for (entry, scored) in batch.iter().zip(scored) {
            match (entry, scored?) {
                (Entry::Foreign(row), _) => writer.row_text(row).at("output")?,
                (_, Ok(scores)) => {
                    for score in scores {
                        writer.row(&score).at("output")?;
                    }
                }
                (Entry::Answer(index, _), Err(why)) if scorer.keep_going => {
                    process::warn(&args.common, &format!("{}: row index {index}: {why}", rows.subject));
                    outcome = Outcome::Partial;
                }
                (Entry::Answer(index, _), Err(why)) => return Err(rows.refuse(*index, &why)),
            }
        }
        progress.advance(batch.len() as u64);
    }
    progress.finish();
    let outcome = outcome.and(Outcome::partial_if(rows.status().is_partial()));
    let extra: BTreeMap<&str, String> = rows
        .digest()
        .map(|digest| ("input_digest", digest))
        .into_iter()
        .collect();
    writer
        .end(Status::partial_if(outcome == Outcome::Partial), &extra)
        .at("output")?
        .commit()?;
    Ok(outcome)
}

/// The next entries. A row that is no answer is said and left out under `--keep-going`.
fn read_batch(args: &Args, rows: &mut Rows, keep_going: bool, outcome: &mut Outcome) -> Result<Vec<Entry>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(entry) = rows.next_entry()?
    {
        match entry {
            Ok(entry) => batch.push(entry),
            Err(error) if keep_going => {
                process::warn(&args.common, &format!("{}: {error}", rows.subject));
                *outcome = Outcome::Partial;
            }
            Err(error) => return Err(error).at(&rows.subject),
        }
    }
    Ok(batch)
}

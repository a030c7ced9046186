//! `score`: completions in, scores out, extractors side by side.

use std::collections::BTreeMap;

use process::{Common, Outcome, Output, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::Options;
use records::{Status, Writer};

use super::begin;
use crate::cli::{Bench, ScoreArgs};
use crate::plan::Scoring;
use crate::rows::{Entry, Rows};
use crate::scorer::{Scored, Scorer};

pub fn run(flags: &ScoreArgs, common: &Common) -> Result<Outcome> {
    let (plan, answers) = Scoring::new(flags)?;
    if common.plan {
        return process::plan::print(&plan);
    }
    // Before anything is read: an answer must not be half scored when the refusal comes.
    let sandbox = (answers.bench == Some(Bench::Humaneval))
        .then(|| answers.execution.sandbox())
        .transpose()?;
    let rows = Options::new()
        .format(answers.input_format)
        .accept_partial(answers.keep_going)
        .digest(true)
        .open(&answers.path)
        .at(process::input_name(&answers.path))?;
    let target = answers.target.open()?;
    let scorer = Scorer {
        execution: answers.execution,
        sandbox,
        bench: answers.bench,
        keep_going: answers.keep_going,
    };
    let rows = Rows::new(rows, &answers.path, answers.source, answers.bench);
    score_into(target, &plan, rows, scorer, common)
}

/// Entries per batch: enough to keep every thread busy.
const BATCH: usize = 512;

/// Scores every answer, passes on every foreign record, and writes both in the order of the input.
pub fn score_into(
    target: Output,
    plan: &Scoring,
    mut rows: Rows,
    mut scorer: Scorer,
    common: &Common,
) -> Result<Outcome> {
    let mut writer = Writer::new(target);
    writer.begin(&begin(&process::plan::digest(plan)?), &()).at("output")?;
    let progress = Progress::start(common, "scoring", None, "answers");
    let mut outcome = Outcome::Complete;
    loop {
        let batch = read_batch(&mut rows, scorer.keep_going, &mut outcome, common)?;
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
                    process::warn(common, &format!("{}: row index {index}: {why}", rows.subject));
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
fn read_batch(rows: &mut Rows, keep_going: bool, outcome: &mut Outcome, common: &Common) -> Result<Vec<Entry>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(entry) = rows.next_entry()?
    {
        match entry {
            Ok(entry) => batch.push(entry),
            Err(error) if keep_going => {
                process::warn(common, &format!("{}: {error}", rows.subject));
                *outcome = Outcome::Partial;
            }
            Err(error) => return Err(error).at(&rows.subject),
        }
    }
    Ok(batch)
}

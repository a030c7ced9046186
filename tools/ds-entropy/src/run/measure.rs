//! Without a subcommand: rows in, records out, and with `--counts` a file for `merge`.

use process::{Outcome, Output, Progress, Result, VERSION};
use serde_json::json;

use super::{expect_ungrouped, report};
use crate::cli::Args;
use crate::corpus::Corpus;
use crate::counts;
use crate::input::{self, Shared};
use crate::intake::{Entry, Intake};
use crate::plan::{Opened, Plan};

pub fn run(args: &Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(args)?;
    if args.common.plan {
        return print(&plan, &opened);
    }
    if opened.is_resumed
        && let Some(path) = &opened.counts
        && counts::is_finished(path, &plan.corpus, opened.shard)?
    {
        return Ok(Outcome::Complete);
    }
    let budget = opened.reporting.budget;
    let mut counts = open_counts(&plan, &opened)?;
    let mut corpus = Corpus::new(budget.resident_bytes, budget.threads);
    let mut intake = Intake::new(&plan.corpus, &args.common);
    let progress = Progress::start(&args.common, "reading", None, "rows");
    let shared = Shared::new(&opened.reading, opened.shard)?;
    let (shared, row_count) = input::read(shared, budget, |shared, batch| {
        progress.advance(batch.rows.len() as u64);
        intake.take(shared, batch, &mut |entry| match entry {
            Entry::Group(name) => {
                if let Some(counts) = &mut counts {
                    counts.expect_group(name);
                }
                corpus.expect_group(name)
            }
            Entry::Sample(sample) => {
                if let Some(counts) = &mut counts {
                    counts.push(sample)?;
                }
                corpus.push(sample)
            }
        })
    })?;
    progress.finish();
    let strings = shared.tokenizer.into_strings();
    if let Some(counts) = counts {
        counts.finish(&strings, row_count, intake.refused)?.commit()?;
    }
    expect_ungrouped(&mut corpus, &plan.corpus)?;
    report(corpus, &strings, &plan, &opened.reporting, intake.refused.row_count())
}

fn print(plan: &Plan, opened: &Opened) -> Result<Outcome> {
    let inputs: Vec<String> = opened
        .reading
        .inputs
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    process::plan::print(&json!({
        "tool": process::tool_name(), "version": VERSION, "plan": plan, "plan_digest": process::plan::digest(plan)?,
        "inputs": inputs, "shard": format!("{}/{}", opened.shard.index, opened.shard.count),
        "max_memory_bytes": opened.reporting.max_memory_bytes,
    }))
}

fn open_counts(plan: &Plan, opened: &Opened) -> Result<Option<counts::Writer<Output>>> {
    let Some(path) = &opened.counts else {
        return Ok(None);
    };
    let reporting = &opened.reporting;
    let output = Output::create_binary(path, reporting.existing, &reporting.inputs)?;
    let (name, threads) = (path.display().to_string(), reporting.budget.threads);
    counts::Writer::new(output, name, &plan.corpus, opened.shard, threads).map(Some)
}

//! Runs the plan: models one after another, records as they come, then what they say together. Outputs are opened and committed here
//! alone.

use crate::cli::{Args, Distance};
use crate::engine::Engine;
use crate::plan::{Opened, Plan, Products, Task};
use crate::report::{Found, PairRow};
use crate::slices::{self, Slices};
use crate::sweep::Sweeps;
use crate::{merge, ready, summary, table};
use model::Compute;
use process::{Common, Format, Outcome, Output, Progress, Result, ResultExt};
use records::{Begin, Status, Writer};
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn run(args: Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let (found, mut sink) = match &opened.task {
        Task::ListPairs => return list(&plan, &opened),
        Task::Measure => measure(&args.common, &plan, &opened)?,
        Task::Merge(files) => merge(&plan, &opened, files)?,
    };
    found.slices.iter().try_for_each(|row| sink.row(row))?;
    write_slice_fields(&plan, &opened.products, &found, &mut sink)?;

    let by_model = &found.by_model;
    let summaries: Vec<_> = by_model.iter().flat_map(|rows| summary::summaries(rows)).collect();
    let compares = summary::compares(&plan, by_model);
    let by_verdict = summary::by_verdict(opened.verdicts.as_ref(), by_model);
    summaries.iter().try_for_each(|row| sink.row(row))?;
    compares.iter().try_for_each(|row| sink.row(row))?;
    by_verdict.iter().try_for_each(|row| sink.row(row))?;
    sink.end(Status::partial_if(found.is_partial), || {
        let names = plan.models.iter().zip(&opened.models);
        let names = names.map(|(plan, model)| (plan.model_digest.as_str(), model.name.as_str()));
        table::tables(&names.collect(), &summaries, &compares, &by_verdict)
    })?;
    Ok(Outcome::partial_if(found.is_partial))
}

/// Every model over every pair and slice of the shard.
fn measure(common: &Common, plan: &Plan, opened: &Opened) -> Result<(Found, Sink)> {
    let mut sink = Sink::new(plan, opened, Some(&plan.compute))?;
    let total: usize = plan.models.iter().map(|model| model.one_token_passes).sum();
    let progress = Progress::start(common, "sweeping", Some(total as u64), "points");
    let mut found = Found::default();
    for (about, model) in plan.models.iter().zip(&opened.models) {
        let decoder = model.checkpoint.load().at(&model.name)?;
        let of_scores = |distance: &Distance| matches!(distance, Distance::Kl | Distance::Logit);
        let engine = &Engine {
            decoder: &decoder,
            read_layer: about.read_layer,
            read: plan.read,
            steering: &model.steering,
            scores: plan.distances.iter().any(of_scores),
        };
        let mut sweeps = Sweeps {
            plan,
            opened,
            about,
            model,
            engine,
            progress: &progress,
            failed: false,
        };
        let rows: Vec<_> = sweeps
            .all(&ready::all(plan, opened, model)?)?
            .into_iter()
            .flatten()
            .collect();
        if !opened.is_summary {
            rows.iter().try_for_each(|row| sink.row(row))?;
        }
        found.by_model.push(rows);
        found.is_partial |= sweeps.failed;
        let slices = Slices {
            plan,
            about,
            model,
            engine,
        };
        found.slices.extend(slices.all(opened, &progress)?);
    }
    progress.finish();
    Ok((found, sink))
}

/// What the shards found.
fn merge(plan: &Plan, opened: &Opened, files: &[PathBuf]) -> Result<(Found, Sink)> {
    let (found, compute) = merge::read(plan, opened, files)?;
    let mut sink = Sink::new(plan, opened, Some(&compute))?;
    if !opened.is_summary {
        found.by_model.iter().flatten().try_for_each(|row| sink.row(row))?;
    }
    Ok((found, sink))
}

/// --list-pairs: what would be measured, in a form that --pairs reads.
fn list(plan: &Plan, opened: &Opened) -> Result<Outcome> {
    let mut sink = Sink::new(plan, opened, None)?;
    let model = &opened.models[0];
    for ready in ready::all(plan, opened, model)? {
        let Ok([tokens_a, tokens_b]) = ready.tokens else {
            continue;
        };
        let text = |tokens: &[u32]| model.speller.text(tokens).at(&model.name);
        sink.row(&PairRow {
            id: &ready.pair.id,
            id_a: &ready.pair.id_a,
            id_b: &ready.pair.id_b,
            group: &ready.pair.group,
            a: text(&tokens_a)?,
            b: text(&tokens_b)?,
            tokens_a,
            tokens_b,
        })?;
    }
    sink.end(Status::Complete, String::new)?;
    Ok(Outcome::Complete)
}

/// The container of --slice-fields, and the records of its tensors.
fn write_slice_fields(plan: &Plan, products: &Products, found: &Found, sink: &mut Sink) -> Result<()> {
    let Some(path) = &products.slice_fields else {
        return Ok(());
    };
    let output = Output::create_binary(path, products.existing, &products.inputs)?;
    let (output, tensors) = slices::write(output, path, plan, &found.slices)?;
    let is_file = output.is_file();
    output.commit()?;
    match is_file {
        true => tensors.iter().try_for_each(|row| sink.row(row)),
        false => Ok(()),
    }
}

/// Where results go: records as they come, or a table at the end.
enum Sink {
    Records(Writer<Output>, String),
    Table(Output),
}

impl Sink {
    /// `compute` is what measured; nothing did where pairs are listed, and these are always records.
    fn new(plan: &Plan, opened: &Opened, compute: Option<&Compute>) -> Result<Self> {
        let products = &opened.products;
        let path = products.records.as_deref().unwrap_or(Path::new("-"));
        let mut output = Output::create(path, products.existing, &products.inputs)?;
        if products.slice_fields.is_some() {
            // With a file to show for it, the work is done even if nobody reads the records.
            output = output.tolerant();
        }
        if products.format == Format::Table && compute.is_some() {
            return Ok(Self::Table(output));
        }
        let name = output.name().to_owned();
        let mut writer = Writer::new(output);
        let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(plan.digest()?);
        let shard = format!("{}/{}", opened.shard.index, opened.shard.count);
        let keys = compute.map(|compute| json!({ "shard": shard, "compute": compute }));
        writer.begin(&begin, &keys).at(&name)?;
        Ok(Self::Records(writer, name))
    }

    fn row(&mut self, row: &impl Serialize) -> Result<()> {
        match self {
            Self::Records(writer, name) => writer.row(row).at(name),
            Self::Table(_) => Ok(()),
        }
    }

    fn end(self, status: Status, tables: impl FnOnce() -> String) -> Result<()> {
        match self {
            Self::Records(writer, name) => writer.end(status, &()).at(name)?.commit(),
            Self::Table(mut output) => {
                output.write_all(tables().as_bytes()).at(output.name())?;
                output.commit()
            }
        }
    }
}

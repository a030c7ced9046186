//! Runs the plan: models one after another, records as they come, then what they say together. The only file with effects.

use crate::cli::{Args, Distance, Format};
use crate::engine::Engine;
use crate::pairs::Pair;
use crate::plan::{Opened, Plan};
use crate::report::{PairRow, Region, Slice};
use crate::sweep::Sweeps;
use crate::{merge, slices, summary, table};
use model::Decoder;
use process::{Error, Progress, Result, ResultExt, Stdout};
use records::{Begin, Status, Writer};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// Where records go: stdout, or nowhere but memory where a table is asked for.
struct Sink {
    writer: Option<Writer<Stdout>>,
}

impl Sink {
    fn row(&mut self, row: &impl Serialize) -> Result<()> {
        match &mut self.writer {
            Some(writer) => writer.row(row).at("stdout"),
            None => Ok(()),
        }
    }
}

/// A pair as one model spells it.
pub struct Ready<'p> {
    pub pair: &'p Pair,
    pub tokens: std::result::Result<[Vec<u32>; 2], String>,
}

pub fn run(args: Args) -> Result<process::Outcome> {
    let plan = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if args.list_pairs {
        return list(&plan);
    }
    let mut stdout = process::stdout();
    if args.output.output.is_some() {
        stdout = stdout.tolerant();
    }
    let mut sink = Sink { writer: None };
    let digest = plan.digest()?;
    // With -o - stdout is the container's alone.
    let container_only = args.output.output.as_deref() == Some(Path::new("-"));
    if args.format == Format::Jsonl && !container_only {
        let mut writer = Writer::new(stdout);
        let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(&digest);
        writer
            .begin(
                &begin,
                &json!({"shard": format!("{}/{}", plan.shard.index, plan.shard.count)}),
            )
            .at("stdout")?;
        sink.writer = Some(writer);
    }
    let total: usize = plan.models.iter().map(|model| model.one_token_passes).sum();
    let progress = Progress::start(&args.common, "sweeping", Some(total as u64), "points");

    let mut by_model: Vec<Vec<Region>> = Vec::new();
    let mut fields: Vec<Slice> = Vec::new();
    let mut failed = false;
    if args.merge.is_empty() {
        compute(
            &plan,
            &progress,
            &mut by_model,
            &mut fields,
            &mut failed,
            |row| match args.summary {
                true => Ok(()),
                false => sink.row(row),
            },
        )?;
    } else {
        let merged = merge::read(&plan, &args.merge)?;
        (by_model, fields, failed) = (merged.by_model, merged.slices, merged.partial);
        if !args.summary {
            by_model.iter().flatten().try_for_each(|row| sink.row(row))?;
        }
    }
    progress.finish();

    let summaries: Vec<_> = by_model.iter().flat_map(|rows| summary::summaries(rows)).collect();
    let compares = summary::compares(&plan, &by_model);
    let by_verdict: Vec<_> = by_model
        .iter()
        .flat_map(|rows| summary::by_verdict(&plan, rows))
        .collect();
    for slice in &fields {
        sink.row(slice)?;
    }
    let written = match &args.output.output {
        Some(path) => slices::container(&args, &plan, &digest, path, &fields)?,
        None => Vec::new(),
    };
    for row in &written {
        sink.row(row)?;
    }
    summaries.iter().try_for_each(|row| sink.row(row))?;
    compares.iter().try_for_each(|row| sink.row(row))?;
    by_verdict.iter().try_for_each(|row| sink.row(row))?;
    let status = if failed { Status::Partial } else { Status::Complete };
    match sink.writer {
        Some(writer) => writer.end(status, &()).at("stdout")?.finish()?,
        None if container_only => {}
        None => table::print(&plan, &summaries, &compares, &by_verdict)?,
    }
    Ok(if failed {
        process::Outcome::Partial
    } else {
        process::Outcome::Complete
    })
}

/// Every model over every pair and slice of the shard.
fn compute(
    plan: &Plan,
    progress: &Progress,
    by_model: &mut Vec<Vec<Region>>,
    fields: &mut Vec<Slice>,
    failed: &mut bool,
    mut each: impl FnMut(&Region) -> Result<()>,
) -> Result<()> {
    for opened in &plan.models {
        let decoder = Decoder::from_weights(opened.config.clone(), &opened.weights).at(&opened.name)?;
        let engine = Engine {
            decoder: &decoder,
            read_layer: opened.read_layer,
            read: plan.read,
            scores: plan
                .distances
                .iter()
                .any(|d| matches!(d, Distance::Kl | Distance::Logit)),
        };
        let ready = ready(plan, opened)?;
        let mut sweeps = Sweeps {
            plan,
            opened,
            engine: &engine,
            progress,
            failed: false,
        };
        let mut regions = Vec::new();
        for row in sweeps.all(&ready)?.into_iter().flatten() {
            each(&row)?;
            regions.push(row);
        }
        *failed |= sweeps.failed;
        by_model.push(regions);
        fields.extend(slices::run(plan, opened, &engine, progress)?);
    }
    Ok(())
}

/// --list-pairs: what would be measured, in a form that --pairs reads.
fn list(plan: &Plan) -> Result<process::Outcome> {
    let opened = &plan.models[0];
    let mut writer = Writer::new(process::stdout());
    writer
        .begin(
            &Begin::new(process::tool_name(), process::VERSION).plan_digest(plan.digest()?),
            &(),
        )
        .at("stdout")?;
    for ready in ready(plan, opened)? {
        let Ok([tokens_a, tokens_b]) = ready.tokens else {
            continue;
        };
        let text = |tokens: &[u32]| opened.speller.text(tokens).at(&opened.name);
        let row = PairRow {
            id: &ready.pair.id,
            id_a: &ready.pair.id_a,
            id_b: &ready.pair.id_b,
            group: &ready.pair.group,
            a: text(&tokens_a)?,
            b: text(&tokens_b)?,
            tokens_a,
            tokens_b,
        };
        writer.row(&row).at("stdout")?;
    }
    writer.end(Status::Complete, &()).at("stdout")?.finish()?;
    Ok(process::Outcome::Complete)
}

/// The shard's pairs as tokens; one that cannot run stops the tool with its id, or is kept as skipped under --keep-going.
fn ready<'p>(plan: &'p Plan, opened: &Opened) -> Result<Vec<Ready<'p>>> {
    let mut all = Vec::new();
    for pair in &plan.pairs {
        let digest = records::text_digest(&pair.content());
        if records::bucket(&digest).is_some_and(|bucket| !plan.shard.owns(bucket)) {
            continue;
        }
        let tokens = spell(opened, pair);
        if let Err(cause) = &tokens
            && !plan.keep_going
        {
            return Err(
                Error::input(format!("pair {}", pair.id), cause).hint("--keep-going skips and counts such pairs")
            );
        }
        all.push(Ready { pair, tokens });
    }
    Ok(all)
}

pub fn spell(opened: &Opened, pair: &Pair) -> std::result::Result<[Vec<u32>; 2], String> {
    let side = |prompt, name| -> std::result::Result<Vec<u32>, String> {
        let tokens: Vec<u32> = opened
            .speller
            .tokens(prompt)
            .map_err(|cause| format!("prompt {name}: {cause}"))?;
        let limit = opened.config.position_count;
        match tokens.len() {
            0 | 1 => Err(format!(
                "prompt {name} has {} token, and an interpolation needs a prefix and a last one",
                tokens.len()
            )),
            count if count > limit => Err(format!(
                "prompt {name} has {count} tokens, the model's limit is {limit}"
            )),
            _ => match tokens.iter().find(|&&id| id as usize >= opened.config.vocab_size) {
                Some(id) => Err(format!(
                    "prompt {name} holds token id {id}, the vocabulary has {}",
                    opened.config.vocab_size
                )),
                None => Ok(tokens),
            },
        }
    };
    let (a, b) = (side(&pair.a, "a")?, side(&pair.b, "b")?);
    if pair.differs_last && (a.len() != b.len() || a[..a.len() - 1] != b[..b.len() - 1]) {
        return Err(format!(
            "the prompts have {} and {} tokens and differ in more than the last one",
            a.len(),
            b.len()
        ));
    }
    Ok([a, b])
}

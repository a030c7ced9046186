//! `learn`: anchors, space and heads, soft prompt; each stage in its records as it is done.

use std::path::Path;

use model::{Decoder, Tensor};
use process::{Common, Error, Existing, Manifest, Outcome, Output, Progress, Result, ResultExt, signals};
use records::{Begin, Status, Writer};
use serde::Serialize;

use crate::heads::{self, Fold, Head};
use crate::objective::Objective;
use crate::plan::Learn;
use crate::product::State;
use crate::prompts::Kind;
use crate::report::{AnchorRow, HeadRow, ShiftRow, SpaceRow, StepRow};
use crate::settings::LearnPlan;
use crate::space::{COMPONENT_COUNT, Place, Space};
use crate::states;
use crate::trainer::{self, Query, Trainer};

/// Records on stdout, each shown as soon as it is written.
struct Records(Writer<Output>);

impl Records {
    fn open(plan: &LearnPlan) -> Result<Records> {
        let stdout = Output::create(Path::new("-"), Existing::Refuse, &[])?.tolerant();
        let mut writer = Writer::new(stdout);
        let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(process::plan::digest(plan)?);
        writer.begin(&begin, &()).at("stdout")?;
        Ok(Records(writer))
    }

    fn row(&mut self, row: &impl Serialize) -> Result<()> {
        self.0.row(row).at("stdout")?;
        self.0.flush().at("stdout")
    }

    fn end(self) -> Result<()> {
        self.0.end(Status::Complete, &()).at("stdout")?.commit()
    }
}

pub fn run(plan: &LearnPlan, mut learn: Learn, common: &Common) -> Result<Outcome> {
    if learn.target.is_finished(plan)? {
        return Ok(Outcome::Complete);
    }
    let manifest = Manifest::start();
    let mut records = Records::open(plan)?;
    for anchor in &learn.anchors {
        records.row(&AnchorRow::of(anchor))?;
    }
    let soft_prompt = written(&learn).at("--model")?;
    learn.checkpoint.take_soft_prompt(soft_prompt.clone());
    let decoder = learn.checkpoint.load().at("--model")?;
    let objective = objective(plan, &learn, &decoder, common, &mut records)?;
    let queries = queries(plan, &learn, &decoder)?;
    let rates = (plan.lr, plan.weight_decay);
    let trainer = Trainer::new(&decoder, soft_prompt, objective, rates, plan.batch_tokens as usize);
    let mut trainer = trainer.at("--model")?;
    train(plan, &learn, &queries, &mut trainer, common, &mut records)?;
    shifts(plan, &queries, &trainer, &mut records)?;
    learn.checkpoint.check_unchanged().at("--model")?;
    let [rows, ..] = trainer.state().at("--model")?;
    learn.target.deliver(plan, &rows)?;
    manifest.write(&learn.target.path, plan)?;
    records.end()?;
    Ok(Outcome::Complete)
}

/// The embeddings of the written message: what learning starts from.
fn written(learn: &Learn) -> model::Result<Tensor> {
    let config = learn.checkpoint.config();
    let [table, _] = config.table_names();
    let table = learn
        .checkpoint
        .weight(&table, &[config.vocab_size, config.hidden_size])?;
    let ids = Tensor::new(learn.speech.slot.token_ids(), table.device())?;
    Ok(table.index_select(&ids, 0)?)
}

/// States of all anchors, and what is found in them.
fn objective(
    plan: &LearnPlan,
    learn: &Learn,
    decoder: &Decoder,
    common: &Common,
    records: &mut Records,
) -> Result<Objective> {
    let anchors = &learn.anchors;
    let ids = anchors
        .iter()
        .map(|anchor| learn.speech.plain(&anchor.prompt, decoder.config()));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let prompts: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let progress = Progress::start(common, "reading anchors", Some(prompts.len() as u64), "prompts");
    let states = states::of_all(decoder, &prompts, plan.batch_tokens as usize, |count| {
        progress.advance(count as u64);
        signals::check()
    })?;
    progress.finish();
    let space = Space::of(&states).ok_or_else(|| {
        let cause = format!(
            "the states of {} prompts lie in fewer than {COMPONENT_COUNT} dimensions",
            states.len()
        );
        Error::input("ANSWERS", cause).hint("more questions are needed")
    })?;
    records.row(&SpaceRow {
        row_count: states.len(),
        evr: space.shares.clone(),
    })?;
    let places: Vec<Place> = states.iter().map(|state| space.place(state)).collect();
    let mut head = |name: &'static str, targets: Vec<f64>| -> Result<Head> {
        let folds = heads::folds(&places, &targets, plan.head_lr, (plan.seed, name)).at(name)?;
        folds
            .iter()
            .enumerate()
            .try_for_each(|(fold, found): (usize, &Fold)| records.row(&HeadRow::of(name, fold, found)))?;
        Ok(Head::mean(&folds))
    };
    Ok(Objective {
        refusal: head("refusal", anchors.iter().map(|anchor| anchor.target).collect())?,
        harmfulness: head(
            "harmfulness",
            anchors
                .iter()
                .map(|anchor| f64::from(anchor.kind == Kind::Harmless))
                .collect(),
        )?,
        space,
        weights: plan.weights,
    })
}

/// Every question with the soft prompt, and its state while that is still the written message.
fn queries(plan: &LearnPlan, learn: &Learn, decoder: &Decoder) -> Result<Vec<Query>> {
    let asked = learn.speech.asked(&learn.anchors, decoder.config())?;
    let prompts: Vec<&[u32]> = asked.iter().map(|asked| asked.ids.as_slice()).collect();
    let starts = states::of_all(decoder, &prompts, plan.batch_tokens as usize, |_| signals::check())?;
    let pairs = asked.iter().zip(starts);
    Ok(pairs
        .map(|(asked, start)| Query {
            ids: asked.ids.clone(),
            kind: asked.kind,
            start,
        })
        .collect())
}

fn train(
    plan: &LearnPlan,
    learn: &Learn,
    queries: &[Query],
    trainer: &mut Trainer,
    common: &Common,
    records: &mut Records,
) -> Result<()> {
    let mut steps: Vec<StepRow> = Vec::new();
    if let Some(state) = learn.target.state(plan)? {
        trainer.restore(state.steps.len() as u64, &state.tensors).at("state")?;
        steps = state.steps;
    }
    steps.iter().try_for_each(|step| records.row(step))?;
    let progress = Progress::start(common, "learning", Some(plan.step_count), "steps");
    progress.resume(steps.len() as u64);
    let batches = trainer::batches(
        queries.len(),
        plan.batch_size as usize,
        u64::from(plan.epochs),
        plan.seed,
    );
    for batch in batches.iter().skip(steps.len()) {
        signals::check()?;
        let batch: Vec<&Query> = batch.iter().map(|&at| &queries[at]).collect();
        let taken = trainer.step(&batch).at("--model")?;
        let step = StepRow::of(steps.len() as u64 + 1, &taken, &trainer.objective);
        if !step.loss_total.is_finite() || !step.grad_norm.is_finite() {
            return Err(
                Error::input("--model", format!("step {} is not finite", step.step)).hint("a lower --lr may help")
            );
        }
        records.row(&step)?;
        steps.push(step);
        let tensors = trainer.state().at("--model")?;
        let state = State { steps, tensors };
        learn.target.keep(plan, &state)?;
        steps = state.steps;
        progress.advance(1);
    }
    progress.finish();
    Ok(())
}

/// What the heads say of the questions now.
fn shifts(plan: &LearnPlan, queries: &[Query], trainer: &Trainer, records: &mut Records) -> Result<()> {
    let prompts: Vec<&[u32]> = queries.iter().map(|query| query.ids.as_slice()).collect();
    let states = states::of_all(trainer.decoder, &prompts, plan.batch_tokens as usize, |_| {
        signals::check()
    })?;
    for kind in Kind::ALL {
        let of_kind = queries.iter().zip(&states).filter(|(query, _)| query.kind == kind);
        let pairs: Vec<(&[f64], &[f64])> = of_kind
            .map(|(query, now)| (query.start.as_slice(), now.as_slice()))
            .collect();
        records.row(&ShiftRow::of(kind, &pairs, &trainer.objective))?;
    }
    Ok(())
}

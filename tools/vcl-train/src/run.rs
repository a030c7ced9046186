//! The run: load, train step by step, save, publish.

use std::fs;
use std::path::Path;
use std::time::Instant;

use model::Decoder;
use model::ops::Gradients;
use model::optimiser::{AdamW, AdamWOptions};
use process::{Common, Error, Existing, Manifest, Outcome, Progress, Result, ResultExt, signals};
use records::{Eval, Metric};
use serde_json::Value;

use crate::auxiliary::{Auxiliaries, Doubt};
use crate::checkpoint::{Run, Target};
use crate::cli::Args;
use crate::init::Initial;
use crate::learner::Learner;
use crate::micro::Micro;
use crate::objective::Supervised;
use crate::order;
use crate::plan::{Opened, Plan};
use crate::publish;
use crate::report::{Log, Probe};
use crate::trainer::{Found, Phases, Stop, Trainer};

/// Steps of a probe: the first warms the caches, the others are timed.
const PROBE_STEPS: u64 = 3;

pub fn run(args: Args) -> Result<Outcome> {
    let manifest = Manifest::start();
    let (plan, mut opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let auxiliaries = std::mem::take(&mut opened.auxiliaries);
    let Some(target) = &opened.target else {
        return probe(&plan, &opened, trainer(&plan, &opened, auxiliaries)?);
    };
    if target.existing == Existing::Resume && target.path.is_dir() {
        return finished(&plan, target);
    }
    let directory = Run::open(target, &plan.value()?)?;
    let job = Job {
        common: &args.common,
        plan: &plan,
        opened: &opened,
        trainer: trainer(&plan, &opened, auxiliaries)?,
        directory,
    };
    job.train(manifest)
}

/// `--resume` on a finished output: a no-op that repeats its records, if it is of the same plan.
fn finished(plan: &Plan, target: &Target) -> Result<Outcome> {
    let path = &target.path;
    let manifest_path = path.join("run.json");
    let text =
        fs::read(&manifest_path).map_err(|_| Error::conflict(path.display(), "exists, and is no run of this tool"))?;
    let mut manifest: Value = serde_json::from_slice(&text).at(manifest_path.display())?;
    target.check_plan(path, manifest["plan"].take(), &plan.value()?)?;
    let mut out = process::stdout().tolerant();
    let rows = fs::read(path.join("metrics.jsonl")).at(path.display())?;
    std::io::Write::write_all(&mut out, &rows).at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

/// Loads the model, or draws its weights.
fn trainer(plan: &Plan, opened: &Opened, auxiliaries: Auxiliaries) -> Result<Trainer> {
    let origin = &opened.origin;
    let subject = origin.path.display();
    let config = origin.config.clone();
    let decoder = match &origin.checkpoint {
        Some(checkpoint) => checkpoint.load().at(&subject)?,
        None => {
            let text: Value = serde_json::from_slice(&origin.config_text).at(&subject)?;
            let deviation = text.get("initializer_range").and_then(Value::as_f64).unwrap_or(0.02);
            let initial = Initial::new(&config, deviation, plan.seed, opened.dtype, &opened.device);
            let decoder = Decoder::new(config, &initial).at(&subject)?;
            decoder.with_precision(plan.compute.precision)
        }
    };
    let learner = match &plan.settings.lora {
        None => Learner::full(decoder),
        Some(lora) => Learner::lora(decoder, lora, plan.seed)?,
    };
    let options = AdamWOptions {
        beta1: plan.settings.beta1,
        beta2: plan.settings.beta2,
        eps: plan.settings.eps,
        weight_decay: plan.settings.weight_decay,
    };
    Ok(Trainer {
        optimiser: AdamW::new(&learner.tensors(), options).at(&subject)?,
        learner,
        objective: Box::new(Supervised),
        auxiliaries,
        gradients: Gradients::default(),
        recompute: plan.recompute,
        clip: plan.settings.clip,
    })
}

fn step(trainer: &mut Trainer, plan: &Plan, opened: &Opened, step: u64) -> Result<Found> {
    let samples = &opened.samples;
    let batch = order::batch(plan.seed, samples.len(), plan.settings.batch_size, step);
    let micros: Vec<Micro> = batch
        .chunks(plan.settings.micro_batch)
        .map(|chunk| Micro::pack(chunk.iter().map(|&index| &samples[index]).collect()))
        .collect();
    trainer
        .step(&micros, step, plan.schedule.rate(step))
        .map_err(|stop| refusal(stop, step, &micros))
}

fn refusal(stop: Stop, step: u64, micros: &[Micro]) -> Error {
    let subject = format!("step {step}");
    match stop {
        Stop::NotFinite(cause) => {
            let samples = micros.iter().flat_map(|micro| &micro.samples);
            let ids: Vec<&str> = samples.map(|sample| sample.id.as_str()).collect();
            Error::input(subject, format!("{cause}; the batch is {}", ids.join(", ")))
                .hint("the last checkpoint is kept; lower --lr or look at these rows")
        }
        Stop::Doubt(Doubt { cause, .. }) => Error::input(subject, cause).hint("raise --batch-size, or rows=all"),
        Stop::Failed(error) => Error::from_source(subject, &error),
    }
}

fn probe(plan: &Plan, opened: &Opened, mut trainer: Trainer) -> Result<Outcome> {
    let (mut seconds, mut tokens, mut phases) = (0.0, 0, Phases::default());
    for index in 1..=PROBE_STEPS {
        let start = Instant::now();
        let found = step(&mut trainer, plan, opened, index)?;
        if index > 1 {
            seconds += start.elapsed().as_secs_f64();
            tokens += found.token_count;
            phases.add(found.phases);
        }
    }
    let timed = (PROBE_STEPS - 1) as f64;
    let rate = tokens as f64 / seconds;
    let answer = Probe {
        probed_step_count: PROBE_STEPS,
        seconds_per_step: seconds / timed,
        tokens_per_second: rate,
        steps: plan.work.steps,
        estimated_seconds: plan.work.token_count as f64 / rate,
        phase_seconds: phases,
        peak_rss_bytes: process::Usage::now().peak_rss_bytes,
        planned_memory_bytes: plan.work.memory_bytes,
    };
    answer.print()?;
    Ok(Outcome::Complete)
}

/// A training run, from its first step or its last checkpoint to the finished directory.
struct Job<'a> {
    common: &'a Common,
    plan: &'a Plan,
    opened: &'a Opened,
    trainer: Trainer,
    directory: Run,
}

impl Job<'_> {
    fn train(mut self, mut manifest: Manifest) -> Result<Outcome> {
        let _grace = signals::Grace::begin();
        let start = self.directory.restore(&mut self.trainer, |path, cause| {
            let cause = format!("{}: {cause}; the checkpoint before it is used", path.display());
            process::warn(self.common, &cause);
        })?;
        let (done, kept) = start.map_or((0, None), |found| (found.step, Some(found.metrics)));
        let digest = process::plan::digest(self.plan)?;
        let mut log = Log::begin(&self.directory.metrics_path(), &digest, kept.as_deref())?;
        let clock = Instant::now();
        let (tokens, phases) = self.steps(done, &mut log)?;
        let seconds = clock.elapsed().as_secs_f64();
        let stdout = log.end()?;
        self.write_model(&self.directory.partial, self.plan.merge)?;
        manifest.note("tokens_per_second", tokens as f64 / seconds)?;
        manifest.note("train_seconds", seconds)?;
        manifest.note("phase_seconds", phases)?;
        manifest.note("resumed_from_step", done)?;
        manifest.note("model", &self.opened.origin.path)?;
        manifest.note("data", &self.opened.data)?;
        manifest.note("output", &self.directory.target.path)?;
        manifest.write_as(&self.directory.partial.join("run.json"), self.plan)?;
        self.directory.publish()?;
        stdout.finish()?;
        Ok(Outcome::Complete)
    }

    /// The steps after `done`: how many tokens they saw, and where the time went.
    fn steps(&mut self, done: u64, log: &mut Log) -> Result<(u64, Phases)> {
        let plan = self.plan;
        let steps = plan.work.steps;
        let progress = Progress::start(self.common, "train", Some(steps), "steps");
        progress.resume(done);
        let (mut tokens, mut phases, mut has_doubted) = (0, Phases::default(), false);
        for index in done + 1..=steps {
            let found = step(&mut self.trainer, plan, self.opened, index)?;
            tokens += found.token_count;
            phases.add(found.phases);
            if let Some(doubt) = found.aux.doubt.as_ref().filter(|_| !has_doubted) {
                has_doubted = true;
                process::warn(self.common, &format!("step {index}: {}", doubt.cause));
            }
            log.metric(&metric(index, plan.schedule.rate(index), found))?;
            let is_due = |every: u64| index % every == 0 || index == steps;
            if plan.eval_every.map_or(index == steps, is_due) && !self.opened.held_out.is_empty() {
                log.eval(&self.evaluate(index)?)?;
            }
            let stopped = signals::check();
            if is_due(plan.checkpoint_every) || stopped.is_err() {
                let files = |path: &Path| self.write_model(path, false);
                self.directory.save(index, &self.trainer, log.bytes(), files)?;
            }
            progress.advance(1);
            stopped?;
        }
        progress.finish();
        Ok((tokens, phases))
    }

    /// The mean loss over the held-out samples, in micro-batches.
    fn evaluate(&self, step: u64) -> Result<Eval> {
        let (mut sum, mut count) = (0.0, 0);
        for chunk in self.opened.held_out.chunks(self.plan.settings.micro_batch) {
            let (of_chunk, units) = self.trainer.evaluate(chunk).at("evaluation")?;
            sum += of_chunk;
            count += units;
            signals::check()?;
        }
        Ok(Eval {
            step,
            eval_loss: sum / count as f64,
            token_count: count,
            rest: Default::default(),
        })
    }

    /// The model's or the adapter's own files.
    fn write_model(&self, path: &Path, merge: bool) -> Result<()> {
        let (origin, learner, dtype) = (&self.opened.origin, &self.trainer.learner, self.opened.store_dtype);
        match &self.plan.settings.lora {
            Some(lora) if !merge => publish::adapter(path, learner, origin, lora, dtype),
            _ => publish::model(path, learner, origin, dtype),
        }
    }
}

fn metric(step: u64, lr: f64, found: Found) -> Metric {
    Metric {
        step,
        loss: found.loss,
        loss_total: found.loss + found.aux.loss,
        loss_token_count: found.loss_token_count,
        token_count: found.token_count,
        lr,
        grad_norm: found.grad_norm,
        aux: found.aux.reports,
        attn_logit_max: found.attn_logit_max,
        lse_mean: Some(found.lse_mean),
        norm_mean: found.aux.norm_mean,
        rest: Default::default(),
    }
}

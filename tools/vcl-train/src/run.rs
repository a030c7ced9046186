//! The run: load, train step by step, save, publish.

use std::fs;
use std::path::Path;
use std::time::Instant;

use model::Decoder;
use model::ops::Gradients;
use model::optimiser::{AdamW, AdamWOptions};
use process::{Common, Error, Existing, Manifest, Outcome, Progress, Result, ResultExt, signals};
use ranks::World;
use records::{Eval, Metric};
use serde_json::Value;

use crate::auxiliary::{Auxiliaries, Doubt};
use crate::checkpoint::{self, Run, Target};
use crate::cli::Args;
use crate::init::Initial;
use crate::learner::Learner;
use crate::meeting;
use crate::micro::Micro;
use crate::objective::Supervised;
use crate::order;
use crate::plan::{Opened, Plan};
use crate::publish;
use crate::report::{Log, Probe};
use crate::sample::Sample;
use crate::share::Share;
use crate::trainer::{Found, Phases, Stop, Trainer};

/// Steps of a probe: the first warms the caches, the others are timed.
const PROBE_STEPS: u64 = 3;

pub fn run(args: Args) -> Result<Outcome> {
    let manifest = Manifest::start();
    if args.common.plan {
        let (plan, _) = Plan::new(&args)?;
        return process::plan::print(&plan);
    }
    let world = meeting::world(&args)?;
    let (plan, mut opened) = Plan::new(&args)?;
    meeting::agree(&world, &plan, args.probe)?;
    let auxiliaries = std::mem::take(&mut opened.auxiliaries);
    let Some(target) = &opened.target else {
        return probe(&plan, &opened, trainer(&plan, &opened, auxiliaries, world)?);
    };
    let is_finished = target.existing == Existing::Resume && target.path.is_dir();
    if world.share(vec![u8::from(is_finished)]).at("ranks")? == [1] {
        return if world.is_first() {
            finished(&plan, target)
        } else {
            Ok(Outcome::Complete)
        };
    }
    let directory = match world.is_first() {
        true => Some(Run::open(target, &plan.value()?)?),
        false => None,
    };
    let job = Job {
        common: &args.common,
        plan: &plan,
        trainer: trainer(&plan, &opened, auxiliaries, world)?,
        opened: &opened,
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
fn trainer(plan: &Plan, opened: &Opened, auxiliaries: Auxiliaries, world: World) -> Result<Trainer> {
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
    let tensors = learner.tensors();
    let share = Share::new(world, &tensors);
    let optimiser = AdamW::of_ranges(&tensors, share.ranges(), options).at(&subject)?;
    Ok(Trainer {
        optimiser: optimiser.sparing(|index| learner.trainable[index].name.ends_with("bias")),
        share,
        learner,
        objective: Box::new(Supervised),
        auxiliaries,
        gradients: Gradients::default(),
        spare: Vec::new(),
        recompute: plan.recompute,
        clip: plan.settings.clip,
    })
}

fn step(trainer: &mut Trainer, plan: &Plan, opened: &Opened, step: u64) -> Result<Found> {
    let samples = &opened.samples;
    let batch = order::batch(plan.seed, samples.len(), plan.settings.batch_size, step);
    let pack = |chunk: &[usize]| Micro::pack(chunk.iter().map(|&index| &samples[index]).collect());
    let slots: Vec<Vec<Micro>> = order::slots(&batch, plan.settings.slots)
        .map(|slot| slot.chunks(plan.settings.micro_batch).map(pack).collect())
        .collect();
    trainer
        .step(&slots, step, plan.schedule.rate(step))
        .map_err(|stop| refusal(stop, step, &slots))
}

fn refusal(stop: Stop, step: u64, slots: &[Vec<Micro>]) -> Error {
    let subject = format!("step {step}");
    match stop {
        Stop::NotFinite(cause) => {
            let samples = slots.iter().flatten().flat_map(|micro| &micro.samples);
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
        planned_memory_bytes: plan.work.memory_bytes_on(trainer.share.world.count()),
    };
    if trainer.share.world.is_first() {
        answer.print()?;
    }
    trainer.share.world.end().at("ranks")?;
    Ok(Outcome::Complete)
}

/// What the steps took.
struct Spent {
    seconds: f64,
    tokens: u64,
    phases: Phases,
    resumed_from_step: u64,
}

/// A training run, from its first step or its last checkpoint to the finished directory.
struct Job<'a> {
    common: &'a Common,
    plan: &'a Plan,
    opened: &'a Opened,
    trainer: Trainer,
    /// The first rank's; the others write nothing.
    directory: Option<Run>,
}

impl Job<'_> {
    fn train(mut self, manifest: Manifest) -> Result<Outcome> {
        let _grace = signals::Grace::begin();
        let (done, kept) = self.restore()?;
        let digest = process::plan::digest(self.plan)?;
        let mut log = match &self.directory {
            Some(directory) => Some(Log::begin(&directory.metrics_path(), &digest, kept.as_deref())?),
            None => None,
        };
        let clock = Instant::now();
        let (tokens, phases) = self.steps(done, log.as_mut())?;
        let spent = Spent {
            seconds: clock.elapsed().as_secs_f64(),
            tokens,
            phases,
            resumed_from_step: done,
        };
        let world = match (self.directory.take(), log) {
            (Some(directory), Some(log)) => self.finish(directory, log, manifest, spent)?,
            _ => self.trainer.share.world,
        };
        world.end().at("ranks")?;
        Ok(Outcome::Complete)
    }

    /// Goes on from the last checkpoint: how many steps were done, and their records.
    fn restore(&mut self) -> Result<(u64, Option<Vec<u8>>)> {
        let mut found = None;
        if let Some(directory) = &self.directory {
            found = directory.newest(|path, cause| {
                let cause = format!("{}: {cause}; the checkpoint before it is used", path.display());
                process::warn(self.common, &cause);
            })?;
        }
        let done = checkpoint::restore(&mut self.trainer, found.as_mut())?;
        Ok((done, found.map(|found| found.metrics)))
    }

    /// Writes what the first rank leaves: the model, the records, the manifest.
    fn finish(self, directory: Run, log: Log, mut manifest: Manifest, spent: Spent) -> Result<World> {
        let stdout = log.end()?;
        self.write_model(&directory.partial, self.plan.merge)?;
        manifest.note("tokens_per_second", spent.tokens as f64 / spent.seconds)?;
        manifest.note("train_seconds", spent.seconds)?;
        manifest.note("phase_seconds", spent.phases)?;
        manifest.note("resumed_from_step", spent.resumed_from_step)?;
        manifest.note("model", &self.opened.origin.path)?;
        manifest.note("data", &self.opened.data)?;
        manifest.note("output", &directory.target.path)?;
        let world = self.trainer.share.world;
        if !world.is_alone() {
            manifest.note("ranks", world.count())?;
            manifest.note("sent_bytes", world.traffic().sent_bytes)?;
        }
        manifest.write_as(&directory.partial.join("run.json"), self.plan)?;
        directory.publish()?;
        stdout.finish()?;
        Ok(world)
    }

    /// The steps after `done`: how many tokens they saw, and where the time went.
    fn steps(&mut self, done: u64, mut log: Option<&mut Log>) -> Result<(u64, Phases)> {
        let plan = self.plan;
        let steps = plan.work.steps;
        let progress = log
            .is_some()
            .then(|| Progress::start(self.common, "train", Some(steps), "steps"));
        if let Some(progress) = &progress {
            progress.resume(done);
        }
        let (mut tokens, mut phases, mut has_doubted) = (0, Phases::default(), false);
        for index in done + 1..=steps {
            let found = step(&mut self.trainer, plan, self.opened, index)?;
            tokens += found.token_count;
            phases.add(found.phases);
            let doubt = found.aux.doubt.as_ref().filter(|_| log.is_some() && !has_doubted);
            if let Some(doubt) = doubt {
                has_doubted = true;
                process::warn(self.common, &format!("step {index}: {}", doubt.cause));
            }
            let is_due = |every: u64| index % every == 0 || index == steps;
            let is_eval = plan.eval_every.map_or(index == steps, is_due) && !self.opened.held_out.is_empty();
            if let Some(log) = &mut log {
                log.metric(&metric(index, plan.schedule.rate(index), found))?;
            }
            if is_eval {
                let eval = self.evaluate(index)?;
                log.as_mut().map_or(Ok(()), |log| log.eval(&eval))?;
            }
            let signal = meeting::check(&self.trainer.share.world)?;
            if is_due(plan.checkpoint_every) || signal.is_some() {
                self.save(index, log.as_ref().map_or(&[], |log| log.bytes()))?;
            }
            if let Some(progress) = &progress {
                progress.advance(1);
            }
            signal.map_or(Ok(()), |signal| Err(Error::interrupted(signal)))?;
        }
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok((tokens, phases))
    }

    /// A checkpoint, which all ranks give their share to and none leaves before it is written.
    fn save(&self, step: u64, records: &[u8]) -> Result<()> {
        match &self.directory {
            Some(directory) => {
                let files = |path: &Path| self.write_model(path, false);
                directory.save(step, &self.trainer, records, files)?;
            }
            None => checkpoint::help_to_save(&self.trainer)?,
        }
        self.trainer.share.world.wait().at("ranks")
    }

    /// The mean loss over the held-out samples, in micro-batches, of which every rank takes its part.
    fn evaluate(&self, step: u64) -> Result<Eval> {
        let world = &self.trainer.share.world;
        let chunks: Vec<&[Sample]> = self.opened.held_out.chunks(self.plan.settings.micro_batch).collect();
        let mut own = Vec::new();
        for chunk in &chunks[world.own(chunks.len())] {
            let (sum, count) = self.trainer.evaluate(chunk).at("evaluation")?;
            own.extend([sum.to_le_bytes(), count.to_le_bytes()].concat());
            // with others, all stop together once it is over
            if world.is_alone() {
                signals::check()?;
            }
        }
        let (mut sum, mut count) = (0.0, 0);
        for bytes in world.gather(&own).at("ranks")? {
            for [of_chunk, units] in bytes.as_chunks().0.as_chunks::<2>().0 {
                sum += f64::from_le_bytes(*of_chunk);
                count += u64::from_le_bytes(*units);
            }
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

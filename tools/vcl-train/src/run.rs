//! The run: load, train step by step, save, publish. The only file with effects.

use std::fs;
use std::path::Path;
use std::time::Instant;

use model::Decoder;
use model::ops::Gradients;
use model::optimiser::{AdamW, AdamWOptions};
use process::{Error, Manifest, Outcome, Progress, Result, ResultExt, signals};
use records::{Eval, Metric};

use crate::aux::{Auxiliary, Doubt};
use crate::checkpoint::Run;
use crate::cli::Args;
use crate::data::{self, Sample};
use crate::init::Initial;
use crate::learner::Learner;
use crate::plan::{self, Inputs, Plan};
use crate::publish::{self, Origin};
use crate::report::{Log, Probe};
use crate::step::{self, Found, Micro, Phases, Stop};

/// Steps of a probe: the first warms the caches, the others are timed.
const PROBE_STEPS: u64 = 3;

pub fn run(args: Args) -> Result<Outcome> {
    let manifest = Manifest::start();
    if args.resume
        && let Some(target) = args.output.as_deref().filter(|target| target.is_dir())
    {
        return finished(&args, target);
    }
    let (plan, inputs) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let trainer = |inputs: &Inputs| Trainer::new(&args, &plan, inputs);
    if args.probe {
        return probe(trainer(&inputs)?, &plan, &inputs);
    }
    let target = plan::output(&args)?;
    let directory = Run::open(&target, &plan.value()?, args.keep_checkpoints, args.resume, args.force)?;
    let mut trainer = trainer(&inputs)?;
    train(&args, &plan, &inputs, &mut trainer, directory, &target, manifest)
}

/// `--resume` on a finished output: a no-op that repeats its records, if it is of the same plan.
fn finished(args: &Args, target: &Path) -> Result<Outcome> {
    let manifest_path = target.join("run.json");
    let text = fs::read(&manifest_path)
        .map_err(|_| Error::conflict(target.display(), "exists, and is no run of this tool"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&text).at(manifest_path.display())?;
    let (plan, _) = Plan::new(args)?;
    if let Some(difference) = process::plan::difference(&manifest["plan"], &plan.value()?) {
        return Err(Error::conflict(
            target.display(),
            format!("belongs to another plan: {difference}"),
        ));
    }
    let mut out = process::stdout().tolerant();
    let rows = fs::read(target.join("metrics.jsonl")).at(target.display())?;
    std::io::Write::write_all(&mut out, &rows).at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

struct Trainer {
    learner: Learner,
    optimiser: AdamW,
    aux: Box<dyn Auxiliary>,
    gradients: Gradients,
}

impl Trainer {
    fn new(args: &Args, plan: &Plan, inputs: &Inputs) -> Result<Self> {
        let subject = args
            .model
            .as_deref()
            .or(args.init.as_deref())
            .unwrap_or(Path::new("model"))
            .display()
            .to_string();
        let config = inputs.config.clone();
        let layer_count = config.layer_count;
        let decoder = match &inputs.weights {
            Some(weights) => Decoder::from_weights(config, weights).at(&subject)?,
            None => {
                let text: serde_json::Value = serde_json::from_slice(&inputs.config_text).at(&subject)?;
                let deviation = text
                    .get("initializer_range")
                    .and_then(serde_json::Value::as_f64)
                    .unwrap_or(0.02);
                let initial = Initial::new(&config, deviation, args.seed, inputs.dtype, &inputs.device);
                Decoder::new(config, &initial, inputs.dtype, &inputs.device).at(&subject)?
            }
        };
        let learner = match &plan.settings.lora {
            None => Learner::full(decoder),
            Some(lora) => Learner::lora(decoder, lora, args.seed)?,
        };
        let options = AdamWOptions {
            beta1: plan.settings.beta1,
            beta2: plan.settings.beta2,
            eps: plan.settings.eps,
            weight_decay: plan.settings.weight_decay,
        };
        let optimiser = AdamW::new(&learner.tensors(), options).at(&subject)?;
        let aux = args
            .aux
            .build(layer_count)
            .map_err(|cause| Error::usage("--aux", cause))?;
        Ok(Self {
            learner,
            optimiser,
            aux,
            gradients: Gradients::default(),
        })
    }

    fn step(&mut self, plan: &Plan, samples: &[Sample], step: u64) -> Result<Found> {
        let batch = data::batch(plan.seed, samples.len(), plan.settings.batch_size, step);
        let rows = self.aux.rows();
        let micros: Vec<Micro> = batch
            .chunks(plan.settings.micro_batch)
            .map(|chunk| Micro::pack(&chunk.iter().map(|&index| &samples[index]).collect::<Vec<_>>(), rows))
            .collect();
        step::advance(
            &self.learner,
            &mut self.optimiser,
            self.aux.as_mut(),
            &micros,
            step,
            plan.schedule.rate(step),
            plan.settings.clip,
            plan.recompute,
            &mut self.gradients,
        )
        .map_err(|stop| refusal(stop, step, &batch, samples))
    }

    /// The mean loss over held-out samples, in micro-batches.
    fn evaluate(&self, samples: &[Sample], micro_batch: usize) -> Result<(f64, u64)> {
        let (mut nats, mut count) = (0.0, 0);
        for chunk in samples.chunks(micro_batch) {
            let (of_chunk, tokens) =
                step::evaluate(&self.learner, &chunk.iter().collect::<Vec<_>>()).at("evaluation")?;
            nats += of_chunk;
            count += tokens;
            signals::check()?;
        }
        Ok((nats / count as f64, count))
    }
}

fn refusal(stop: Stop, step: u64, batch: &[usize], samples: &[Sample]) -> Error {
    let subject = format!("step {step}");
    match stop {
        Stop::NotFinite(cause) => {
            let ids: Vec<&str> = batch.iter().map(|&index| samples[index].id.as_str()).collect();
            Error::input(subject, format!("{cause}; the batch is {}", ids.join(", ")))
                .hint("the last checkpoint is kept; lower --lr or look at these rows")
        }
        Stop::Doubt(Doubt { cause, .. }) => Error::input(subject, cause).hint("raise --batch-size, or rows=all"),
        Stop::Failed(error) => Error::from_source(subject, &error),
    }
}

fn probe(mut trainer: Trainer, plan: &Plan, inputs: &Inputs) -> Result<Outcome> {
    let (mut seconds, mut tokens, mut phases) = (0.0, 0, Phases::default());
    for step in 1..=PROBE_STEPS {
        let start = Instant::now();
        let found = trainer.step(plan, &inputs.samples, step)?;
        if step > 1 {
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

fn train(
    args: &Args,
    plan: &Plan,
    inputs: &Inputs,
    trainer: &mut Trainer,
    directory: Run,
    target: &Path,
    mut manifest: Manifest,
) -> Result<Outcome> {
    let _grace = signals::Grace::begin();
    let start = directory.restore(
        &trainer.learner,
        &mut trainer.optimiser,
        trainer.aux.as_mut(),
        |path, cause| {
            process::warn(
                &args.common,
                &format!("{}: {cause}; the checkpoint before it is used", path.display()),
            );
        },
    )?;
    let (done, kept) = start.map_or((0, None), |found| (found.step, Some(found.metrics)));
    let mut log = Log::begin(
        &directory.metrics_path(),
        &process::plan::digest(plan)?,
        kept.as_deref(),
    )?;
    let progress = Progress::start(&args.common, "train", Some(plan.work.steps), "steps");
    progress.advance(done);
    let clock = Instant::now();
    let (mut tokens, mut phases, mut has_doubted) = (0, Phases::default(), false);
    for step in done + 1..=plan.work.steps {
        let found = trainer.step(plan, &inputs.samples, step)?;
        tokens += found.token_count;
        phases.add(found.phases);
        if let Some(doubt) = found.doubt.as_ref().filter(|_| !has_doubted) {
            has_doubted = true;
            process::warn(&args.common, &format!("step {step}: {}", doubt.cause));
        }
        log.metric(&metric(trainer, plan, step, &found))?;
        let last = step == plan.work.steps;
        let due = plan.eval_every.is_some_and(|every| step % every == 0) || last;
        if due && !inputs.held_out.is_empty() {
            let (eval_loss, token_count) = trainer.evaluate(&inputs.held_out, plan.settings.micro_batch)?;
            log.eval(&Eval {
                step,
                eval_loss,
                token_count,
                rest: Default::default(),
            })?;
        }
        let stopped = signals::check();
        if step % plan.checkpoint_every == 0 || last || stopped.is_err() {
            save(args, plan, inputs, trainer, &directory, &log, step)?;
        }
        progress.advance(1);
        stopped?;
    }
    progress.finish();
    let stdout = log.end()?;
    let seconds = clock.elapsed().as_secs_f64();
    write_model(args, plan, inputs, &trainer.learner, &directory.partial, args.merge)?;
    manifest.note("tokens_per_second", tokens as f64 / seconds)?;
    manifest.note("train_seconds", seconds)?;
    manifest.note("phase_seconds", phases)?;
    manifest.note("resumed_from_step", done)?;
    manifest.note("model", args.model.as_deref().or(args.init.as_deref()))?;
    manifest.note("data", &args.data)?;
    manifest.note("output", target)?;
    manifest.write_as(&directory.partial.join("run.json"), plan)?;
    directory.publish()?;
    stdout.finish()?;
    Ok(Outcome::Complete)
}

fn metric(trainer: &Trainer, plan: &Plan, step: u64, found: &Found) -> Metric {
    let mut metric = Metric {
        step,
        loss: found.loss,
        loss_total: found.loss + found.aux_loss,
        loss_token_count: found.loss_token_count,
        token_count: found.token_count,
        lr: plan.schedule.rate(step),
        grad_norm: found.grad_norm,
        k: 0,
        gamma: 0.0,
        sign: String::new(),
        c_k: 0.0,
        c_k_layers: Default::default(),
        vcl_row_count: 0,
        attn_logit_max: found.attn_logit_max,
        lse_mean: Some(found.lse_mean),
        norm_mean: None,
        rest: Default::default(),
    };
    trainer.aux.report(&mut metric);
    metric
}

fn save(
    args: &Args,
    plan: &Plan,
    inputs: &Inputs,
    trainer: &Trainer,
    directory: &Run,
    log: &Log,
    step: u64,
) -> Result<()> {
    directory.save(
        step,
        &trainer.learner,
        &trainer.optimiser,
        trainer.aux.as_ref(),
        log.bytes(),
        |path| write_model(args, plan, inputs, &trainer.learner, path, false),
    )
}

/// The model's or the adapter's own files.
fn write_model(args: &Args, plan: &Plan, inputs: &Inputs, learner: &Learner, path: &Path, merge: bool) -> Result<()> {
    let origin = Origin {
        config: &inputs.config_text,
        companions: &inputs.companions,
    };
    match &plan.settings.lora {
        Some(lora) if !merge => {
            let base = args
                .model
                .as_deref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default();
            publish::adapter(path, learner, &origin, lora, &base, inputs.store_dtype)
        }
        _ => publish::model(path, learner, &origin, inputs.store_dtype),
    }
}

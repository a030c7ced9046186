//! What a run of dro-train will do: questions and how many of them; or answers, model and settings.

use std::path::PathBuf;

use model::{Checkpoint, Options, Slot, Template};
use process::{Error, Existing, Result, ResultExt, Target as RecordTarget};
use records::Prompt;
use serde::Serialize;

use crate::anchors::{self, Anchor};
use crate::cli::{Args, Command, LearnArgs, PromptsArgs};
use crate::objective::Weights;
use crate::product::Target;
use crate::prompts::{self, Kind};
use crate::queries::Speech;
use crate::settings::{LearnPlan, PromptsPlan};

#[derive(Serialize)]
#[serde(untagged)]
pub enum Plan {
    Prompts(PromptsPlan),
    Learn(Box<LearnPlan>),
}

/// What a plan is carried out with.
pub enum Opened {
    Prompts { prompts: Vec<Prompt>, target: RecordTarget },
    Learn(Box<Learn>),
}

pub struct Learn {
    /// Not loaded yet.
    pub checkpoint: Checkpoint,
    pub speech: Speech,
    pub anchors: Vec<Anchor>,
    pub target: Target,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Plan, Opened)> {
        match &args.command {
            Command::Prompts(flags) => of_prompts(flags),
            Command::Learn(flags) => of_learning(flags),
        }
    }
}

fn of_prompts(flags: &PromptsArgs) -> Result<(Plan, Opened)> {
    let inputs = [flags.harmful.clone(), flags.harmless.clone()];
    let mut questions = prompts::drawn(&flags.harmful, Kind::Harmful, flags)?;
    questions.extend(prompts::drawn(&flags.harmless, Kind::Harmless, flags)?);
    let prompts = prompts::conditioned(&questions);
    let plan = PromptsPlan {
        command: "prompts",
        input_digests: digests(&inputs)?,
        field: flags.field.clone(),
        per_kind: flags.per_kind,
        seed: flags.seed,
        prompt_count: prompts.len(),
        version: process::VERSION,
    };
    let target = flags.output.target(&inputs);
    Ok((Plan::Prompts(plan), Opened::Prompts { prompts, target }))
}

fn of_learning(flags: &LearnArgs) -> Result<(Plan, Opened)> {
    let inputs = vec![flags.answers.clone(), flags.verdicts.clone()];
    let target = target(flags, &inputs)?;
    let checkpoint = open(flags)?;
    let speech = speech(flags, &checkpoint)?;
    let anchors = anchors::read(flags)?;
    let query_count = speech.asked(&anchors, checkpoint.config())?.len();
    let steps = query_count.div_ceil(flags.batch_size as usize) as u64 * u64::from(flags.epochs);
    let plan = LearnPlan {
        command: "learn",
        model_digest: checkpoint.digest().to_owned(),
        tokenizer_digest: format!("blake3:{}", speech.tokenizer.digest().to_hex()),
        template_digest: format!("blake3:{}", speech.template.digest().to_hex()),
        input_digests: digests(&inputs)?,
        judge: flags.judge.clone(),
        system: flags.system.clone(),
        row_count: speech.slot.token_ids().len(),
        anchor_count: anchors.len(),
        query_count,
        longest: flags.longest,
        head_lr: flags.head_lr,
        lr: flags.lr,
        weight_decay: flags.weight_decay,
        weights: Weights {
            refusal: flags.refusal_weight,
            harmfulness: flags.harmfulness_weight,
            distance: flags.distance_weight,
        },
        epochs: flags.epochs,
        batch_size: flags.batch_size,
        step_count: steps,
        seed: flags.seed,
        batch_tokens: flags.batch_tokens,
        compute: checkpoint.compute(),
        version: process::VERSION,
    };
    let learn = Learn {
        checkpoint,
        speech,
        anchors,
        target,
    };
    Ok((Plan::Learn(Box::new(plan)), Opened::Learn(Box::new(learn))))
}

fn target(flags: &LearnArgs, inputs: &[PathBuf]) -> Result<Target> {
    let path = flags.output.output.clone().filter(|path| path.as_os_str() != "-");
    let Some(path) = path else {
        return Err(Error::usage("--output", "is missing").hint("-o FILE: records go to stdout"));
    };
    Ok(Target {
        path,
        existing: Existing::from_flags(flags.output.force, flags.resume),
        inputs: inputs.to_vec(),
        mixed: flags.mixed,
    })
}

fn open(flags: &LearnArgs) -> Result<Checkpoint> {
    let device = model::device::open(&flags.device).map_err(|cause| Error::environment("--device", cause))?;
    let dtype = model::device::dtype(&flags.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
    let precision = model::device::precision(&flags.precision.precision, &device, dtype);
    let options = Options {
        precision: precision.map_err(|cause| Error::usage("--precision", cause))?,
        device,
        dtype,
        follow_links: flags.follow_links,
        digest: flags.model_digest.clone(),
        adapters: flags.adapter.adapters.clone(),
        other_base: flags.adapter.other_base,
        ..Options::default()
    };
    Checkpoint::open(&flags.model, &options).at(flags.model.display())
}

fn speech(flags: &LearnArgs, checkpoint: &Checkpoint) -> Result<Speech> {
    let subject = flags.model.display();
    let template = match &flags.template {
        Some(path) => Template::read(path, flags.follow_links).at(path.display())?,
        None => checkpoint.template().at(&subject)?.ok_or_else(|| {
            Error::input(&subject, "has no chat template, and so no system slot").hint("--template FILE brings one")
        })?,
    };
    let tokenizer = checkpoint.tokenizer().at(&subject)?;
    let slot = Slot::find(&flags.system, &template, &tokenizer, checkpoint.config().vocab_size).at("--system")?;
    Ok(Speech {
        tokenizer,
        template,
        slot,
    })
}

fn digests(paths: &[PathBuf]) -> Result<Vec<String>> {
    let digest = |path: &PathBuf| Ok(process::sha256(&std::fs::read(path).at(path.display())?));
    paths.iter().map(digest).collect()
}

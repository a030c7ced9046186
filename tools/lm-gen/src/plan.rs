//! What a run of lm-gen will do: model, input, decoding, interventions. What cannot change a byte (batch, threads, shard, paths)
//! is not in it. Reads the input and the model's small files; maps the weights to take their digest.

use std::path::{Path, PathBuf};

use model::{Checkpoint, Compute, Options, Slot, Steering, Template, Tokenizer, Weights};
use process::{AdapterFlags, Error, Existing, MixedCompute, Result, ResultExt, Shard};
use serde::Serialize;
use steering::Intervention;

use crate::cli::Args;
use crate::contrast::{ADA_SYSTEM, Contrast, Rule};
use crate::prompts::{self, Input};

#[derive(Serialize)]
pub struct Plan {
    pub model_digest: String,
    pub tokenizer_digest: String,
    pub input_digest: String,
    pub prompt_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// BLAKE3 of the template; absent for raw prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub max_new_tokens: u64,
    pub stop: Vec<String>,
    pub end_token_ids: Vec<u32>,
    pub scores: bool,
    pub per_token: bool,
    pub keep_going: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    pub interventions: Vec<Intervention>,
    /// SHA-256 of the file of a learned system message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Contrasted>,
    pub compute: Compute,
    pub version: &'static str,
}

#[derive(Serialize, Clone)]
pub struct Sampling {
    pub temperature: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    pub seed: u64,
    pub attempts: u32,
}

/// The second context.
#[derive(Serialize, Clone)]
pub struct Contrasted {
    #[serde(flatten)]
    pub rule: Rule,
    /// Of the other model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
}

/// What a plan is carried out with.
pub struct Opened {
    /// Not loaded yet.
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
    pub template: Option<Template>,
    pub steering: Steering,
    /// Where the soft prompt stands.
    pub slot: Option<Slot>,
    /// The other model of a contrast, not loaded yet.
    pub amateur: Option<Checkpoint>,
    pub input: Input,
    pub shard: Shard,
    /// Sequences in flight, where the arguments say it.
    pub capacity: Option<usize>,
    pub target: Target,
}

/// Where the output goes.
pub struct Target {
    pub path: PathBuf,
    pub existing: Existing,
    /// Never written onto.
    pub inputs: Vec<PathBuf>,
    pub mixed: MixedCompute,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Plan, Opened)> {
        let [input_path] = args.inputs.as_slice() else {
            return Err(Error::usage("PROMPTS", "one input is read; several are for --merge"));
        };
        let target = target(args)?;
        let shard = args.shard.resolve()?;
        let model_path = args
            .model
            .as_deref()
            .ok_or_else(|| Error::usage("--model", "is needed"))?;
        let subject = model_path.display();
        let mut checkpoint = open(args, model_path, &args.adapter, first_options(args)?)?;
        let tokenizer = checkpoint.tokenizer().at(&subject)?;
        let template = template(args, model_path, &checkpoint)?;
        let (interventions, steering) = args.steering.open(&checkpoint)?;
        check_contrast(args)?;
        let reader = steering::Reader {
            tokenizer: Some(&tokenizer),
            template: template.as_ref(),
        };
        let soft_prompt = args.steering.open_soft_prompt(&mut checkpoint, &reader)?;
        let (soft_prompt, slot) = soft_prompt.map(|soft| (soft.digest, soft.slot)).unzip();
        let amateur = amateur(args, &checkpoint, &tokenizer)?;
        let input = prompts::read(input_path, args, shard)?;
        let plan = Plan {
            model_digest: checkpoint.digest().to_owned(),
            tokenizer_digest: format!("blake3:{}", tokenizer.digest().to_hex()),
            input_digest: input.digest.clone(),
            prompt_count: input.count,
            limit: args.limit,
            template_digest: template
                .as_ref()
                .map(|template| format!("blake3:{}", template.digest().to_hex())),
            system: system(args)?,
            max_new_tokens: args.max_new_tokens,
            stop: args.stop.clone(),
            end_token_ids: checkpoint.end_tokens(&tokenizer).at(&subject)?,
            scores: args.score,
            per_token: args.per_token,
            keep_going: args.keep_going,
            sampling: args.temperature.map(|temperature| Sampling {
                temperature,
                top_p: args.top_p,
                top_k: args.top_k,
                seed: args.seed,
                attempts: args.attempts,
            }),
            interventions,
            soft_prompt,
            contrast: args.contrast.as_ref().map(|contrast| Contrasted {
                rule: contrast.rule,
                model_digest: amateur.as_ref().map(|amateur| amateur.digest().to_owned()),
            }),
            compute: checkpoint.compute(),
            version: process::VERSION,
        };
        let opened = Opened {
            steering,
            slot,
            amateur,
            checkpoint,
            tokenizer,
            template,
            input,
            shard,
            capacity: args.batch.map(|batch| batch as usize),
            target,
        };
        Ok((plan, opened))
    }

    pub fn attempts(&self) -> u64 {
        self.sampling
            .as_ref()
            .map_or(1, |sampling| u64::from(sampling.attempts))
    }
}

fn target(args: &Args) -> Result<Target> {
    let path = args.output.output.clone().unwrap_or_else(|| PathBuf::from("-"));
    if args.resume && path == Path::new("-") {
        return Err(Error::usage("--resume", "needs -o FILE"));
    }
    Ok(Target {
        path,
        existing: Existing::from_flags(args.output.force, args.resume),
        inputs: args.inputs.iter().chain(args.steering.inputs()).cloned().collect(),
        mixed: args.mixed,
    })
}

/// A soft prompt is the system message of this model: a contrast that needs another one, or another model, is refused.
fn check_contrast(args: &Args) -> Result<()> {
    let rule = args.contrast.as_ref().map(|contrast| contrast.rule);
    match (rule, &args.steering.soft_prompt) {
        (Some(Rule::Ada { .. }), Some(_)) => Err(Error::usage(
            "--contrast",
            "ada brings a system message, and --soft-prompt stands in its place",
        )),
        (Some(Rule::Amateur { .. }), Some(_)) => Err(Error::usage(
            "--contrast",
            "the other model knows nothing of --soft-prompt",
        )),
        _ => Ok(()),
    }
}

/// The system message; the adaptive contrast brings one.
fn system(args: &Args) -> Result<Option<String>> {
    let rule = args.contrast.as_ref().map(|contrast| contrast.rule);
    match (rule, &args.system) {
        (Some(rule), _) if args.raw && rule.drops_system() => Err(Error::usage(
            "--contrast",
            "contexts differ in their system message, and --raw has none",
        )),
        (Some(Rule::Ada { .. }), None) => Ok(Some(ADA_SYSTEM.to_owned())),
        (Some(Rule::Itself { .. }), None) if args.steering.soft_prompt.is_none() => Err(Error::usage(
            "--contrast",
            "self needs --system TEXT, or --soft-prompt FILE",
        )),
        (_, system) => Ok(system.clone()),
    }
}

/// The other model of a contrast: tokens must mean the same to both.
fn amateur(args: &Args, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Option<Checkpoint>> {
    let Some(path) = args.contrast.as_ref().and_then(|contrast| contrast.amateur.as_deref()) else {
        return Ok(None);
    };
    let amateur = open(args, path, &AdapterFlags::default(), Options::default())?;
    let theirs = amateur.tokenizer().at(path.display())?;
    let (ours, size) = (checkpoint.config().vocab_size, amateur.config().vocab_size);
    if theirs.digest() != tokenizer.digest() || ours != size {
        let cause = format!(
            "has another tokenizer (or vocabulary: {size}, not {ours}) than --model, so its tokens mean others"
        );
        return Err(Error::input(path.display(), cause));
    }
    Ok(Some(amateur))
}

/// How the model itself is opened, beyond what holds for the other one of a contrast too.
fn first_options(args: &Args) -> Result<Options> {
    let weights = args.weights.into();
    if weights == Weights::AsStored {
        let refuse = |cause: &str| Err(Error::usage("--weights as-stored", cause));
        if !args.adapter.adapters.is_empty() {
            return refuse("an --adapter is added to numbers, which blocks are not");
        }
        if args.device != "cpu" {
            return refuse("only the CPU multiplies them here");
        }
        if args.dtype == "f16" {
            return refuse("they are multiplied in f32 or bf16");
        }
    }
    Ok(Options {
        weights,
        digest: args.model_digest.clone(),
        ..Options::default()
    })
}

fn open(args: &Args, path: &Path, laid_over: &AdapterFlags, options: Options) -> Result<Checkpoint> {
    let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
    let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
    let precision = model::device::precision(&args.precision.precision, &device, dtype);
    let options = Options {
        precision: precision.map_err(|cause| Error::usage("--precision", cause))?,
        device,
        dtype,
        follow_links: args.follow_links,
        adapters: laid_over.adapters.clone(),
        other_base: laid_over.other_base,
        ..options
    };
    Checkpoint::open(path, &options).at(path.display())
}

fn template(args: &Args, path: &Path, checkpoint: &Checkpoint) -> Result<Option<Template>> {
    if args.raw {
        return Ok(None);
    }
    if let Some(named) = &args.template {
        return Template::read(named, args.follow_links).at(named.display()).map(Some);
    }
    let found = checkpoint.template().at(path.display())?;
    let drops_system = |contrast: &Contrast| contrast.rule.drops_system();
    let needs = [
        ("--chat", args.chat),
        ("--system", args.system.is_some()),
        ("--soft-prompt", args.steering.soft_prompt.is_some()),
        ("--contrast", args.contrast.as_ref().is_some_and(drops_system)),
    ];
    match needs.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) if found.is_none() => Err(Error::input(
            path.display(),
            format!("{flag} needs a chat template, and this is no chat model: it has none"),
        )
        .hint("--template FILE brings one")),
        _ => Ok(found),
    }
}

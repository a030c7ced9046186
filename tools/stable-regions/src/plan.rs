//! From arguments to a resolved plan: models opened but not loaded, pairs read or built, layers checked, conflicts refused.

use crate::cli::{Args, Bos, Distance, PathKind, Read};
use crate::pairs::{self, Pair, Prompt, Speller};
use crate::triples::{self, Triple};
use crate::verdicts::Verdicts;
use model::{Checkpoint, Compute, Options, Steering};
use process::{Error, Existing, Format, Layers, MixedCompute, Result, ResultExt, Shard};
use serde::Serialize;
use std::path::{Path, PathBuf};
use steering::Intervention;

/// Everything that decides the numbers: what `--plan` prints and `plan_digest` covers.
#[derive(Serialize)]
pub struct Plan {
    pub models: Vec<ModelPlan>,
    pub input_digests: Vec<String>,
    pub pair_count: usize,
    pub slice_count: usize,
    pub chat: bool,
    pub bos: Bos,
    pub read: Read,
    pub path_kind: PathKind,
    pub distances: Vec<Distance>,
    pub steps: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bisect: Option<f64>,
    pub min_distance: f64,
    pub gate_flips: bool,
    pub baseline: bool,
    pub slice_steps: usize,
    pub seed: u64,
    pub keep_going: bool,
    pub compute: Compute,
    pub batch_rows: usize,
}

#[derive(Serialize)]
pub struct ModelPlan {
    pub model_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_digest: Option<String>,
    pub layers: Vec<usize>,
    pub read_layer: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interventions: Vec<Intervention>,
    /// SHA-256 of the file of a learned system message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_prompt: Option<String>,
    /// Passes of one token, prefixes aside.
    pub one_token_passes: usize,
}

/// What the plan was made from, what is asked for, and where it goes.
pub struct Opened {
    /// In the order of the plan's.
    pub models: Vec<Model>,
    pub pairs: Vec<Pair>,
    pub triples: Vec<Triple>,
    pub verdicts: Option<Verdicts>,
    pub shard: Shard,
    pub task: Task,
    pub mixed: MixedCompute,
    /// Whether rows of single pairs are left out.
    pub is_summary: bool,
    pub products: Products,
}

pub struct Model {
    pub name: String,
    pub checkpoint: Checkpoint,
    pub steering: Steering,
    pub speller: Speller,
}

pub enum Task {
    Measure,
    ListPairs,
    /// The records of all shards.
    Merge(Vec<PathBuf>),
}

/// Where results go, and how.
pub struct Products {
    pub records: Option<PathBuf>,
    pub slice_fields: Option<PathBuf>,
    pub existing: Existing,
    /// Files being read, which no product may replace.
    pub inputs: Vec<PathBuf>,
    pub format: Format,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Self, Opened)> {
        check_flags(args)?;
        let shard = args.shard.resolve()?;
        let products = Products::new(args)?;
        let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
        let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
        if args.model.len() > 1 && !args.adapter.adapters.is_empty() {
            return Err(Error::usage("--adapter", "which of the models is meant?")
                .hint("lm-merge makes a model of a base and an adapter"));
        }
        let precision = model::device::precision(&args.precision.precision, &device, dtype);
        let options = Options {
            precision: precision.map_err(|cause| Error::usage("--precision", cause))?,
            device,
            dtype,
            adapters: args.adapter.adapters.clone(),
            other_base: args.adapter.other_base,
            ..Options::default()
        };
        let opened = args.model.iter().map(|path| open(args, path, &options));
        let (mut model_plans, models): (Vec<ModelPlan>, Vec<Model>) =
            opened.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let (pairs, mut input_digests) = pairs::collect(args, &models[0].speller)?;
        let triples = match &args.slice {
            Some(path) => triples::read(path, args.input_format, &mut input_digests)?,
            None => Vec::new(),
        };
        let verdicts = match &args.verdicts {
            Some(path) => Some(Verdicts::read(path, args.judge.as_deref())?),
            None => None,
        };
        check_tokenizers(&model_plans, &models, &pairs)?;
        let ways = if args.baseline { 2 } else { 1 };
        let points = pairs.len() * args.steps as usize * ways + triples.len() * 3 * (args.slice_steps as usize).pow(2);
        for model in &mut model_plans {
            model.one_token_passes = points * model.layers.len();
        }
        let mut distances = Vec::new();
        for &distance in &args.distance {
            if !distances.contains(&distance) {
                distances.push(distance);
            }
        }
        let plan = Self {
            models: model_plans,
            input_digests,
            pair_count: pairs.len(),
            slice_count: triples.len(),
            chat: args.chat,
            bos: args.bos,
            read: args.read,
            path_kind: args.path,
            distances,
            steps: args.steps as usize,
            bisect: args.bisect,
            min_distance: args.min_distance,
            gate_flips: args.gate_flips,
            baseline: args.baseline,
            slice_steps: args.slice_steps as usize,
            seed: args.seed,
            keep_going: args.keep_going,
            compute: models[0].checkpoint.compute(),
            batch_rows: args.batch_rows as usize,
        };
        let task = match (args.list_pairs, &args.merge[..]) {
            (true, _) => Task::ListPairs,
            (false, []) => Task::Measure,
            (false, files) => Task::Merge(files.to_vec()),
        };
        let opened = Opened {
            models,
            pairs,
            triples,
            verdicts,
            shard,
            task,
            mixed: args.mixed,
            is_summary: args.summary,
            products,
        };
        Ok((plan, opened))
    }

    pub fn digest(&self) -> Result<String> {
        process::plan::digest(self)
    }

    /// The values of α: evenly spaced, both ends exact.
    pub fn alpha(&self) -> Vec<f64> {
        (0..self.steps).map(|i| i as f64 / (self.steps - 1) as f64).collect()
    }
}

impl Products {
    fn new(args: &Args) -> Result<Self> {
        let read = [&args.pairs, &args.last_token, &args.slice, &args.verdicts];
        let inputs: Vec<PathBuf> = read
            .into_iter()
            .flatten()
            .chain(&args.texts)
            .chain(&args.merge)
            .chain(args.steering.inputs())
            .cloned()
            .collect();
        let records = args.output.output.clone();
        let slice_fields = args.slice_fields.clone();
        let existing = Existing::from_flags(args.output.force, false);
        for target in [&records, &slice_fields].into_iter().flatten() {
            process::check_target(target, existing, &inputs)?;
        }
        let is_stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        if is_stdout(&slice_fields) && (records.is_none() || is_stdout(&records)) {
            return Err(
                Error::usage("--slice-fields", "- would mix the container with the records")
                    .hint("give the records a file with -o"),
            );
        }
        if records.is_some() && records == slice_fields {
            return Err(Error::usage("--slice-fields", "is the same file as --output"));
        }
        Ok(Self {
            format: args.format.resolve(records.as_deref()),
            records,
            slice_fields,
            existing,
            inputs,
        })
    }
}

fn check_flags(args: &Args) -> Result<()> {
    if let Some(eps) = args.bisect
        && !(1e-9..1.0).contains(&eps)
    {
        return Err(Error::usage("--bisect", format!("{eps} is not between 1e-9 and 1")));
    }
    if !(args.min_distance >= 0.0 && args.min_distance.is_finite()) {
        return Err(Error::usage(
            "--min-distance",
            format!("{} is not a distance", args.min_distance),
        ));
    }
    if args.random.is_some() && args.texts.is_empty() {
        return Err(Error::usage("--random", "no TEXT to draw from"));
    }
    if !args.texts.is_empty() && args.random.is_none() && args.across.is_none() {
        return Err(Error::usage(
            args.texts[0].display(),
            "texts are read by --random and --across only",
        ));
    }
    if args.verdicts.is_some() && args.pairs.is_none() && args.across.is_none() {
        return Err(Error::usage(
            "--verdicts",
            "only pairs of --pairs and --across carry prompt ids",
        ));
    }
    Ok(())
}

/// Tokens stand for the same text only under one tokenizer.
fn check_tokenizers(plans: &[ModelPlan], models: &[Model], pairs: &[Pair]) -> Result<()> {
    let by_tokens = |prompt: &Prompt| matches!(prompt, Prompt::Tokens(_));
    if !pairs.iter().any(|pair| by_tokens(&pair.a) || by_tokens(&pair.b)) {
        return Ok(());
    }
    let first = &plans[0].tokenizer_digest;
    match plans.iter().position(|plan| plan.tokenizer_digest != *first) {
        Some(other) => Err(Error::usage(
            "--model",
            format!(
                "{} has another tokenizer, and these pairs are tokens",
                models[other].name
            ),
        )
        .hint("give the pairs as texts (--pairs), or compare checkpoints of one model")),
        None => Ok(()),
    }
}

fn open(args: &Args, path: &Path, options: &Options) -> Result<(ModelPlan, Model)> {
    let name = path.display().to_string();
    let mut checkpoint = Checkpoint::open(path, options).at(&name)?;
    let tokenizer = checkpoint.tokenizer_if_any().at(&name)?;
    let template = match args.chat {
        true => {
            let found = checkpoint.template().at(&name)?;
            Some(found.ok_or_else(|| Error::input(&name, "the model has no chat template"))?)
        }
        false => None,
    };
    let (layers, read_layer) = layers(args, checkpoint.config().layer_count(), &name)?;
    let (interventions, steering) = args.steering.open(&checkpoint)?;
    let reader = steering::Reader {
        tokenizer: tokenizer.as_ref(),
        template: template.as_ref(),
    };
    let soft_prompt = args.steering.open_soft_prompt(&mut checkpoint, &reader)?;
    let (soft_prompt, slot) = soft_prompt.map(|soft| (soft.digest, soft.slot)).unzip();
    let plan = ModelPlan {
        model_digest: checkpoint.digest().to_owned(),
        tokenizer_digest: tokenizer
            .as_ref()
            .map(|tokenizer| format!("blake3:{}", tokenizer.digest().to_hex())),
        layers,
        read_layer,
        interventions,
        soft_prompt,
        one_token_passes: 0,
    };
    let speller = Speller {
        tokenizer,
        template,
        slot,
        bos: match args.bos {
            Bos::Auto => model::Bos::Auto,
            Bos::On => model::Bos::On,
            Bos::Off => model::Bos::Off,
        },
    };
    let model = Model {
        name,
        steering,
        checkpoint,
        speller,
    };
    Ok((plan, model))
}

/// The blocks after which the residual is replaced, every one before the block that is read; and that block.
fn layers(args: &Args, layer_count: usize, model: &str) -> Result<(Vec<usize>, usize)> {
    let refuse = |flag: &str, cause: String| Error::usage(flag, format!("{model}: {cause}"));
    let read_layer = args
        .read_layer
        .one_of(layer_count)
        .map_err(|cause| refuse("--read-layer", cause))?;
    if read_layer == 0 {
        return Err(refuse("--read-layer", "no block lies before block 0".to_string()));
    }
    // All are those that can be replaced at all.
    let among = if args.layers == Layers::All {
        read_layer
    } else {
        layer_count
    };
    let layers = args.layers.of(among).map_err(|cause| refuse("--layers", cause))?;
    match layers.iter().find(|&&layer| layer >= read_layer) {
        Some(late) => Err(refuse(
            "--layers",
            format!(
                "the residual after block {late} is replaced, but the answer is read after block {read_layer}, which must be later"
            ),
        )),
        None => Ok((layers, read_layer)),
    }
}

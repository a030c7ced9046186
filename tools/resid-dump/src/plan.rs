//! What a run will do, resolved before any effect: the model's description, the prompts as tokens, the points to look at.
//!
//! Reads the whole input and the model's config, tokenizer and bytes (for their digests); loads no weight.

use std::path::{Path, PathBuf};

use acts::{Codec, Dtype};
use model::{Bos, Checkpoint, Compute, Config, Device, Options, Point, Site, Steering, Template, Tokenizer};
use process::{Error, Existing, Layers, MixedCompute, Result, ResultExt, Shard};
use serde::{Deserialize, Serialize};
use steering::Intervention;

use crate::cli::Args;
use crate::prompts::{Encoding, Prompts, Sample};
use crate::selection::Positions;

/// Everything that changes bytes. Its digest is the resume key; batch boundaries stand here because on some kernels a
/// row's last bits depend on how many rows are multiplied with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub tool: String,
    pub version: String,
    pub model_digest: String,
    pub tokenizer_digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    pub input_digest: String,
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub chat: bool,
    pub strip_punct: bool,
    pub bos: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    pub keep_going: bool,
    pub sites: Vec<String>,
    pub layers: Vec<usize>,
    pub positions: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interventions: Vec<Intervention>,
    /// SHA-256 of the file of a learned system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_prompt: Option<String>,
    pub store_dtype: String,
    pub codec: String,
    pub keep_text: bool,
    pub moments: bool,
    pub batch_tokens: u32,
    pub sample_count: u64,
    pub token_count: u64,
    pub compute: Compute,
}

/// What a plan is carried out with.
pub struct Opened {
    /// As typed.
    pub model_name: String,
    pub prompts_name: String,
    /// Not loaded yet.
    pub checkpoint: Checkpoint,
    pub steering: Steering,
    pub points: Vec<Point>,
    pub positions: Positions,
    pub store_dtype: Dtype,
    pub codec: Codec,
    pub batch_tokens: usize,
    pub shard: Shard,
    /// Names of groups over the whole input.
    pub groups: Vec<String>,
    /// Samples of this shard, by sample_index.
    pub samples: Vec<Sample>,
    pub failures: Vec<Error>,
    /// Absent where none was named.
    pub target: Option<Target>,
    pub moments_bytes_max: u64,
}

/// Where the container goes.
pub struct Target {
    pub path: PathBuf,
    pub existing: Existing,
    /// Never written onto.
    pub inputs: Vec<PathBuf>,
    pub mixed: MixedCompute,
}

impl Target {
    /// Whether a finished output is there that `--resume` need only confirm.
    pub fn is_finished(&self) -> bool {
        self.existing == Existing::Resume && self.path.is_file()
    }

    pub fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// Opens the model; loads nothing.
pub fn open(args: &Args, device: Device) -> Result<Checkpoint> {
    let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
    let precision = model::device::precision(&args.precision.precision, &device, dtype);
    let options = Options {
        precision: precision.map_err(|cause| Error::usage("--precision", cause))?,
        device,
        dtype,
        follow_links: args.follow_links,
        digest: args.model_digest.clone(),
        adapters: args.adapter.adapters.clone(),
        other_base: args.adapter.other_base,
        ..Options::default()
    };
    Checkpoint::open(&args.model, &options).at(args.model.display())
}

pub fn acts_dtype(name: &str) -> Dtype {
    match name {
        "bf16" => Dtype::Bf16,
        "f16" => Dtype::F16,
        _ => Dtype::F32,
    }
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Plan, Opened)> {
        let target = target(args)?;
        let shard = args.shard.resolve()?;
        let device = model::device::open(&args.device).map_err(|error| Error::environment("--device", error))?;
        let mut checkpoint = open(args, device)?;
        let tokenizer = checkpoint.tokenizer().at(args.model.display())?;
        let template = template(args, &checkpoint)?;
        let reader = steering::Reader {
            tokenizer: Some(&tokenizer),
            template: template.as_ref(),
        };
        let soft_prompt = args.steering.open_soft_prompt(&mut checkpoint, &reader)?;
        let (soft_prompt, slot) = soft_prompt.map(|soft| (soft.digest, soft.slot)).unzip();
        let config = checkpoint.config();
        let points = points(args, config)?;
        let (interventions, steering) = args.steering.open(&checkpoint)?;
        let speaks = Encoding {
            slot: slot.as_ref(),
            ..encoding(args, &checkpoint, &tokenizer, template.as_ref())
        };
        let prompts = Prompts::read(args, &speaks)?;
        let plan = Plan {
            tool: "resid-dump".into(),
            version: process::VERSION.into(),
            model_digest: checkpoint.digest().to_owned(),
            tokenizer_digest: format!("blake3:{}", tokenizer.digest().to_hex()),
            template_digest: template
                .as_ref()
                .map(|template| format!("blake3:{}", template.digest().to_hex())),
            input_digest: prompts.digest.clone(),
            field: args.field.clone(),
            completion_field: args.positions.needs_completion().then(|| args.completion_field.clone()),
            group: args.group.clone(),
            chat: template.is_some(),
            strip_punct: args.strip_punct,
            bos: args.bos.clone(),
            limit: args.limit,
            keep_going: args.keep_going,
            sites: args.sites.iter().map(|site| site.to_string()).collect(),
            layers: layers(args, config)?,
            positions: args.positions.to_string(),
            interventions,
            soft_prompt,
            store_dtype: args.store_dtype.clone().unwrap_or_else(|| args.dtype.clone()),
            codec: args.codec.to_string(),
            keep_text: args.keep_text,
            moments: args.moments,
            batch_tokens: args.batch_tokens,
            sample_count: prompts.samples.len() as u64,
            token_count: token_count(&prompts.samples),
            compute: checkpoint.compute(),
        };
        let opened = Opened {
            model_name: args.model.display().to_string(),
            prompts_name: args.prompts.display().to_string(),
            steering,
            points,
            positions: args.positions,
            store_dtype: acts_dtype(&plan.store_dtype),
            codec: args.codec,
            batch_tokens: args.batch_tokens as usize,
            groups: prompts.groups(),
            samples: prompts
                .samples
                .into_iter()
                .filter(|sample| shard.owns(sample.bucket))
                .collect(),
            failures: prompts.failures,
            shard,
            checkpoint,
            target,
            moments_bytes_max: args.max_memory,
        };
        Ok((plan, opened))
    }

    /// Puts the settings of a stored dump in the place of the arguments', so that a run repeats it.
    pub fn apply(&self, args: &mut Args) -> Result<()> {
        let stale = |what: &str| Error::input("plan of the stored dump", format!("{what} is not understood"));
        args.field.clone_from(&self.field);
        if let Some(field) = &self.completion_field {
            args.completion_field.clone_from(field);
        }
        args.group.clone_from(&self.group);
        args.strip_punct = self.strip_punct;
        args.chat = self.chat;
        args.bos.clone_from(&self.bos);
        args.limit = self.limit;
        args.keep_going = self.keep_going;
        args.sites = self
            .sites
            .iter()
            .map(|site| site.parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| stale("sites"))?;
        args.layers = Layers::Listed(self.layers.iter().map(|&layer| (layer as i64, layer as i64)).collect());
        args.positions = self.positions.parse().map_err(|_| stale("positions"))?;
        args.dtype.clone_from(&self.compute.dtype);
        args.store_dtype = Some(self.store_dtype.clone());
        args.codec = self.codec.parse().map_err(|_| stale("codec"))?;
        args.batch_tokens = self.batch_tokens;
        Ok(())
    }
}

impl Opened {
    pub fn config(&self) -> &Config {
        self.checkpoint.config()
    }

    /// Rows of each tensor in this shard.
    pub fn row_count(&self) -> u64 {
        let rows = |sample: &Sample| sample.row_count(self.positions) as u64;
        self.samples.iter().map(rows).sum()
    }

    /// Tokens of this shard.
    pub fn token_count(&self) -> u64 {
        token_count(&self.samples)
    }

    /// The type that a point's tensor is stored in.
    pub fn dtype(&self, point: usize) -> Dtype {
        match self.points[point].site {
            Site::ExpertChoice => Dtype::U32,
            _ => self.store_dtype,
        }
    }

    pub fn width(&self, point: usize) -> usize {
        self.points[point].site.width(self.config())
    }

    /// Consecutive samples (indices into `samples`) that run together: at most `batch_tokens` tokens, or one sample.
    pub fn units(&self, among: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut tokens = 0;
        for index in among {
            let length = self.samples[index].token_ids.len();
            match units.last_mut() {
                Some(unit) if tokens + length <= self.batch_tokens => unit.push(index),
                _ => {
                    units.push(vec![index]);
                    tokens = 0;
                }
            }
            tokens += length;
        }
        units
    }

    /// The units of the whole shard.
    pub fn all_units(&self) -> Vec<Vec<usize>> {
        self.units(0..self.samples.len())
    }

    pub fn of_unit(&self, unit: &[usize]) -> Vec<&Sample> {
        unit.iter().map(|&index| &self.samples[index]).collect()
    }
}

pub fn token_count<'s>(samples: impl IntoIterator<Item = &'s Sample>) -> u64 {
    samples.into_iter().map(|sample| sample.token_ids.len() as u64).sum()
}

/// Refuses a target that must not be written before anything is read, unless nothing will be written.
fn target(args: &Args) -> Result<Option<Target>> {
    let Some(path) = &args.output.output else {
        return Ok(None);
    };
    let model_files = std::fs::read_dir(&args.model).into_iter().flatten().flatten();
    let target = Target {
        path: path.clone(),
        existing: Existing::from_flags(args.output.force, args.resume),
        inputs: [args.prompts.clone()]
            .into_iter()
            .chain(model_files.map(|entry| entry.path()))
            .chain(args.steering.inputs().cloned())
            .collect(),
        mixed: args.mixed,
    };
    if !(args.common.plan || target.is_finished()) {
        process::check_target(&target.path, target.existing, &target.inputs)?;
    }
    Ok(Some(target))
}

fn encoding<'a>(
    args: &Args,
    checkpoint: &Checkpoint,
    tokenizer: &'a Tokenizer,
    template: Option<&'a Template>,
) -> Encoding<'a> {
    Encoding {
        tokenizer,
        template,
        bos: match args.bos.as_str() {
            "on" => Bos::On,
            "off" => Bos::Off,
            _ => Bos::Auto,
        },
        strip_punct: args.strip_punct,
        positions: args.positions,
        slot: None,
        position_count: checkpoint.config().position_count,
        id_count: checkpoint.id_count(),
    }
}

fn template(args: &Args, checkpoint: &Checkpoint) -> Result<Option<Template>> {
    if let Some(path) = &args.template {
        return Template::read(path, args.follow_links).at(path.display()).map(Some);
    }
    if !args.chat {
        return Ok(None);
    }
    match checkpoint.template().at(args.model.display())? {
        Some(template) => Ok(Some(template)),
        None => Err(Error::usage("--chat", "the model has no chat template").hint("--template names one")),
    }
}

pub fn layers(args: &Args, config: &Config) -> Result<Vec<usize>> {
    args.layers
        .of(config.layer_count())
        .map_err(|cause| Error::usage("--layers", cause))
}

/// Every (site, layer) that is asked for, site by site as typed.
fn points(args: &Args, config: &Config) -> Result<Vec<Point>> {
    let layers = layers(args, config)?;
    let mut points = Vec::new();
    for &site in &args.sites {
        if let Some(absence) = site.absence(config) {
            let cause = format!("{} blocks of this model {absence}: they have no {site}", config.family);
            return Err(Error::usage("--sites", cause));
        }
        if site == Site::ExpertChoice && (args.moments || args.positions == Positions::Mean) {
            let cause = "expert_choice holds numbers of experts, which have no mean";
            return Err(Error::usage("--sites", cause));
        }
        match site.layered() {
            true => points.extend(layers.iter().map(|&layer| Point::new(site, layer))),
            false => points.push(Point::new(site, 0)),
        }
    }
    let mut seen = std::collections::HashSet::new();
    match points.iter().find(|point| !seen.insert(**point)) {
        Some(twice) => Err(Error::usage("--sites", format!("{twice} is asked for twice"))),
        None => Ok(points),
    }
}

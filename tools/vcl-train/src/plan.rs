//! What a run will do, from its arguments and inputs alone: no weight is read into memory, nothing is computed.

use model::config::Config;
use model::template::Template;
use model::{Checkpoint, Compute, DType, Device, Directory, Options, Precision, Tokenizer};
use process::{Error, Existing, Result, ResultExt};
use records::dataset::InputFormat;
use serde::Serialize;
use serde_json::Value;

use crate::auxiliary::Auxiliaries;
use crate::checkpoint::Target;
use crate::cli::Args;
use crate::mixture::{self, Mix};
use crate::origin::Origin;
use crate::reader::{self, Counts, NoCompletion, OverLength, Reader, Source};
use crate::recipe::{Recipe, Settings};
use crate::sample::Sample;
use crate::schedule::Schedule;
use crate::work::{self, Memory, OfRanks, Tokens, Work};

/// Everything a run reads, opened and checked, and where its result goes.
pub struct Opened {
    pub origin: Origin,
    pub samples: Vec<Sample>,
    pub held_out: Vec<Sample>,
    pub auxiliaries: Auxiliaries,
    pub device: Device,
    pub dtype: DType,
    pub store_dtype: DType,
    /// The data files as typed, for the manifest.
    pub data: Vec<String>,
    /// None: a probe.
    pub target: Option<Target>,
}

/// Everything that can change the bits of the result, and what follows from it. No path, no thread count.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    pub model: ModelPlan,
    pub data: Vec<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<MixPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    pub text: TextPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    pub settings: Settings,
    pub schedule: Schedule,
    /// Settings of the auxiliary losses, by name.
    pub aux: Value,
    pub seed: u64,
    pub recompute: bool,
    pub checkpoint_every: u64,
    pub merge: bool,
    pub compute: Compute,
    pub store_dtype: &'static str,
    pub work: Work,
}

#[derive(Clone, Debug, Serialize)]
pub struct ModelPlan {
    pub family: &'static str,
    pub parameter_count: u64,
    /// Of config.json.
    pub config_digest: String,
    /// Of the weights; absent from scratch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_digest: Option<String>,
    pub tokenizer_digest: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct MixPlan {
    pub total: usize,
    pub row_counts: Vec<(String, usize)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TextPlan {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    pub join: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub over_length: OverLength,
    pub no_completion: NoCompletion,
    pub learn_line_end: bool,
}

impl ModelPlan {
    fn new(origin: &Origin, tokenizer: &Tokenizer) -> Self {
        let checkpoint = origin.checkpoint.as_ref();
        Self {
            family: origin.config.family,
            parameter_count: origin.config.parameter_count(),
            config_digest: digest(blake3::hash(&origin.config_text)),
            weights_digest: checkpoint.map(|checkpoint| checkpoint.digest().to_owned()),
            tokenizer_digest: digest(tokenizer.digest()),
        }
    }
}

impl TextPlan {
    fn new(args: &Args, template: Option<&Template>) -> Self {
        Self {
            template_digest: template.map(|template| digest(template.digest())),
            join: join(args),
            field: args.field.clone(),
            over_length: args.over_length,
            no_completion: args.no_completion,
            learn_line_end: args.learn_line_end,
        }
    }
}

fn digest(hash: blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}

/// What stands between turns.
fn join(args: &Args) -> String {
    args.join.replace("\\n", "\n")
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Self, Opened)> {
        let Computed {
            device,
            dtype,
            precision,
            store_dtype,
        } = compute(args)?;
        let origin = origin(args, &device, dtype, precision)?;
        let config = &origin.config;
        let settings = settings(args, config)?;
        let auxiliaries = Auxiliaries::new(&args.aux, config.layer_count());
        let auxiliaries = auxiliaries.map_err(|cause| Error::usage("--aux", cause))?;
        let tokenizer = Tokenizer::open(&origin.companions).at(origin.companions.path().display())?;
        let template = match args.raw {
            true => None,
            false => reader::template(args.template.as_deref(), &origin.companions, args.follow_links)?,
        };
        let data = Data::read(args, &settings, &tokenizer, template.as_ref())?;
        check_vocabulary(&data.samples, config)?;

        let per_epoch = data.samples.len() as f64 / settings.batch_size as f64;
        let steps = args.steps.unwrap_or((settings.epochs * per_epoch).ceil() as u64);
        let tokens = Tokens::count(&data.samples, &settings, args.seed, steps);
        let memory = Memory::new(config, &settings, dtype, tokens.micro_batch_max, args.recompute);
        let plan = Self {
            tool: "vcl-train",
            version: process::VERSION,
            model: ModelPlan::new(&origin, &tokenizer),
            data: data.counts,
            mix: data.mix,
            eval: data.eval,
            eval_every: args.eval_every,
            text: TextPlan::new(args, template.as_ref()),
            recipe: args.recipe,
            schedule: Schedule::new(settings.schedule, settings.lr, settings.warmup, steps),
            aux: auxiliaries.settings(),
            seed: args.seed,
            recompute: args.recompute,
            checkpoint_every: args.checkpoint_every.unwrap_or(steps.div_ceil(10).max(1)),
            merge: args.merge,
            compute: Compute::new(&device, dtype, precision),
            store_dtype: store_dtype.as_str(),
            work: Work {
                sample_count: data.samples.len(),
                steps,
                token_count: tokens.count,
                loss_token_count: tokens.loss_count,
                aux_layers: auxiliaries.layers(),
                trained_parameter_count: work::trained_count(config, &settings),
                memory_bytes: memory.bytes(1),
                ranks: OfRanks::all(&settings, &memory),
            },
            settings,
        };
        let opened = Opened {
            origin,
            samples: data.samples,
            held_out: data.held_out,
            auxiliaries,
            device,
            dtype,
            store_dtype,
            data: args.data.clone(),
            target: target(args),
        };
        Ok((plan, opened))
    }

    /// As JSON: printed by --plan, kept beside checkpoints, compared on resume.
    pub fn value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|cause| Error::bug("plan", cause))
    }
}

fn origin(args: &Args, device: &Device, dtype: DType, precision: Precision) -> Result<Origin> {
    let (path, checkpoint) = match (&args.model, &args.init) {
        (Some(path), _) => {
            let options = Options {
                device: device.clone(),
                dtype,
                precision,
                follow_links: args.follow_links,
                adapters: args.adapter.adapters.clone(),
                other_base: args.adapter.other_base,
                ..Options::default()
            };
            (path, Some(Checkpoint::open(path, &options).at(path.display())?))
        }
        (None, Some(path)) => (path, None),
        (None, None) => return Err(Error::usage("--model", "is needed, or --init")),
    };
    let companions = match (&args.tokenizer, &checkpoint) {
        (Some(path), _) => Directory::open(path, args.follow_links).at(path.display())?,
        (None, Some(checkpoint)) => checkpoint.directory().clone(),
        (None, None) => return Err(Error::usage("--tokenizer", "is needed with --init")),
    };
    let config_text = match &checkpoint {
        Some(checkpoint) => checkpoint.config_text().to_vec(),
        None => std::fs::read(path).at(path.display())?,
    };
    Ok(Origin {
        path: path.clone(),
        config: Config::parse(&config_text).at(path.display())?,
        config_text,
        companions,
        checkpoint,
    })
}

fn target(args: &Args) -> Option<Target> {
    let path = args.output.clone().filter(|_| !args.probe)?;
    Some(Target {
        path,
        existing: Existing::from_flags(args.force, args.resume),
        keep: args.keep_checkpoints,
        mixed: args.mixed,
    })
}

fn settings(args: &Args, config: &Config) -> Result<Settings> {
    let settings = Settings::resolve(args, config.position_count);
    let refuse = |flag: &str, cause: String| Err(Error::usage(flag.to_string(), cause));
    if settings.max_length > config.position_count {
        let cause = format!(
            "{} tokens, the model takes {}",
            settings.max_length, config.position_count
        );
        return refuse("--max-length", cause);
    }
    if settings.slots > settings.batch_size {
        let cause = format!("{} parts of {} sequences", settings.slots, settings.batch_size);
        return refuse("--slots", cause);
    }
    if settings.lora.is_none() && args.merge {
        return refuse(
            "--merge",
            "needs --lora: without adapters nothing is to be merged".into(),
        );
    }
    if settings.lora.is_some() && !args.merge && !args.adapter.adapters.is_empty() {
        let cause =
            "what --lora writes would belong to a base that lies nowhere; add --merge, or make that base with lm-merge";
        return refuse("--adapter", cause.into());
    }
    if !args.adapter.adapters.is_empty() && args.model.is_none() {
        return refuse("--adapter", "needs --model".into());
    }
    if settings.lora.is_none() && args.lora_targets.is_some() {
        return refuse("--lora-targets", "needs --lora".into());
    }
    Ok(settings)
}

/// What the data files gave.
struct Data {
    samples: Vec<Sample>,
    counts: Vec<Counts>,
    mix: Option<MixPlan>,
    held_out: Vec<Sample>,
    eval: Option<Counts>,
}

impl Data {
    fn read(args: &Args, settings: &Settings, tokenizer: &Tokenizer, template: Option<&Template>) -> Result<Self> {
        let format = args.input_format.as_deref().map(str::parse::<InputFormat>).transpose();
        let reader = Reader {
            tokenizer,
            template,
            join: &join(args),
            field: args.field.as_deref(),
            format: format.map_err(|cause| Error::usage("--input-format", cause))?,
            max_length: settings.max_length,
            over_length: args.over_length,
            no_completion: args.no_completion,
            learn_line_end: args.learn_line_end,
        };
        let (samples, counts, mix) = training_data(args, &reader)?;
        let held_out = args.eval.as_ref().map(|path| {
            let name = "eval".into();
            let path = path.clone();
            reader.read(&Source { name, path })
        });
        let (held_out, eval) = held_out.transpose()?.unzip();
        Ok(Self {
            samples,
            counts,
            mix,
            held_out: held_out.unwrap_or_default(),
            eval,
        })
    }
}

/// Where and in which types it is computed and stored.
struct Computed {
    device: Device,
    dtype: DType,
    precision: Precision,
    store_dtype: DType,
}

fn compute(args: &Args) -> Result<Computed> {
    let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
    let dtype = |flag: &str, value: Option<&str>, default: DType| match value {
        None => Ok(default),
        Some(name) => model::device::dtype(name).map_err(|cause| Error::usage(flag.to_string(), cause)),
    };
    let computed = dtype(
        "--dtype",
        args.dtype.as_deref(),
        if device.is_cpu() { DType::F32 } else { DType::BF16 },
    )?;
    let precision = model::device::precision(&args.precision.precision, &device, computed);
    Ok(Computed {
        precision: precision.map_err(|cause| Error::usage("--precision", cause))?,
        device,
        dtype: computed,
        store_dtype: dtype("--store-dtype", args.store_dtype.as_deref(), DType::F32)?,
    })
}

fn training_data(args: &Args, reader: &Reader) -> Result<(Vec<Sample>, Vec<Counts>, Option<MixPlan>)> {
    let sources: Vec<Source> = args.data.iter().map(|text| Source::parse(text)).collect();
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].iter().any(|other| other.name == source.name) {
            return Err(Error::usage(
                "--data",
                format!("two files are called {:?}; name them: NAME=FILE", source.name),
            ));
        }
    }
    let mut read = Vec::with_capacity(sources.len());
    let mut counts = Vec::with_capacity(sources.len());
    for source in &sources {
        let (samples, count) = reader.read(source)?;
        read.push((source.name.clone(), samples));
        counts.push(count);
    }
    let (Some(mix), Some(total)) = (&args.mix, args.total) else {
        return Ok((
            read.into_iter().flat_map(|(_, samples)| samples).collect(),
            counts,
            None,
        ));
    };
    let mix: Mix = mix.parse().map_err(|cause: String| Error::usage("--mix", cause))?;
    let plan = MixPlan {
        total,
        row_counts: mix.counts(total),
    };
    let samples = mixture::mixed(read, &mix, total, args.seed)?;
    if samples.is_empty() {
        return Err(Error::usage("--total", "a mixture of no rows trains nothing"));
    }
    Ok((samples, counts, Some(plan)))
}

fn check_vocabulary(samples: &[Sample], config: &Config) -> Result<()> {
    for sample in samples {
        let mut ids = sample.sequences.iter().flat_map(|sequence| &sequence.token_ids);
        if let Some(id) = ids.find(|&&id| id as usize >= config.vocab_size) {
            let cause = format!("token id {id}, the model's vocabulary has {}", config.vocab_size);
            return Err(Error::input(&sample.id, cause).hint("the tokenizer belongs to another model"));
        }
    }
    Ok(())
}

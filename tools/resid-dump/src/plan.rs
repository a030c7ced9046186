//! What a run will do, resolved before any effect: the model's description, the prompts as tokens, the tensors to write.
//!
//! Reads the whole input and the model's config, tokenizer and bytes (for their digests); loads no weight.

use std::path::Path;

use acts::{Compute, Dtype, Header, Role, TensorSpec};
use model::{Bos, Config, Device, Directory, Point, Site, Template, Tokenizer, Weights};
use process::{Error, Result, ResultExt, Shard};
use serde::{Deserialize, Serialize};

use crate::cli::Args;
use crate::prompts::{Encoding, Prompts, Sample};
use crate::selection::{Layers, Positions};

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
    pub dtype: String,
    pub store_dtype: String,
    pub codec: String,
    pub keep_text: bool,
    pub moments: bool,
    pub device: String,
    pub batch_tokens: u32,
    pub sample_count: u64,
    pub token_count: u64,
}

/// What `--plan` prints beside the plan.
#[derive(Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    pub plan: &'a Plan,
    pub plan_digest: &'a str,
    pub shard: String,
    pub shard_sample_count: usize,
    pub shard_token_count: u64,
    pub row_count: u64,
    pub raw_bytes: u64,
    pub weight_bytes: u64,
    pub parameter_count: u64,
}

/// A plan and what it takes to carry it out.
pub struct Job {
    pub plan: Plan,
    pub digest: String,
    pub shard: Shard,
    pub config: Config,
    pub weights: Weights,
    pub points: Vec<Point>,
    pub positions: Positions,
    /// Names of groups over the whole input.
    pub groups: Vec<String>,
    /// Samples of this shard, by sample_index.
    pub samples: Vec<Sample>,
    pub failures: Vec<Error>,
    pub device: Device,
}

/// An opened model directory.
pub struct Model {
    pub directory: Directory,
    pub config: Config,
    pub weights: Weights,
    pub digest: String,
}

impl Model {
    pub fn open(args: &Args, device: &Device) -> Result<Model> {
        let shown = args.model.display();
        let directory = Directory::open(&args.model, args.follow_links).at(shown.to_string())?;
        let text = directory.read("config.json").at(shown.to_string())?;
        let config = Config::parse(&text).at(shown.to_string())?;
        let dtype = model::device::dtype(&args.dtype).at("--dtype")?;
        let weights = Weights::open(&directory, dtype, device).at(shown.to_string())?;
        let digest = format!("blake3:{}", weights.digest(&text).to_hex());
        match &args.model_digest {
            Some(pinned) if *pinned != digest => Err(Error::input(
                &shown,
                format!("has the digest {digest}, pinned is {pinned}"),
            )),
            _ => Ok(Model {
                directory,
                config,
                weights,
                digest,
            }),
        }
    }
}

pub fn acts_dtype(name: &str) -> Dtype {
    match name {
        "bf16" => Dtype::Bf16,
        "f16" => Dtype::F16,
        _ => Dtype::F32,
    }
}

impl Job {
    pub fn new(args: &Args) -> Result<Job> {
        let shard = args.shard.resolve()?;
        let device = model::device::open(&args.device).map_err(|error| Error::environment("--device", error))?;
        let model = Model::open(args, &device)?;
        let shown = args.model.display().to_string();
        let tokenizer = Tokenizer::open(&model.directory).at(&shown)?;
        let template = template(args, &model.directory)?;
        let points = points(args, &model.config)?;
        let encoding = Encoding {
            tokenizer: &tokenizer,
            template: template.as_ref(),
            bos: match args.bos.as_str() {
                "on" => Bos::On,
                "off" => Bos::Off,
                _ => Bos::Auto,
            },
            strip_punct: args.strip_punct,
            positions: args.positions,
            config: &model.config,
        };
        let prompts = Prompts::read(args, &encoding, &args.field)?;
        let plan = Plan {
            tool: "resid-dump".into(),
            version: process::VERSION.into(),
            model_digest: model.digest,
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
            layers: args
                .layers
                .of(model.config.layer_count())
                .map_err(|cause| Error::usage("--layers", cause))?,
            positions: args.positions.to_string(),
            dtype: args.dtype.clone(),
            store_dtype: args.store_dtype.clone().unwrap_or_else(|| args.dtype.clone()),
            codec: args.codec.to_string(),
            keep_text: args.keep_text,
            moments: args.moments,
            device: if device.is_cpu() { "cpu".into() } else { "cuda".into() },
            batch_tokens: args.batch_tokens,
            sample_count: prompts.samples.len() as u64,
            token_count: prompts.samples.iter().map(|sample| sample.token_ids.len() as u64).sum(),
        };
        Ok(Job {
            digest: process::plan::digest(&plan)?,
            groups: prompts.groups(),
            samples: prompts
                .samples
                .into_iter()
                .filter(|sample| shard.owns(sample.bucket))
                .collect(),
            failures: prompts.failures,
            positions: args.positions,
            config: model.config,
            weights: model.weights,
            plan,
            shard,
            points,
            device,
        })
    }

    /// Rows of each tensor in this shard.
    pub fn row_count(&self) -> u64 {
        self.samples
            .iter()
            .map(|sample| sample.row_count(self.positions) as u64)
            .sum()
    }

    pub fn show(&self) -> Shown<'_> {
        let width: usize = self.points.iter().map(|point| point.site.width(&self.config)).sum();
        let row_count = self.row_count();
        let raw_bytes = match self.plan.moments {
            true => crate::moments::container_bytes(self),
            false => row_count * (width * acts_dtype(&self.plan.store_dtype).bytes() + 12) as u64,
        };
        Shown {
            plan: &self.plan,
            plan_digest: &self.digest,
            shard: format!("{}/{}", self.shard.index, self.shard.count),
            shard_sample_count: self.samples.len(),
            shard_token_count: self.samples.iter().map(|sample| sample.token_ids.len() as u64).sum(),
            row_count,
            raw_bytes,
            weight_bytes: self.weights.byte_count(),
            parameter_count: self.config.parameter_count(),
        }
    }

    /// Consecutive samples (indices into `samples`) that run together: at most `batch_tokens` tokens, or one sample.
    pub fn units(&self, among: &[usize]) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut tokens = 0;
        for &index in among {
            let length = self.samples[index].token_ids.len();
            match units.last_mut() {
                Some(unit) if tokens + length <= self.plan.batch_tokens as usize => unit.push(index),
                _ => {
                    units.push(vec![index]);
                    tokens = 0;
                }
            }
            tokens += length;
        }
        units
    }

    /// The container's header, without its tensors.
    pub fn header(&self) -> Result<Header> {
        let shard = (self.shard != Shard::WHOLE).then_some(acts::Shard {
            index: self.shard.index,
            count: self.shard.count,
        });
        let mut header = Header::new("resid-dump", process::VERSION, &self.digest, shard);
        header.input_digest = Some(self.plan.input_digest.clone());
        header.model_digest = Some(self.plan.model_digest.clone());
        header.tokenizer_digest = Some(self.plan.tokenizer_digest.clone());
        header.template_digest = self.plan.template_digest.clone();
        header.compute = Some(Compute {
            dtype: acts_dtype(&self.plan.dtype),
            device: self.plan.device.clone(),
            kernel: Some(model::device::kernel(&self.device).to_owned()),
        });
        header.sample_count = Some(self.plan.sample_count);
        let plan = serde_json::to_value(&self.plan).map_err(|cause| Error::bug("plan", cause))?;
        header.meta.insert("plan".into(), plan);
        header.meta.insert("family".into(), self.config.family.into());
        header
            .meta
            .insert("layer_count".into(), self.config.layer_count().into());
        Ok(header)
    }

    /// The tensors of a dump of rows: activations in the order of `points`, then the row tables, then the samples.
    pub fn rows_header(&self) -> Result<Header> {
        let mut header = self.header()?;
        let codec: acts::Codec = self
            .plan
            .codec
            .parse()
            .map_err(|cause: String| Error::usage("--codec", cause))?;
        let rows = self.row_count();
        let dtype = acts_dtype(&self.plan.store_dtype);
        for point in &self.points {
            let layer = point.layer_index().map(|layer| layer as u32);
            let width = point.site.width(&self.config) as u64;
            header.tensors.push(
                TensorSpec::activations(acts_site(point.site), layer, dtype, width)
                    .codec(codec)
                    .rows(rows),
            );
        }
        for name in ["token_id", "sample_index", "position"] {
            header.tensors.push(TensorSpec::row_table(name).rows(rows));
        }
        header.tensors.push(TensorSpec::samples().role(Role::Samples));
        header.fix_blocks().at("plan")?;
        Ok(header)
    }
}

/// The same nine names in both crates.
pub fn acts_site(site: Site) -> acts::Site {
    match site {
        Site::Embed => acts::Site::Embed,
        Site::ResidPre => acts::Site::ResidPre,
        Site::ResidMid => acts::Site::ResidMid,
        Site::ResidPost => acts::Site::ResidPost,
        Site::AttnOut => acts::Site::AttnOut,
        Site::MlpOut => acts::Site::MlpOut,
        Site::MlpGate => acts::Site::MlpGate,
        Site::FinalNorm => acts::Site::FinalNorm,
        Site::Logits => acts::Site::Logits,
    }
}

/// Every (site, layer) that is asked for, site by site as typed.
fn points(args: &Args, config: &Config) -> Result<Vec<Point>> {
    let layers = args
        .layers
        .of(config.layer_count())
        .map_err(|cause| Error::usage("--layers", cause))?;
    let mut points = Vec::new();
    for &site in &args.sites {
        if !site.exists(config) {
            let cause = format!(
                "{} blocks of this model are parallel: they have no {site}",
                config.family
            );
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

fn template(args: &Args, directory: &Directory) -> Result<Option<Template>> {
    let Some(path) = &args.template else {
        if !args.chat {
            return Ok(None);
        }
        return match Template::open(directory).at(args.model.display())? {
            Some(template) => Ok(Some(template)),
            None => Err(Error::usage("--chat", "the model has no chat template").hint("--template names one")),
        };
    };
    let shown = path.display().to_string();
    if path.is_dir() {
        let directory = Directory::any(path, args.follow_links).at(&shown)?;
        let template = Template::open(&directory).at(&shown)?;
        return template
            .map(Some)
            .ok_or_else(|| Error::input(&shown, "holds no chat template"));
    }
    let text = std::fs::read_to_string(path).at(&shown)?;
    Template::parse(&text).map(Some).at(&shown)
}

impl Plan {
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
        args.layers = Layers::Listed(self.layers.iter().map(|&layer| (layer, layer)).collect());
        args.positions = self.positions.parse().map_err(|_| stale("positions"))?;
        args.dtype.clone_from(&self.dtype);
        args.store_dtype = Some(self.store_dtype.clone());
        args.codec = self.codec.parse().map_err(|_| stale("codec"))?;
        args.batch_tokens = self.batch_tokens;
        Ok(())
    }
}

/// `-o` is not optional for a container.
pub fn target(args: &Args) -> Result<&Path> {
    args.output
        .output
        .as_deref()
        .ok_or_else(|| Error::usage("--output", "is missing").hint("-o FILE, or -o - for the container on stdout"))
}

//! What a run of lm-gen will do: model, input, decoding, interventions. What cannot change a byte (batch, threads, shard, paths)
//! is not in it. Reads the input and the model's small files; maps the weights to take their digest.

use std::path::Path;

use model::{Config, Directory, Template, Tokenizer, Weights};
use process::{Error, Result, ResultExt};
use serde::Serialize;

use crate::cli::Args;
use crate::directions::{self, Request};
use crate::report::Compute;

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
    pub interventions: Vec<Request>,
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

/// A model directory, opened but not loaded.
pub struct Model {
    pub config: Config,
    pub weights: Weights,
    pub tokenizer: Tokenizer,
    pub template: Option<Template>,
    pub digest: String,
    pub end_token_ids: Vec<u32>,
    pub interventions: Vec<Request>,
}

impl Model {
    pub fn open(args: &Args) -> Result<Model> {
        let path = args
            .model
            .as_deref()
            .ok_or_else(|| Error::usage("--model", "is needed"))?;
        let subject = path.display();
        let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
        let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
        let directory = Directory::open(path, args.follow_links).at(&subject)?;
        let config_bytes = directory.read("config.json").at(&subject)?;
        let config = Config::parse(&config_bytes).at(&subject)?;
        let tokenizer = Tokenizer::open(&directory).at(&subject)?;
        let template = template(args, &directory)?;
        let end_token_ids = end_tokens(&directory, &config, &tokenizer).at(&subject)?;
        let weights = Weights::open(&directory, dtype, &device).at(&subject)?;
        let digest = format!("blake3:{}", weights.digest(&config_bytes).to_hex());
        if let Some(wanted) = args.model_digest.as_ref().filter(|wanted| **wanted != digest) {
            return Err(Error::input(
                &subject,
                format!("the weights have digest {digest}, --model-digest wants {wanted}"),
            ));
        }
        let mut interventions = Vec::new();
        for text in &args.ablate {
            interventions.push(directions::parse(text, false, config.layer_count())?);
        }
        for text in &args.add {
            interventions.push(directions::parse(text, true, config.layer_count())?);
        }
        Ok(Model {
            config,
            weights,
            tokenizer,
            template,
            digest,
            end_token_ids,
            interventions,
        })
    }
}

fn template(args: &Args, directory: &Directory) -> Result<Option<Template>> {
    if args.raw {
        return Ok(None);
    }
    let found = match &args.template {
        Some(path) if path.is_dir() => {
            Template::open(&Directory::any(path, args.follow_links).at(path.display())?).at(path.display())?
        }
        Some(path) => Some(Template::parse(&read_text(path)?).at(path.display())?),
        None => Template::open(directory).at(directory.path().display())?,
    };
    if found.is_none() {
        for (flag, is_given) in [
            ("--chat", args.chat),
            ("--template", args.template.is_some()),
            ("--system", args.system.is_some()),
        ] {
            if is_given {
                return Err(Error::input(
                    directory.path().display(),
                    format!("{flag} needs a chat template, and this is no chat model: it has none"),
                )
                .hint("--template FILE brings one"));
            }
        }
    }
    Ok(found)
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).at(path.display())?;
    String::from_utf8(bytes).map_err(|_| Error::input(path.display(), "is not UTF-8"))
}

/// Any of these ends a completion: generation_config.json's, config.json's, and where both are silent the tokenizer's.
fn end_tokens(directory: &Directory, config: &Config, tokenizer: &Tokenizer) -> model::Result<Vec<u32>> {
    let mut ids = config.eos.clone();
    if let Some(bytes) = directory.read_optional("generation_config.json")? {
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|cause| model::Error::Config(format!("generation_config.json: {cause}")))?;
        let named = match value.get("eos_token_id") {
            Some(serde_json::Value::Array(list)) => list.clone(),
            Some(serde_json::Value::Null) | None => Vec::new(),
            Some(one) => vec![one.clone()],
        };
        for id in named {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                model::Error::Config(format!("generation_config.json: eos_token_id = {id} is no token id"))
            })?;
            ids.push(id);
        }
    }
    if ids.is_empty() {
        ids.extend(tokenizer.eos());
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

impl Plan {
    pub fn new(args: &Args, model: &Model, input_digest: String, prompt_count: u64) -> Plan {
        Plan {
            model_digest: model.digest.clone(),
            tokenizer_digest: format!("blake3:{}", model.tokenizer.digest().to_hex()),
            input_digest,
            prompt_count,
            limit: args.limit,
            template_digest: model
                .template
                .as_ref()
                .map(|template| format!("blake3:{}", template.digest().to_hex())),
            system: args.system.clone(),
            max_new_tokens: args.max_new_tokens,
            stop: args.stop.clone(),
            end_token_ids: model.end_token_ids.clone(),
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
            interventions: model.interventions.clone(),
            compute: Compute {
                device: args.device.clone(),
                dtype: args.dtype.clone(),
            },
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

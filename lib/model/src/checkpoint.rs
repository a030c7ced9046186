//! A model on disk, opened once: everything that a tool asks of it, whatever the format of its weights.
//!
//! Opening reads the config, maps the weights and takes the digest of both, so that whatever changes from then on is noticed; no
//! weight is loaded before [`Checkpoint::load`], and the tokenizer is read only when it is asked for.
//!
//! ```no_run
//! use model::*;
//! # fn main() -> model::Result<()> {
//! let options = Options { device: device::open("cuda:1")?, dtype: DType::BF16, ..Options::default() };
//! let checkpoint = Checkpoint::open("models/llama".as_ref(), &options)?;
//! let (tokenizer, template) = (checkpoint.tokenizer()?, checkpoint.template()?);
//! let ends = checkpoint.end_tokens(&tokenizer)?;
//! println!("{} of {} layers, {:?}", checkpoint.digest(), checkpoint.config().layer_count(), checkpoint.compute());
//! let decoder = checkpoint.load()?;
//! // … run it, and before the result is published:
//! checkpoint.check_unchanged()?;
//! # Ok(()) }
//! ```

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};

use crate::adapter::{Adapted, Adapter, Untied};
use crate::compute::{Compute, Precision};
use crate::config::Config;
use crate::decoder::Decoder;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::hub;
use crate::quantised::{Dequantised, Scheme};
use crate::safetensors::Safetensors;
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use crate::weights::{Source, Weights};
use crate::wrapper;

const GENERATION: &str = "generation_config.json";

/// How a checkpoint is opened: by default for the CPU in f32.
#[derive(Clone, Debug)]
pub struct Options {
    pub device: Device,
    pub dtype: DType,
    pub precision: Precision,
    pub weights: Weights,
    /// Follow links that leave the model directory.
    pub follow_links: bool,
    /// Refuse a model with another digest.
    pub digest: Option<String>,
    /// Adapters merged into the weights as these are loaded, one after another.
    pub adapters: Vec<PathBuf>,
    /// Take adapters that were made for another model.
    pub other_base: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: DType::F32,
            precision: Precision::Full,
            weights: Weights::Dequantised,
            follow_links: false,
            digest: None,
            adapters: Vec::new(),
            other_base: false,
        }
    }
}

type Stored = Box<dyn Source + Send + Sync>;

/// An opened model.
pub struct Checkpoint {
    directory: Directory,
    config: Config,
    config_text: Vec<u8>,
    source: Stored,
    digest: String,
    precision: Precision,
    soft_prompt: Option<Tensor>,
}

impl Checkpoint {
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let Opened {
            directory,
            config_text,
            mut config,
            decoder_text,
            source,
        } = open(path, options)?;
        let was_tied = config.tied;
        let source = adapt(source, &mut config, path, options)?;
        let digest = digest(&directory, &config_text, &*source, |hasher, bytes| {
            hasher.update_rayon(bytes);
        });
        let config_text = decoder_text.unwrap_or(config_text);
        if let Some(pinned) = options.digest.as_ref().filter(|pinned| **pinned != digest) {
            return Err(Error::file("", format!("has the digest {digest}, pinned is {pinned}")));
        }
        let config_text = match config.tied == was_tied {
            true => config_text,
            false => untied(&config_text)?,
        };
        Ok(Self {
            directory,
            config,
            config_text,
            source,
            digest,
            precision: options.precision,
            soft_prompt: None,
        })
    }

    /// The decoder that is loaded will have the rows of a soft prompt behind its embedding table.
    pub fn take_soft_prompt(&mut self, embeddings: Tensor) {
        self.soft_prompt = Some(embeddings);
    }

    /// How many ids the loaded decoder will know: the vocabulary, and behind it the rows of a soft prompt.
    pub fn id_count(&self) -> usize {
        let rows = self.soft_prompt.as_ref().map_or(0, |rows| rows.dims()[0]);
        self.config.vocab_size + rows
    }

    /// Where its files lie: a trainer copies some of them.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bytes of config.json; of a wrapper's decoder and of dequantised weights what their own would say; where an adapter parted the head from the
    /// embedding, it says so.
    pub fn config_text(&self) -> &[u8] {
        &self.config_text
    }

    /// `blake3:…` over the config, the weight files and the adapters' files, each with its length before it; of a model that is
    /// one file, the file's own.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Refuses a model that was changed underneath: call it before a result is published. It reads the files again, on the
    /// calling thread alone, and so may run beside a computation.
    pub fn check_unchanged(&self) -> Result<()> {
        let config_text = self.directory.read("config.json")?;
        let now = digest(&self.directory, &config_text, &*self.source, |hasher, bytes| {
            hasher.update(bytes);
        });
        match now == self.digest {
            true => Ok(()),
            false => Err(Error::file(
                "",
                format!(
                    "was changed while it was run: its digest was {}, is {now}",
                    self.digest()
                ),
            )),
        }
    }

    /// The stored size of the weights.
    pub fn weight_bytes(&self) -> u64 {
        self.source.files().iter().map(|file| file.len() as u64).sum()
    }

    pub fn compute(&self) -> Compute {
        Compute::new(self.source.device(), self.source.dtype(), self.precision)
    }

    pub fn device(&self) -> &Device {
        self.source.device()
    }

    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(&self.directory)
    }

    /// The tokenizer, if the model has one: token ids run without.
    pub fn tokenizer_if_any(&self) -> Result<Option<Tokenizer>> {
        match Tokenizer::exists(&self.directory)? {
            true => self.tokenizer().map(Some),
            false => Ok(None),
        }
    }

    /// The model's own chat template.
    pub fn template(&self) -> Result<Option<Template>> {
        Template::open(&self.directory)
    }

    /// Each of these ends a completion: those of generation_config.json and config.json, and where both are silent the
    /// tokenizer's.
    pub fn end_tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut ids = self.config.eos.clone();
        if let Some(text) = self.directory.read_optional(GENERATION)? {
            let settings = json::document(&text).map_err(|cause| Error::file(GENERATION, cause))?;
            ids.extend(end_token_ids(settings.get("eos_token_id"))?);
        }
        if ids.is_empty() {
            ids.extend(tokenizer.eos());
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Every parameter's name and stored shape; tensors that do not belong to the architecture are refused.
    pub fn parameters(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let parameters = self.config.parameters();
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        self.source.refuse_unused(&names)?;
        Ok(parameters)
    }

    /// One parameter as it is stored.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.tensor(name, shape)
    }

    /// Reads the weights; tensors that do not belong to the architecture are refused, like those that are missing.
    pub fn load(&self) -> Result<Decoder> {
        let decoder = Decoder::new(self.config.clone(), &*self.source)?;
        Ok(decoder
            .with_precision(self.precision)
            .with_soft_prompt(self.soft_prompt.clone()))
    }
}

/// A model's files and weights.
struct Opened {
    directory: Directory,
    config_text: Vec<u8>,
    config: Config,
    /// The config.json of the decoder alone, where that of the directory says more.
    decoder_text: Option<Vec<u8>>,
    source: Stored,
}

/// What `path` names: a directory, a GGUF file, or a name of the hub.
fn open(path: &Path, options: &Options) -> Result<Opened> {
    let found = hub::find(path, options.follow_links)?;
    let path = found.as_deref().unwrap_or(path);
    // adapters are merged in f32, where their product is exact enough
    let (dtype, device) = match options.adapters.is_empty() {
        true => (options.dtype, &options.device),
        false => (DType::F32, &Device::Cpu),
    };
    if Gguf::is_at(path) {
        let mut source = Gguf::open(path, dtype, device)?;
        if options.weights == Weights::AsStored {
            source = source.keeping_blocks();
        }
        let directory = Directory::made(path, source.stands_for()?);
        let config_text = directory.read("config.json")?;
        return Ok(Opened {
            config: Config::parse(&config_text)?,
            config_text,
            directory,
            decoder_text: None,
            source: Box::new(source),
        });
    }
    if options.weights == Weights::AsStored {
        return Err(Error::file(
            "",
            "is no GGUF file, of which alone weights are multiplied as stored",
        ));
    }
    let directory = Directory::open(path, options.follow_links)?;
    let config_text = directory.read("config.json")?;
    let map = json::document(&config_text).map_err(|cause| Error::Config(cause.to_string()))?;
    let inner = wrapper::text_config(&map)?;
    let is_wrapped = inner.is_some();
    // what the config of the decoder alone would say, its weights dequantised
    let mut own = inner.unwrap_or(map);
    let scheme = Scheme::take(&mut own)?;
    // an impossible config is refused before any weight is looked at
    let mut config = Config::of(&own)?;
    let mut source = Safetensors::open(&directory, dtype, device)?;
    if is_wrapped {
        source = source.text_part()?;
        if !own.contains_key("tie_word_embeddings") {
            config.tied = !source.names().any(|name| name == "lm_head.weight");
            own.insert("tie_word_embeddings".into(), config.tied.into());
        }
    }
    let is_other = is_wrapped || scheme.is_some();
    Ok(Opened {
        directory,
        config_text,
        config,
        decoder_text: is_other.then(|| pretty(&own)).transpose()?,
        source: match scheme {
            None => Box::new(source),
            Some(scheme) => Box::new(Dequantised::new(source, scheme)),
        },
    })
}

/// Lays the adapters over the weights, and unties the head from the embedding where one of them is changed.
fn adapt(mut source: Stored, config: &mut Config, path: &Path, options: &Options) -> Result<Stored> {
    let count = options.adapters.len();
    for (index, at) in options.adapters.iter().enumerate() {
        let place = |cause: Error| Error::Adapter {
            path: at.display().to_string(),
            cause: Box::new(cause),
        };
        let adapter = Adapter::open(at, options.follow_links).map_err(place)?;
        if !options.other_base {
            adapter.check_base(path).map_err(place)?;
        }
        if config.tied && adapter.unties(config) {
            config.tied = false;
            source = Box::new(Untied {
                base: source,
                head: format!("{}.weight", config.names.head),
                embedding: format!("{}.weight", config.names.embedding),
            });
        }
        let (dtype, device) = match index + 1 == count {
            true => (options.dtype, &options.device),
            false => (DType::F32, &Device::Cpu),
        };
        source = Box::new(Adapted::new(source, adapter, config, dtype, device));
    }
    Ok(source)
}

fn untied(config_text: &[u8]) -> Result<Vec<u8>> {
    let mut config = json::document(config_text).map_err(|cause| Error::Config(cause.to_string()))?;
    config.insert("tie_word_embeddings".into(), false.into());
    pretty(&config)
}

fn pretty(config: &Map<String, Value>) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(config).map_err(|cause| Error::Config(cause.to_string()))
}

fn digest(
    directory: &Directory,
    config_text: &[u8],
    source: &dyn Source,
    update: impl Fn(&mut blake3::Hasher, &[u8]),
) -> String {
    let mut hasher = blake3::Hasher::new();
    match source.files().as_slice() {
        [one] if directory.is_made() => update(&mut hasher, one),
        files => {
            for bytes in std::iter::once(config_text).chain(files.iter().copied()) {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                update(&mut hasher, bytes);
            }
        }
    }
    format!("blake3:{}", hasher.finalize().to_hex())
}

/// One id, a list of them, or none.
fn end_token_ids(value: Option<&Value>) -> Result<Vec<u32>> {
    let values = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::file(GENERATION, format!("eos_token_id = {value} is no token id")))
    };
    values.iter().map(id).collect()
}

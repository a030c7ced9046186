//! Low-rank adapters in PEFT's format, laid over a model as it is loaded: a source of weights over another.

mod settings;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::config::Config;
use crate::directory::Directory;
use crate::error::{Error, Result, shown};
use crate::hub;
use crate::ops;
use crate::safetensors::Safetensors;
use crate::weights::Source;
use crate::wrapper;
use settings::Settings;

const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// An opened adapter.
pub struct Adapter {
    settings: Settings,
    settings_text: Vec<u8>,
    weights: Safetensors,
    /// By the tensor of the model that they change.
    parts: HashMap<String, Parts>,
}

/// The names of the adapter's tensors that change one of the model's.
#[derive(Default)]
struct Parts {
    down: Option<String>,
    up: Option<String>,
    magnitude: Option<String>,
    /// The factors of an embedding, which multiply the other way round.
    is_embedding: bool,
    /// A tensor that takes the place of the model's.
    saved: Option<String>,
}

impl Adapter {
    /// Opens the adapter at `path`, a directory or a name of the hub; reads no weight.
    pub fn open(path: &Path, follow_links: bool) -> Result<Self> {
        let found = hub::find(path, follow_links)?;
        let directory = Directory::any(found.as_deref().unwrap_or(path), follow_links)?;
        let settings_text = directory.read(settings::FILE)?;
        let settings = Settings::parse(&settings_text)?;
        let weights = Safetensors::of(&directory, vec![WEIGHTS.to_owned()], DType::F32, &Device::Cpu)?;
        let mut parts: HashMap<String, Parts> = HashMap::new();
        for name in weights.names() {
            let (target, part) = Part::of(name)?;
            parts.entry(target).or_default().note(part, name)?;
        }
        Ok(Self {
            settings,
            settings_text,
            weights,
            parts,
        })
    }

    /// Refuses an adapter that says it was made for another model than the one at `path`.
    pub fn check_base(&self, path: &Path) -> Result<()> {
        let base = &self.settings.base;
        match base.is_empty() || last_name(Path::new(base)) == last_name(path) {
            true => Ok(()),
            false => Err(Error::file(
                settings::FILE,
                format!(
                    "says that it was made for {}; --other-base lays it over this model all the same",
                    shown(base)
                ),
            )),
        }
    }

    /// Whether it changes the embedding or the output head, so that these are one no more.
    pub fn unties(&self, config: &Config) -> bool {
        let names = [config.names.embedding, config.names.head];
        names
            .iter()
            .any(|name| self.parts.contains_key(&format!("{name}.weight")))
    }
}

/// What a model is called, wherever it lies.
fn last_name(path: &Path) -> Option<String> {
    let real = path.canonicalize();
    let path = real.as_deref().unwrap_or(path);
    let cached = path.components().find_map(|part| {
        let name = part.as_os_str().to_str()?.strip_prefix("models--")?;
        Some(name.rsplit("--").next().unwrap_or(name).to_owned())
    });
    let last = path.file_name()?.to_string_lossy();
    let last = last.split('@').next().unwrap_or_default();
    Some(cached.unwrap_or_else(|| last.to_owned()))
}

/// What a tensor of the file is.
enum Part {
    Down { is_embedding: bool },
    Up { is_embedding: bool },
    Magnitude,
    Saved,
}

impl Part {
    /// The model's tensor that one of the file changes, and how.
    fn of(name: &str) -> Result<(String, Self)> {
        let bare = name.strip_prefix(PREFIX).unwrap_or(name);
        let factors = [
            (".lora_A.weight", Self::Down { is_embedding: false }),
            (".lora_B.weight", Self::Up { is_embedding: false }),
            (".lora_embedding_A", Self::Down { is_embedding: true }),
            (".lora_embedding_B", Self::Up { is_embedding: true }),
            (".lora_magnitude_vector.weight", Self::Magnitude),
            (".lora_magnitude_vector", Self::Magnitude),
        ];
        for (suffix, part) in factors {
            if let Some(module) = bare.strip_suffix(suffix) {
                return Ok((target_of(&format!("{module}.weight")), part));
            }
        }
        if bare.contains("lora_") {
            return Err(Error::tensor(name, "is of a kind that is not read"));
        }
        let target = bare.replace(".modules_to_save.", ".").replace(".base_layer.", ".");
        Ok((target_of(&target), Self::Saved))
    }
}

/// The decoder's name of a tensor that an adapter may name as one of a wrapper's.
fn target_of(name: &str) -> String {
    wrapper::text_name(name).unwrap_or_else(|| name.to_owned())
}

impl Parts {
    fn note(&mut self, part: Part, name: &str) -> Result<()> {
        let place = match part {
            Part::Down { is_embedding } => {
                self.is_embedding = is_embedding;
                &mut self.down
            }
            Part::Up { is_embedding } => {
                self.is_embedding = is_embedding;
                &mut self.up
            }
            Part::Magnitude => &mut self.magnitude,
            Part::Saved => &mut self.saved,
        };
        match place.replace(name.to_owned()) {
            None => Ok(()),
            Some(other) => Err(Error::tensor(name, format!("stands for the same as {other}"))),
        }
    }
}

/// A model with an adapter merged into it.
pub struct Adapted {
    /// Gives f32 on the CPU.
    base: Box<dyn Source + Send + Sync>,
    adapter: Adapter,
    /// The blocks whose matrices are stored (in, out), where the family does so.
    transposed: Option<&'static str>,
    dtype: DType,
    device: Device,
}

impl Adapted {
    pub fn new(
        base: Box<dyn Source + Send + Sync>,
        adapter: Adapter,
        config: &Config,
        dtype: DType,
        device: &Device,
    ) -> Self {
        Self {
            base,
            adapter,
            transposed: config.names.transposed.then_some(config.names.blocks),
            dtype,
            device: device.clone(),
        }
    }

    /// A tensor with the product of the factors added, whose rows then may be given their lengths.
    fn merged(&self, name: &str, parts: &Parts, stored: Tensor) -> Result<Tensor> {
        let lies_across = parts.is_embedding || self.transposed.is_some_and(|blocks| name.starts_with(blocks));
        let weight = if lies_across { stored.t()? } else { stored }; // (out, in)
        let (output, input) = weight
            .dims2()
            .map_err(|_| Error::tensor(name, "is no matrix, but has factors"))?;
        let rank = self.adapter.settings.rank(module(name));
        let factor = |part: &Option<String>, which, shape: &[usize]| {
            let name = part
                .as_ref()
                .ok_or_else(|| Error::tensor(name, format!("has no factor {which} in the adapter")))?;
            self.adapter.weights.tensor(name, shape)
        };
        let adapter = ops::Adapter {
            down: factor(&parts.down, "A", &[rank, input])?,
            up: factor(&parts.up, "B", &[output, rank])?,
            scale: self.adapter.settings.scale(module(name)),
        };
        let mut merged = adapter.merged(&weight)?;
        if self.adapter.settings.decomposes {
            if parts.is_embedding {
                return Err(Error::tensor(name, "is a decomposed embedding, which is not read"));
            }
            let lengths = factor(&parts.magnitude, "of magnitudes", &[output])?;
            let norms = merged.sqr()?.sum(1)?.sqrt()?;
            merged = merged.broadcast_mul(&(lengths / norms)?.unsqueeze(1)?)?;
        }
        let merged = if lies_across { merged.t()? } else { merged };
        Ok(merged.contiguous()?)
    }
}

/// The module of a weight.
fn module(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

impl Source for Adapted {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let parts = self.adapter.parts.get(name);
        let mut tensor = match parts.and_then(|parts| parts.saved.as_ref()) {
            Some(saved) => self.adapter.weights.tensor(saved, shape)?,
            None => self.base.tensor(name, shape)?,
        };
        if let Some(parts) = parts.filter(|parts| parts.down.is_some() || parts.up.is_some()) {
            tensor = self.merged(name, parts, tensor)?;
        }
        let tensor = tensor.to_dtype(self.dtype)?;
        match tensor
            .to_dtype(DType::F32)?
            .abs()?
            .sum_all()?
            .to_scalar::<f32>()?
            .is_finite()
        {
            true => Ok(tensor.to_device(&self.device)?),
            false => Err(Error::tensor(
                name,
                format!("with its adapter is beyond {:?}", self.dtype),
            )),
        }
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        let foreign = self.adapter.parts.keys().filter(|name| !asked.contains(&name.as_str()));
        match foreign.min() {
            Some(name) => Err(Error::tensor(
                name,
                "is changed by the adapter, and the model has no such tensor",
            )),
            None => self.base.refuse_unused(asked),
        }
    }

    fn files(&self) -> Vec<&[u8]> {
        let mut files = self.base.files();
        files.push(&self.adapter.settings_text);
        files.extend(self.adapter.weights.files());
        files
    }
}

/// A model whose output head is a copy of its embedding, for adapters that change one of the two.
pub struct Untied {
    pub base: Box<dyn Source + Send + Sync>,
    pub head: String,
    pub embedding: String,
}

impl Source for Untied {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let is_head = name == self.head;
        self.base.tensor(if is_head { &self.embedding } else { name }, shape)
    }

    fn dtype(&self) -> DType {
        self.base.dtype()
    }

    fn device(&self) -> &Device {
        self.base.device()
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        self.base.refuse_unused(asked)
    }

    fn files(&self) -> Vec<&[u8]> {
        self.base.files()
    }
}

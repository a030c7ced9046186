//! The families of decoders, one file each: what its checkpoints call their tensors, under which keys its config.json
//! says what, what transformers takes where a key is absent, and what is computed otherwise than by Llama.
//!
//! A key that is neither read here nor known to leave the mathematics alone is refused by name: a wrong model that runs
//! is worse than none.

mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod glm4;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod keys;
mod llama;
mod llama4;
mod ministral3;
mod mistral;
mod mixtral;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope;
mod smollm3;
#[cfg(test)]
mod tests;
mod windows;

use serde_json::{Map, Value};

use crate::config::{Config, Layer, Norm, QkNorm};
use crate::error::{Error, Result};
use crate::names::Names;
use crate::ops::{Activation, RopePairs};

use keys::{Keys, LAYERS_MAX, POSITIONS_MAX, SIZE_MAX};

/// The families this crate computes.
const ALL: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    olmo::FAMILY,
    olmo2::FAMILY,
    phi3::FAMILY,
    olmo3::FAMILY,
    smollm3::FAMILY,
    granite::FAMILY,
    glm::FAMILY,
    glm4::FAMILY,
    ministral3::FAMILY,
    phi::FAMILY,
    gptj::FAMILY,
    opt::FAMILY,
    falcon::FAMILY,
    mixtral::FAMILY,
    qwen3_moe::FAMILY,
    olmoe::FAMILY,
    gpt_oss::FAMILY,
    llama4::FAMILY,
];

struct Family {
    /// The `model_type` of config.json, and the word in reports.
    name: &'static str,
    names: Names,
    keys: Spelling,
    /// Reads the keys that not every family has, and sets what is computed otherwise than by default.
    finish: fn(&mut Config, &Keys) -> Result<()>,
}

/// The keys of what every decoder has, and what transformers takes where one is absent.
#[derive(Clone, Copy)]
struct Spelling {
    hidden_size: &'static str,
    layer_count: &'static str,
    head_count: &'static str,
    /// Its key, and how many there are without it; by default, and where the key says null, as many as query heads.
    kv_head_count: Option<(&'static str, Option<usize>)>,
    /// Where `head_dim` is absent; otherwise a head's share of the hidden size.
    head_dim: Option<usize>,
    /// May be absent where a multiple of the hidden size is given.
    mlp_size: (&'static str, Option<usize>),
    position_count: (&'static str, usize),
    norm_eps: (&'static str, f64),
    /// The first key that is present decides.
    activation: (&'static [&'static str], Activation),
    /// Whether `attention_bias` is a key of the family, and its default.
    attention_bias: Option<bool>,
    /// For families with one rope in all layers.
    rope: Option<rope::Defaults>,
    tied: bool,
}

impl Config {
    /// Reads the text of a config.json.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let map = json::document(text).map_err(|fault| Error::Config(fault.to_string()))?;
        Self::of(&map)
    }

    /// Reads a config.json that was parsed.
    pub(crate) fn of(map: &Map<String, Value>) -> Result<Self> {
        let keys = Keys::new(map);
        if let Some(value) = keys.get("quantization_config") {
            let shown = keys::short(value);
            return Err(Error::Config(format!(
                "quantization_config = {shown}: a quantised model is read from its directory"
            )));
        }
        let name = keys.required_text("model_type")?;
        let family = ALL.iter().find(|family| family.name == name).ok_or_else(|| {
            let known: Vec<_> = Self::families().collect();
            Error::Config(format!(
                "model_type {name:?} is not supported (supported: {})",
                known.join(", ")
            ))
        })?;
        let mut config = family.read(&keys)?;
        (family.finish)(&mut config, &keys)?;
        keys.refuse_unread()?;
        config.check()?;
        Ok(config)
    }

    /// The names of the families this crate computes.
    pub fn families() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|family| family.name)
    }
}

impl Family {
    /// What the common keys say of a decoder with one rope, full attention and RMS norms.
    fn read(&self, keys: &Keys) -> Result<Config> {
        let spelt = &self.keys;
        let hidden_size = keys.required_size(spelt.hidden_size, SIZE_MAX)?;
        let head_count = keys.required_size(spelt.head_count, SIZE_MAX)?;
        let layer = Layer {
            window: None,
            rope: spelt.rope.map(|_| 0),
            dense: None,
        };
        let head_dim = match keys.size("head_dim")?.or(spelt.head_dim) {
            Some(head_dim) => head_dim,
            None => even_share(spelt.hidden_size, hidden_size, head_count)?,
        };
        let kv_head_count = match spelt.kv_head_count {
            Some((key, default)) => match keys.has(key) {
                true => keys.size(key)?.unwrap_or(head_count),
                false => default.unwrap_or(head_count),
            },
            None => head_count,
        };
        let attention_bias = match spelt.attention_bias {
            Some(default) => keys.flag("attention_bias", default)?,
            None => false,
        };
        let mlp_size = match spelt.mlp_size {
            (key, None) => keys.required_size(key, SIZE_MAX)?,
            (key, Some(multiple)) => keys.size(key)?.unwrap_or(multiple * hidden_size),
        };
        let mut config = Config {
            family: self.name,
            names: self.names,
            hidden_size,
            head_count,
            kv_head_count,
            head_dim,
            mlp_size,
            experts: None,
            vocab_size: keys.required_size("vocab_size", SIZE_MAX)?,
            position_offset: 0,
            position_count: keys
                .size_at_most(spelt.position_count.0, POSITIONS_MAX)?
                .unwrap_or(spelt.position_count.1),
            norm: Norm::Rms { offset: 0.0 },
            norm_eps: keys.positive(spelt.norm_eps.0)?.unwrap_or(spelt.norm_eps.1),
            qk_norm: QkNorm::None,
            parallel: false,
            activation: keys.activation(spelt.activation.0, spelt.activation.1)?,
            qkv_bias: attention_bias,
            attn_out_bias: attention_bias,
            mlp_bias: false,
            attn_scale: (head_dim as f64).powf(-0.5),
            attn_softcap: None,
            sinks: false,
            query_growth: None,
            qkv_clip: None,
            logit_softcap: None,
            logit_divisor: None,
            head_bias: false,
            embed_scale: None,
            residual_scale: None,
            ropes: Vec::new(),
            rope_pairs: RopePairs::Half,
            layers: vec![layer; keys.required_size(spelt.layer_count, LAYERS_MAX)?],
            tied: keys.flag("tie_word_embeddings", spelt.tied)?,
            bos: keys.token_id("bos_token_id")?,
            eos: keys.token_ids("eos_token_id")?,
        };
        if let Some(defaults) = spelt.rope {
            let rope = rope::read(&mut config, keys, defaults)?;
            config.ropes.push(rope);
        }
        Ok(config)
    }
}

fn even_share(key: &str, size: usize, heads: usize) -> Result<usize> {
    if size.is_multiple_of(heads) {
        return Ok(size / heads);
    }
    Err(Error::Config(format!(
        "{key} = {size} is not a multiple of its {heads} heads"
    )))
}

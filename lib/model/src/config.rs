//! `config.json` → one description of the decoder, the same words for every family.
//!
//! Transformers' defaults are applied where a key is absent, both of its spellings are read (`rope_theta` and
//! `rope_scaling`, or `rope_parameters`; `torch_dtype` or `dtype`), and a key that is neither computed here nor known
//! to leave the mathematics alone is refused by name: a wrong model that runs is worse than none.

use std::cell::RefCell;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ops::Activation;

/// The families this crate computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gpt2,
    GptNeoX,
    Gemma,
    Gemma2,
    Gemma3,
    Olmo,
    Olmo2,
    Phi3,
}

impl Family {
    /// The `model_type` of config.json, and the word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gpt2 => "gpt2",
            Self::GptNeoX => "gpt_neox",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
            Self::Olmo => "olmo",
            Self::Olmo2 => "olmo2",
            Self::Phi3 => "phi3",
        }
    }

    pub const ALL: [Self; 12] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gpt2,
        Self::GptNeoX,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::Olmo,
        Self::Olmo2,
        Self::Phi3,
    ];
}

/// How a normalisation is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square; `offset` is added to the stored weight (1 for Gemma).
    Rms { offset: f64 },
    /// Mean and variance, with weight and bias.
    Layer,
    /// Mean and variance, without parameters (OLMo).
    Bare,
}

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Before attention and before the MLP.
    Pre,
    /// After each, before the addition to the residual (OLMo 2).
    Post,
    /// Before and after each (Gemma 2, 3).
    Both,
}

/// What q and k are normalised over before rope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Each head by itself (Qwen3, Gemma 3).
    Head,
    /// The whole projection (OLMo 2).
    Full,
}

/// Rotary positions: frequencies `theta^(-2i/dims)` for i < dims/2, then scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// How many of a head's dimensions rotate.
    pub dims: usize,
    pub scaling: RopeScaling,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_positions: usize,
    },
    /// Only the short factors are computed, so `position_count` is the pretrained length.
    LongRope {
        short_factor: Vec<f64>,
        attention_factor: f64,
    },
}

/// One decoder, whatever its family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub family: Family,
    pub hidden_size: usize,
    pub layer_count: usize,
    pub head_count: usize,
    pub kv_head_count: usize,
    pub head_dim: usize,
    pub mlp_size: usize,
    pub vocab_size: usize,
    /// The longest sequence.
    pub position_count: usize,
    pub norm: Norm,
    pub norm_eps: f64,
    pub placement: Placement,
    pub qk_norm: QkNorm,
    /// Attention and MLP both read the block's input (`use_parallel_residual`).
    pub parallel: bool,
    pub activation: Activation,
    /// gate, up and down; otherwise up and down alone.
    pub gated: bool,
    pub qkv_bias: bool,
    pub attn_out_bias: bool,
    pub mlp_bias: bool,
    /// Scores are multiplied by this.
    pub attn_scale: f64,
    pub attn_softcap: Option<f64>,
    /// q, k and v are clamped to ±this (OLMo).
    pub qkv_clip: Option<f64>,
    pub logit_softcap: Option<f64>,
    /// Embeddings are multiplied by this (Gemma).
    pub embed_scale: Option<f64>,
    /// Absent where positions are learned (GPT-2).
    pub rope: Option<Rope>,
    /// The rope of sliding-window layers where it differs (Gemma 3).
    pub local_rope: Option<Rope>,
    /// Per layer: the attention window, if it slides.
    pub windows: Vec<Option<usize>>,
    /// The head is the embedding.
    pub tied: bool,
    pub bos: Option<u32>,
    /// Any of these ends a generation.
    pub eos: Vec<u32>,
}

/// Keys that say nothing about the forward pass.
const SILENT_KEYS: &[&str] = &[
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "decoder_start_token_id",
    "initializer_range",
    "attention_dropout",
    "hidden_dropout",
    "classifier_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "embedding_dropout",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "pretraining_tp",
    "is_llama_config",
    "gradient_checkpointing",
    "max_window_layers",
    "cache_implementation",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "tokenizer_class",
    "finetuning_task",
    "chunk_size_feed_forward",
    "is_decoder",
    "n_ctx",
    "reorder_and_upcast_attn",
    "auto_map",
    "attn_implementation",
    "unsloth_version",
    "unsloth_fixed",
    "mlp_dropout",
    "prefix",
    "generation_config",
    "vocab_type",
];

/// Reads keys one by one, remembering which were read.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<HashSet<String>>,
}

// BOUND: every size is checked here before anything is multiplied or allocated with it.
const SIZE_MAX: usize = 1 << 22;
const LAYERS_MAX: usize = 1 << 10;
const POSITIONS_MAX: usize = 1 << 26;

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn size_at_most(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(wrong(key, value, &format!("an integer from 1 to {most}"))),
        }
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        self.size_at_most(key, SIZE_MAX)
    }

    fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?
            .ok_or_else(|| Error::Config(format!("{key} is missing")))
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| positive(key, value)).transpose()
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(key, other, "true or false")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, other, "a string")),
        }
    }

    /// A setting this crate computes in one way only.
    fn must_be(&self, key: &str, only: bool) -> Result<()> {
        match self.flag(key, only)? == only {
            true => Ok(()),
            false => Err(Error::Config(format!("{key} = {} is not computed here", !only))),
        }
    }

    fn refuse_unread(&self) -> Result<()> {
        let read = self.read.borrow();
        let silent = |value: &Value| {
            value.is_null()
                || value == &Value::Bool(false)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
        };
        for (key, value) in self.map {
            if key.starts_with('_') || SILENT_KEYS.contains(&key.as_str()) || read.contains(key) || silent(value) {
                continue;
            }
            let shown = short(value);
            return Err(Error::Config(format!(
                "{key} = {shown} is not known here and may change the result"
            )));
        }
        Ok(())
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    Error::Config(format!("{key} = {}, expected {expected}", short(value)))
}

fn positive(key: &str, value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(wrong(key, value, "a number above 0")),
    }
}

impl Config {
    /// Reads the text of a config.json.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let map = json::document(text).map_err(|fault| Error::Config(fault.to_string()))?;
        Self::from_map(&map)
    }

    fn from_map(map: &Map<String, Value>) -> Result<Self> {
        let keys = Keys {
            map,
            read: RefCell::default(),
        };
        if let Some(value) = keys.get("quantization_config") {
            return Err(Error::Config(format!(
                "quantization_config = {}: quantised checkpoints are not read",
                short(value)
            )));
        }
        let name = keys
            .text("model_type")?
            .ok_or_else(|| Error::Config("model_type is missing".into()))?;
        let Some(family) = Family::ALL.into_iter().find(|family| family.name() == name) else {
            let known: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
            return Err(Error::Config(format!(
                "model_type {name:?} is not supported (supported: {})",
                known.join(", ")
            )));
        };
        let config = match family {
            Family::Gpt2 => gpt2(&keys)?,
            Family::GptNeoX => gpt_neox(&keys)?,
            _ => llama_like(&keys, family)?,
        };
        keys.must_be("is_encoder_decoder", false)?;
        keys.must_be("add_cross_attention", false)?;
        keys.must_be("rope_interleaved", false)?;
        keys.must_be("use_bidirectional_attention", false)?;
        keys.refuse_unread()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |cause: String| Err(Error::Config(cause));
        if !self.head_count.is_multiple_of(self.kv_head_count) {
            return refuse(format!(
                "num_attention_heads = {} is not a multiple of num_key_value_heads = {}",
                self.head_count, self.kv_head_count
            ));
        }
        for rope in self.rope.iter().chain(&self.local_rope) {
            if rope.dims == 0 || rope.dims % 2 != 0 || rope.dims > self.head_dim {
                return refuse(format!("rope over {} of {} dimensions", rope.dims, self.head_dim));
            }
        }
        for id in self.bos.iter().chain(&self.eos) {
            if *id as usize >= self.vocab_size {
                return refuse(format!("token id {id} is not below vocab_size = {}", self.vocab_size));
            }
        }
        Ok(())
    }

    /// Width of the concatenated query heads.
    pub fn query_size(&self) -> usize {
        self.head_count * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn kv_size(&self) -> usize {
        self.kv_head_count * self.head_dim
    }
}

/// Llama and its relatives: rotary positions, RMS norms (OLMo: bare layer norms), gated MLP.
fn llama_like(keys: &Keys, family: Family) -> Result<Config> {
    use Family::{Gemma, Gemma2, Gemma3, Mistral, Olmo, Olmo2, Phi3, Qwen2, Qwen3};
    let gemma = matches!(family, Gemma | Gemma2 | Gemma3);
    let hidden_size = keys.required_size("hidden_size")?;
    let head_count = keys.required_size("num_attention_heads")?;
    let layer_count = keys
        .size_at_most("num_hidden_layers", LAYERS_MAX)?
        .ok_or_else(|| Error::Config("num_hidden_layers is missing".into()))?;
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if gemma => 256,
        None if family == Qwen3 => 128,
        None => even_share("hidden_size", hidden_size, head_count)?,
    };
    let kv_head_count = keys.size("num_key_value_heads")?.unwrap_or(head_count);
    let mut position_count = keys
        .size_at_most("max_position_embeddings", POSITIONS_MAX)?
        .unwrap_or(match family {
            Mistral => 131_072,
            Qwen2 | Qwen3 => 32_768,
            Gemma | Gemma2 => 8_192,
            Gemma3 => 131_072,
            Phi3 => 4_096,
            _ => 2_048,
        });
    let dims = (head_dim as f64 * rotary_share(keys, 1.0)?) as usize;
    let (rope, local_rope) = ropes(keys, family, dims, &mut position_count)?;

    let attention_bias = keys.flag("attention_bias", false)?;
    let query_scalar = match family {
        Gemma2 | Gemma3 => keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0),
        _ => head_dim as f64,
    };
    let eps = match family {
        Olmo => 1e-5,
        Olmo2 | Phi3 => keys.positive("rms_norm_eps")?.unwrap_or(1e-5),
        _ => keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
    };
    let softcap = |key, default| -> Result<Option<f64>> {
        match family {
            // absent means the default, null means none
            Gemma2 if !keys.map.contains_key(key) => Ok(Some(default)),
            Gemma2 | Gemma3 => keys.positive(key),
            _ => Ok(None),
        }
    };
    Ok(Config {
        family,
        hidden_size,
        layer_count,
        head_count,
        kv_head_count,
        head_dim,
        mlp_size: keys.required_size("intermediate_size")?,
        vocab_size: keys.required_size("vocab_size")?,
        position_count,
        norm: match family {
            Olmo => Norm::Bare,
            _ => Norm::Rms {
                offset: if gemma { 1.0 } else { 0.0 },
            },
        },
        norm_eps: eps,
        placement: match family {
            Olmo2 => Placement::Post,
            Gemma2 | Gemma3 => Placement::Both,
            _ => Placement::Pre,
        },
        qk_norm: match family {
            Qwen3 | Gemma3 => QkNorm::Head,
            Olmo2 => QkNorm::Full,
            _ => QkNorm::None,
        },
        parallel: false,
        activation: match keys.text("hidden_activation")? {
            Some(name) => {
                keys.get("hidden_act");
                activation("hidden_activation", name)?
            }
            None => match keys.text("hidden_act")? {
                Some(name) => activation("hidden_act", name)?,
                None if gemma => Activation::GeluTanh,
                None => Activation::Silu,
            },
        },
        gated: true,
        qkv_bias: family == Qwen2 || attention_bias,
        attn_out_bias: family != Qwen2 && attention_bias,
        mlp_bias: match family {
            Family::Llama => keys.flag("mlp_bias", false)?,
            _ => false,
        },
        attn_scale: query_scalar.powf(-0.5),
        attn_softcap: softcap("attn_logit_softcapping", 50.0)?,
        qkv_clip: match family {
            Olmo => keys.positive("clip_qkv")?,
            _ => None,
        },
        logit_softcap: softcap("final_logit_softcapping", 30.0)?,
        embed_scale: gemma.then(|| (hidden_size as f64).sqrt()),
        rope: Some(rope),
        local_rope,
        windows: windows(keys, family, layer_count)?,
        tied: keys.flag("tie_word_embeddings", gemma)?,
        bos: bos(keys)?,
        eos: eos(keys)?,
    })
}

fn gpt2(keys: &Keys) -> Result<Config> {
    let hidden_size = keys.required_size("n_embd")?;
    let head_count = keys.required_size("n_head")?;
    let layer_count = keys
        .size_at_most("n_layer", LAYERS_MAX)?
        .ok_or_else(|| Error::Config("n_layer is missing".into()))?;
    let head_dim = even_share("n_embd", hidden_size, head_count)?;
    keys.must_be("scale_attn_by_inverse_layer_idx", false)?;
    let scaled = keys.flag("scale_attn_weights", true)?;
    Ok(Config {
        family: Family::Gpt2,
        hidden_size,
        layer_count,
        head_count,
        kv_head_count: head_count,
        head_dim,
        mlp_size: keys.size("n_inner")?.unwrap_or(4 * hidden_size),
        vocab_size: keys.required_size("vocab_size")?,
        position_count: keys.size("n_positions")?.unwrap_or(1024),
        norm: Norm::Layer,
        norm_eps: keys.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        placement: Placement::Pre,
        qk_norm: QkNorm::None,
        parallel: false,
        activation: activation(
            "activation_function",
            keys.text("activation_function")?.unwrap_or("gelu_new"),
        )?,
        gated: false,
        qkv_bias: true,
        attn_out_bias: true,
        mlp_bias: true,
        attn_scale: if scaled { (head_dim as f64).powf(-0.5) } else { 1.0 },
        attn_softcap: None,
        qkv_clip: None,
        logit_softcap: None,
        embed_scale: None,
        rope: None,
        local_rope: None,
        windows: vec![None; layer_count],
        tied: keys.flag("tie_word_embeddings", true)?,
        bos: bos(keys)?,
        eos: eos(keys)?,
    })
}

fn gpt_neox(keys: &Keys) -> Result<Config> {
    let hidden_size = keys.required_size("hidden_size")?;
    let head_count = keys.required_size("num_attention_heads")?;
    let layer_count = keys
        .size_at_most("num_hidden_layers", LAYERS_MAX)?
        .ok_or_else(|| Error::Config("num_hidden_layers is missing".into()))?;
    let head_dim = even_share("hidden_size", hidden_size, head_count)?;
    let mut position_count = keys
        .size_at_most("max_position_embeddings", POSITIONS_MAX)?
        .unwrap_or(2048);
    let dims = (head_dim as f64 * rotary_share(keys, 0.25)?) as usize;
    let (rope, _) = ropes(keys, Family::GptNeoX, dims, &mut position_count)?;
    let bias = keys.flag("attention_bias", true)?;
    Ok(Config {
        family: Family::GptNeoX,
        hidden_size,
        layer_count,
        head_count,
        kv_head_count: head_count,
        head_dim,
        mlp_size: keys.required_size("intermediate_size")?,
        vocab_size: keys.required_size("vocab_size")?,
        position_count,
        norm: Norm::Layer,
        norm_eps: keys.positive("layer_norm_eps")?.unwrap_or(1e-5),
        placement: Placement::Pre,
        qk_norm: QkNorm::None,
        parallel: keys.flag("use_parallel_residual", true)?,
        activation: activation("hidden_act", keys.text("hidden_act")?.unwrap_or("gelu"))?,
        gated: false,
        qkv_bias: bias,
        attn_out_bias: bias,
        mlp_bias: true,
        attn_scale: (head_dim as f64).powf(-0.5),
        attn_softcap: None,
        qkv_clip: None,
        logit_softcap: None,
        embed_scale: None,
        rope: Some(rope),
        local_rope: None,
        windows: vec![None; layer_count],
        tied: keys.flag("tie_word_embeddings", false)?,
        bos: bos(keys)?,
        eos: eos(keys)?,
    })
}

fn even_share(key: &str, size: usize, heads: usize) -> Result<usize> {
    match size % heads {
        0 => Ok(size / heads),
        _ => Err(Error::Config(format!(
            "{key} = {size} is not a multiple of its {heads} heads"
        ))),
    }
}

fn activation(key: &str, name: &str) -> Result<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::Config(format!("{key} = {other:?} is not computed here"))),
    }
}

fn bos(keys: &Keys) -> Result<Option<u32>> {
    keys.get("bos_token_id")
        .map(|value| token_id("bos_token_id", value))
        .transpose()
}

/// `eos_token_id` may be one id or a list.
fn eos(keys: &Keys) -> Result<Vec<u32>> {
    match keys.get("eos_token_id") {
        None => Ok(Vec::new()),
        Some(value) => eos_ids(value),
    }
}

/// The ids of an `eos_token_id` value, of config.json or generation_config.json.
pub(crate) fn eos_ids(value: &Value) -> Result<Vec<u32>> {
    match value {
        Value::Array(list) => list.iter().map(|value| token_id("eos_token_id", value)).collect(),
        one => Ok(vec![token_id("eos_token_id", one)?]),
    }
}

fn token_id(key: &str, value: &Value) -> Result<u32> {
    value
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| wrong(key, value, "a token id"))
}

/// The share of a head's dimensions that rotate, wherever the config says it.
fn rotary_share(keys: &Keys, default: f64) -> Result<f64> {
    let nested = match keys
        .map
        .get("rope_parameters")
        .and_then(|rope| rope.get("partial_rotary_factor"))
    {
        Some(value) => Some(positive("partial_rotary_factor", value)?),
        None => None,
    };
    let share = nested
        .or(keys.positive("partial_rotary_factor")?)
        .or(keys.positive("rotary_pct")?)
        .unwrap_or(default);
    keys.get("rotary_pct");
    keys.get("partial_rotary_factor");
    match share <= 1.0 {
        true => Ok(share),
        false => Err(Error::Config(format!("partial_rotary_factor = {share} is above 1"))),
    }
}

/// The rope of all layers, and that of sliding layers where it differs.
fn ropes(keys: &Keys, family: Family, dims: usize, position_count: &mut usize) -> Result<(Rope, Option<Rope>)> {
    let default_theta = match family {
        Family::Gemma3 => 1_000_000.0,
        _ => 10_000.0,
    };
    let theta = match keys.positive("rope_theta")? {
        Some(theta) => theta,
        None => keys.positive("rotary_emb_base")?.unwrap_or(default_theta),
    };
    keys.positive("rotary_emb_base")?;
    let original = keys.size_at_most("original_max_position_embeddings", POSITIONS_MAX)?;
    let local_theta = keys.positive("rope_local_base_freq")?.unwrap_or(10_000.0);

    let object = |key: &str, value: &'_ Value| match value {
        Value::Object(map) => Ok(map.clone()),
        other => Err(wrong(key, other, "an object")),
    };
    let legacy = keys
        .get("rope_scaling")
        .map(|value| object("rope_scaling", value))
        .transpose()?;
    let modern = keys
        .get("rope_parameters")
        .map(|value| object("rope_parameters", value))
        .transpose()?;
    let one = |map: Option<&Map<String, Value>>, theta: f64, positions: &mut usize| -> Result<Rope> {
        match map {
            None => Ok(Rope {
                theta,
                dims,
                scaling: RopeScaling::None,
            }),
            Some(map) => rope(map, theta, dims, original, positions),
        }
    };
    if family == Family::Gemma3 {
        if let Some(map) = &modern {
            let part = |key: &str| map.get(key).and_then(Value::as_object);
            let (Some(full), Some(sliding)) = (part("full_attention"), part("sliding_attention")) else {
                return Err(Error::Config(
                    "rope_parameters lacks full_attention or sliding_attention".into(),
                ));
            };
            return Ok((
                one(Some(full), theta, position_count)?,
                Some(one(Some(sliding), local_theta, position_count)?),
            ));
        }
        let local = Rope {
            theta: local_theta,
            dims,
            scaling: RopeScaling::None,
        };
        return Ok((one(legacy.as_ref(), theta, position_count)?, Some(local)));
    }
    Ok((one(modern.as_ref().or(legacy.as_ref()), theta, position_count)?, None))
}

fn rope(
    map: &Map<String, Value>,
    theta: f64,
    dims: usize,
    original: Option<usize>,
    position_count: &mut usize,
) -> Result<Rope> {
    let keys = Keys {
        map,
        read: RefCell::default(),
    };
    let theta = keys.positive("rope_theta")?.unwrap_or(theta);
    keys.get("partial_rotary_factor"); // applied in `dims`
    let kind = match keys.text("rope_type")? {
        Some(kind) => {
            keys.get("type");
            kind
        }
        None => keys.text("type")?.unwrap_or("default"),
    };
    let needed = |key: &str| {
        keys.positive(key)?
            .ok_or_else(|| Error::Config(format!("rope scaling {kind:?} lacks {key}")))
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: needed("factor")?,
        },
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_positions: keys
                    .size_at_most("original_max_position_embeddings", POSITIONS_MAX)?
                    .or(original)
                    .ok_or_else(|| Error::Config("rope scaling lacks original_max_position_embeddings".into()))?,
            };
            if let RopeScaling::Llama3 {
                low_freq_factor,
                high_freq_factor,
                ..
            } = scaling
                && low_freq_factor >= high_freq_factor
            {
                return Err(Error::Config(format!(
                    "low_freq_factor = {low_freq_factor} is not below high_freq_factor = {high_freq_factor}"
                )));
            }
            scaling
        }
        "longrope" => {
            let short_factor = factors(&keys, "short_factor", dims / 2)?;
            factors(&keys, "long_factor", dims / 2)?;
            let pretrained = keys
                .size_at_most("original_max_position_embeddings", POSITIONS_MAX)?
                .or(original)
                .ok_or_else(|| Error::Config("longrope lacks original_max_position_embeddings".into()))?;
            let stretch = *position_count as f64 / pretrained as f64;
            let default = match stretch > 1.0 {
                true => (1.0 + stretch.ln() / (pretrained as f64).ln()).sqrt(),
                false => 1.0,
            };
            let attention_factor = keys.positive("attention_factor")?.unwrap_or(default);
            keys.positive("factor")?;
            // beyond the pretrained length every position would rotate otherwise, also the earlier ones
            *position_count = (*position_count).min(pretrained);
            RopeScaling::LongRope {
                short_factor,
                attention_factor,
            }
        }
        other => return Err(Error::Config(format!("rope type {other:?} is not computed here"))),
    };
    keys.refuse_unread()?;
    Ok(Rope { theta, dims, scaling })
}

fn factors(keys: &Keys, key: &str, count: usize) -> Result<Vec<f64>> {
    match keys.get(key) {
        Some(Value::Array(list)) if list.len() == count => list.iter().map(|value| positive(key, value)).collect(),
        Some(other) => Err(wrong(key, other, &format!("a list of {count} numbers"))),
        None => Err(Error::Config(format!("longrope lacks {key}"))),
    }
}

/// The attention window of each layer.
fn windows(keys: &Keys, family: Family, layer_count: usize) -> Result<Vec<Option<usize>>> {
    use Family::{Gemma2, Gemma3, Mistral, Phi3, Qwen2, Qwen3};
    let window = match keys.size_at_most("sliding_window", POSITIONS_MAX)? {
        None if matches!(family, Mistral | Gemma2 | Gemma3) && !keys.map.contains_key("sliding_window") => Some(4096),
        window => window,
    };
    let pattern = keys
        .size("sliding_window_pattern")?
        .or(keys.size("_sliding_window_pattern")?)
        .unwrap_or(6);
    let used = keys.flag("use_sliding_window", false)?;
    let first = keys.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
    let types = match keys.get("layer_types") {
        None => None,
        Some(Value::Array(list)) if list.len() == layer_count => Some(list),
        Some(other) => return Err(wrong("layer_types", other, &format!("a list of {layer_count} names"))),
    };
    (0..layer_count)
        .map(|layer| {
            let slides = match (types, family) {
                (Some(types), Gemma2 | Gemma3 | Qwen2 | Qwen3) => match types[layer].as_str() {
                    Some("sliding_attention") => true,
                    Some("full_attention") => false,
                    _ => {
                        return Err(wrong(
                            "layer_types",
                            &types[layer],
                            "full_attention or sliding_attention",
                        ));
                    }
                },
                (Some(_), _) => {
                    return Err(Error::Config(format!(
                        "layer_types is not computed for {}",
                        family.name()
                    )));
                }
                (None, Mistral | Phi3) => true,
                (None, Qwen2 | Qwen3) => used && layer as u64 >= first,
                (None, Gemma2) => layer % 2 == 0,
                (None, Gemma3) => !(layer + 1).is_multiple_of(pattern),
                (None, _) => false,
            };
            match (slides, window) {
                (true, None) if types.is_some() => Err(Error::Config(
                    "layer_types names sliding_attention but sliding_window is absent".into(),
                )),
                (true, window) => Ok(window),
                (false, _) => Ok(None),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
        "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":512,
        "rms_norm_eps":1e-05,"eos_token_id":[2,3]"#;

    fn llama(more: &str) -> Result<Config> {
        Config::parse(format!("{LLAMA}{more}}}").as_bytes())
    }

    #[test]
    fn both_spellings_of_rope_give_the_same_decoder() {
        let old = llama(
            r#","rope_theta":500000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":64,"rope_type":"llama3"},"torch_dtype":"bfloat16""#,
        );
        let new = llama(
            r#","rope_parameters":{"rope_theta":500000.0,"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":64,"rope_type":"llama3"},"dtype":"bfloat16""#,
        );
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn an_eos_list_is_read_whole() {
        assert_eq!(llama("").unwrap().eos, [2, 3]);
    }

    #[test]
    fn a_key_that_may_change_the_result_is_refused_by_name() {
        for (more, named) in [
            (r#","num_local_experts":8"#, "num_local_experts"),
            (r#","residual_multiplier":0.22"#, "residual_multiplier"),
            (r#","rope_scaling":{"rope_type":"yarn","factor":4.0}"#, "yarn"),
            (
                r#","rope_scaling":{"rope_type":"linear","factor":4.0,"surprise":1}"#,
                "surprise",
            ),
            (r#","hidden_act":"quick_gelu""#, "quick_gelu"),
            (r#","rope_interleaved":true"#, "rope_interleaved"),
            (r#","quantization_config":{"bits":4}"#, "quantised"),
        ] {
            let error = llama(more).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        llama(r#","some_future_switch":false,"_name_or_path":"x","pretraining_tp":1"#).unwrap();
    }

    /// L-05.
    #[test]
    fn l_05_impossible_configs_are_refused() {
        let cases = [
            ("\"hidden_size\":64", "\"hidden_size\":0"),
            ("\"hidden_size\":64", "\"hidden_size\":-64"),
            ("\"hidden_size\":64", "\"hidden_size\":2147483648"),
            ("\"hidden_size\":64", "\"hidden_size\":63"),
            ("\"hidden_size\":64", "\"hidden_size\":64,\"hidden_size\":65"),
            ("\"hidden_size\":64", "\"hidden_size\":\"64\""),
            ("\"num_key_value_heads\":4", "\"num_key_value_heads\":3"),
            ("\"num_hidden_layers\":5", "\"num_hidden_layers\":1000000"),
            ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":0"),
            ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":NaN"),
            ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":1e999"),
            (
                "\"vocab_size\":512",
                "\"vocab_size\":512,\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}",
            ),
            ("\"vocab_size\":512", "\"vocab_size\":2"),
            ("\"model_type\":\"llama\"", "\"model_type\":\"mamba\""),
            ("\"model_type\":\"llama\",", ""),
        ];
        for (good, bad) in cases {
            let text = format!("{LLAMA}}}").replace(good, bad);
            assert!(matches!(Config::parse(text.as_bytes()), Err(Error::Config(_))), "{bad}");
        }
    }

    #[test]
    fn a_mistral_slides_by_default_and_not_when_told_null() {
        let text = format!("{LLAMA}}}").replace("llama", "mistral");
        assert_eq!(Config::parse(text.as_bytes()).unwrap().windows, vec![Some(4096); 5]);
        let text = text.replace("\"vocab_size\"", "\"sliding_window\":null,\"vocab_size\"");
        assert_eq!(Config::parse(text.as_bytes()).unwrap().windows, vec![None; 5]);
    }
}

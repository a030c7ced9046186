//! Reads a config.json key by key, and refuses at the end what nobody read.

use std::cell::RefCell;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ops::Activation;

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
    "dropout",
    "activation_dropout",
    "layerdrop",
    "init_std",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
];

// BOUND: every size is checked here before anything is multiplied or allocated with it.
pub(super) const SIZE_MAX: usize = 1 << 22;
pub(super) const LAYERS_MAX: usize = 1 << 10;
pub(super) const POSITIONS_MAX: usize = 1 << 26;

/// An object of config.json, which remembers what was asked of it.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<HashSet<String>>,
}

impl<'a> Keys<'a> {
    pub fn new(map: &'a Map<String, Value>) -> Self {
        let read = RefCell::default();
        Self { map, read }
    }

    /// Whether a key stands there at all, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn size_at_most(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(wrong(key, value, &format!("an integer from 1 to {most}"))),
        }
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.size_at_most(key, SIZE_MAX)
    }

    /// A number of things, from none.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        let count = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(key)
            .map(|value| count(value).ok_or_else(|| wrong(key, value, "an integer from 0")))
            .transpose()
    }

    pub fn required_size(&self, key: &str, most: usize) -> Result<usize> {
        self.size_at_most(key, most)?.ok_or_else(|| missing(key))
    }

    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| positive(key, value)).transpose()
    }

    /// A number from 0.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let number = |value: &Value| value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        self.get(key)
            .map(|value| number(value).ok_or_else(|| wrong(key, value, "a number from 0")))
            .transpose()
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(key, other, "true or false")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, other, "a string")),
        }
    }

    pub fn required_text(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| missing(key))
    }

    pub fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong(key, other, "an object")),
        }
    }

    /// A list of exactly `count` entries, which are `of`.
    pub fn list(&self, key: &str, count: usize, of: &str) -> Result<Option<&'a [Value]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() == count => Ok(Some(list)),
            Some(other) => Err(wrong(key, other, &format!("a list of {count} {of}"))),
        }
    }

    /// One id or a list of them.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|value| token_id(key, value)).collect(),
            Some(one) => Ok(vec![token_id(key, one)?]),
        }
    }

    pub fn token_id(&self, key: &str) -> Result<Option<u32>> {
        self.get(key).map(|value| token_id(key, value)).transpose()
    }

    /// The activation that the first key present names.
    pub fn activation(&self, keys: &[&str], default: Activation) -> Result<Activation> {
        let mut named = None;
        for key in keys {
            let name = self.text(key)?;
            named = named.or(name.map(|name| (key, name)));
        }
        match named {
            None => Ok(default),
            Some((_, "silu" | "swish")) => Ok(Activation::Silu),
            Some((_, "gelu")) => Ok(Activation::Gelu),
            Some((_, "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh")) => Ok(Activation::GeluTanh),
            Some((_, "relu")) => Ok(Activation::Relu),
            Some((key, other)) => Err(Error::Config(format!("{key} = {other:?} is not computed here"))),
        }
    }

    pub fn refuse_unread(&self) -> Result<()> {
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

pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

fn missing(key: &str) -> Error {
    Error::Config(format!("{key} is missing"))
}

pub(super) fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    Error::Config(format!("{key} = {}, expected {expected}", short(value)))
}

pub(super) fn positive(key: &str, value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(wrong(key, value, "a number above 0")),
    }
}

fn token_id(key: &str, value: &Value) -> Result<u32> {
    value
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| wrong(key, value, "a token id"))
}

//! The architectures of GGUF files, in Hugging Face's words: which family each is, what its keys are called in config.json, how its
//! tensors are named and what the converter did to them.

use serde_json::{Map, Value as Json, json};

use super::file::{File, Value};
use crate::error::{Error, Result};

/// What stands otherwise in the file than in a Hugging Face directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// (out, in) instead of (in, out).
    Turned,
    /// Rows of each head were reordered from two halves to pairs.
    Paired {
        head_count: usize,
    },
    /// 1 was added.
    PlusOne,
}

pub struct Architecture {
    /// `general.architecture`, the prefix of its keys too.
    name: &'static str,
    /// `model_type` of config.json.
    family: &'static str,
    modules: &'static [(&'static str, &'static str)],
    /// Rows of q and k are stored in pairs.
    pairs_heads: bool,
    /// Weights of norms are stored with 1 added.
    norms_plus_one: bool,
    /// Hugging Face keeps the matrices of blocks as (in, out); files of this format never do.
    turns_matrices: bool,
    config: fn(&Keys) -> Result<Vec<(&'static str, Json)>>,
}

const ALL: [Architecture; 9] = [
    Architecture {
        pairs_heads: true,
        ..plain("llama", "llama", llama)
    },
    plain("qwen2", "qwen2", llama),
    plain("qwen3", "qwen3", llama),
    Architecture {
        norms_plus_one: true,
        ..plain("gemma", "gemma", llama)
    },
    Architecture {
        norms_plus_one: true,
        modules: NORMS_ON_BOTH_SIDES,
        ..plain("gemma2", "gemma2", gemma2)
    },
    Architecture {
        norms_plus_one: true,
        modules: NORMS_ON_BOTH_SIDES,
        ..plain("gemma3", "gemma3_text", gemma3)
    },
    plain("phi3", "phi3", phi3),
    Architecture {
        modules: NORMS_AFTER,
        ..plain("olmo2", "olmo2", llama)
    },
    Architecture {
        modules: GPT2,
        turns_matrices: true,
        ..plain("gpt2", "gpt2", gpt2)
    },
];

const fn plain(
    name: &'static str,
    family: &'static str,
    config: fn(&Keys) -> Result<Vec<(&'static str, Json)>>,
) -> Architecture {
    Architecture {
        name,
        family,
        modules: NORMS_BEFORE,
        pairs_heads: false,
        norms_plus_one: false,
        turns_matrices: false,
        config,
    }
}

/// Modules outside the blocks, then those of a block; Hugging Face's name beside the file's.
const NORMS_BEFORE: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];
const NORMS_ON_BOTH_SIDES: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const NORMS_AFTER: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const SHARED: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const GPT2: &[(&str, &str)] = &[
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];
const OUTSIDE: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
];
const BLOCKS: [&str; 2] = ["model.layers.", "transformer.h."];

impl Architecture {
    /// The architecture of a file, or a refusal that names those which are read.
    pub fn of(file: &File) -> Result<&'static Self> {
        let refuse = |cause: String| Error::file("", cause);
        let name = match file.metadata().get("general.architecture") {
            Some(Value::Text(name)) => name.as_str(),
            _ => return Err(refuse("names no general.architecture".into())),
        };
        ALL.iter().find(|one| one.name == name).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|one| one.name).collect();
            refuse(format!(
                "the architecture {name:?} is not read (read: {})",
                known.join(", ")
            ))
        })
    }

    /// The file's name of a tensor that Hugging Face calls `name`, and what was done to it.
    pub fn stored(&self, name: &str, file: &File) -> Option<(String, Change)> {
        let (module, part) = name.rsplit_once('.')?;
        let found = |list: &[(&str, &'static str)], module: &str| {
            list.iter().find(|(theirs, _)| *theirs == module).map(|(_, own)| *own)
        };
        let of_block = BLOCKS
            .iter()
            .find_map(|prefix| module.strip_prefix(prefix)?.split_once('.'));
        let Some((index, inner)) = of_block else {
            let own = found(OUTSIDE, module)?;
            return Some((format!("{own}.{part}"), self.change(own, file)));
        };
        let own = found(self.modules, inner).or_else(|| found(SHARED, inner))?;
        let change = match self.turns_matrices && part == "weight" && !own.ends_with("norm") {
            true => Change::Turned,
            false => self.change(own, file),
        };
        Some((format!("blk.{index}.{own}.{part}"), change))
    }

    fn change(&self, own: &str, file: &File) -> Change {
        let heads = |suffix: &str| Keys::new(self.name, file).count(suffix).ok().flatten();
        match own {
            "attn_q" if self.pairs_heads => heads("attention.head_count"),
            "attn_k" if self.pairs_heads => heads("attention.head_count_kv").or(heads("attention.head_count")),
            _ if self.norms_plus_one && own.ends_with("norm") => return Change::PlusOne,
            _ => None,
        }
        .map_or(Change::None, |head_count| Change::Paired { head_count })
    }

    /// config.json, as a Hugging Face directory of the same model would have it.
    pub fn config(&self, file: &File) -> Result<Map<String, Json>> {
        let keys = Keys::new(self.name, file);
        let mut config = Map::from_iter([("model_type".to_owned(), json!(self.family))]);
        config.extend(
            (self.config)(&keys)?
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value)),
        );
        let embedding = file.entries().get("token_embd.weight");
        let vocab_size = embedding.and_then(|entry| entry.shape.first().copied());
        let vocab_size = vocab_size.ok_or_else(|| Error::tensor("token_embd.weight", "is missing"))?;
        config.insert("vocab_size".into(), json!(vocab_size));
        let is_tied = !file.entries().contains_key("output.weight");
        config.insert("tie_word_embeddings".into(), json!(is_tied));
        for (key, own) in [("bos_token_id", "bos"), ("eos_token_id", "eos")] {
            if let Some(id) = keys.plain_count(&format!("tokenizer.ggml.{own}_token_id"))? {
                config.insert(key.into(), json!(id));
            }
        }
        keys.refuse_unread()?;
        config.retain(|_, value| !value.is_null());
        Ok(config)
    }
}

fn llama(keys: &Keys) -> Result<Vec<(&'static str, Json)>> {
    let head_count = keys.needed("attention.head_count")?;
    let rotating = keys.count("rope.dimension_count")?;
    let head_dim = keys.count("attention.key_length")?.or(rotating);
    let value_dim = keys.count("attention.value_length")?;
    if value_dim.is_some() && value_dim != head_dim {
        return Err(keys.refuse(
            "attention.value_length",
            "differs from key_length, which is not computed",
        ));
    }
    if let (Some(rotating), Some(head_dim)) = (rotating, head_dim)
        && rotating > head_dim
    {
        return Err(keys.refuse("rope.dimension_count", "is more than a head has"));
    }
    let share = rotating
        .zip(head_dim)
        .filter(|(rotating, head_dim)| rotating != head_dim);
    Ok(vec![
        ("hidden_size", json!(keys.needed("embedding_length")?)),
        ("num_hidden_layers", json!(keys.needed("block_count")?)),
        ("intermediate_size", json!(keys.needed("feed_forward_length")?)),
        ("num_attention_heads", json!(head_count)),
        (
            "num_key_value_heads",
            json!(keys.count("attention.head_count_kv")?.unwrap_or(head_count)),
        ),
        ("head_dim", json!(head_dim)),
        (
            "partial_rotary_factor",
            json!(share.map(|(rotating, head_dim)| rotating as f64 / head_dim as f64)),
        ),
        ("max_position_embeddings", json!(keys.needed("context_length")?)),
        ("rms_norm_eps", json!(keys.number("attention.layer_norm_rms_epsilon")?)),
        ("rope_theta", json!(keys.number("rope.freq_base")?)),
        ("rope_scaling", rope_scaling(keys)?),
        ("attention_bias", json!(keys.has_tensor("blk.0.attn_output.bias"))),
        ("mlp_bias", json!(keys.has_tensor("blk.0.ffn_up.bias"))),
    ])
}

fn gemma2(keys: &Keys) -> Result<Vec<(&'static str, Json)>> {
    let mut config = llama(keys)?;
    config.push(("attn_logit_softcapping", json!(keys.number("attn_logit_softcapping")?)));
    config.push((
        "final_logit_softcapping",
        json!(keys.number("final_logit_softcapping")?),
    ));
    config.push(("sliding_window", json!(keys.count("attention.sliding_window")?)));
    config.push(("query_pre_attn_scalar", json!(query_scalar(keys, 46)?)));
    Ok(config)
}

fn gemma3(keys: &Keys) -> Result<Vec<(&'static str, Json)>> {
    let mut config = llama(keys)?;
    config.push((
        "final_logit_softcapping",
        json!(keys.number("final_logit_softcapping")?),
    ));
    config.push(("sliding_window", json!(keys.needed("attention.sliding_window")?)));
    config.push((
        "sliding_window_pattern",
        json!(keys.count("attention.sliding_window_pattern")?.unwrap_or(6)),
    ));
    config.push(("rope_local_base_freq", json!(keys.number("rope.freq_base_swa")?)));
    config.push(("query_pre_attn_scalar", json!(query_scalar(keys, 62)?)));
    Ok(config)
}

/// The file does not say what scores are divided by (its square root): it is a head's length in every published size but the
/// largest, which its number of layers tells.
fn query_scalar(keys: &Keys, layers_of_the_largest: usize) -> Result<usize> {
    match keys.needed("block_count")? == layers_of_the_largest {
        true => Ok(keys.needed("embedding_length")? / keys.needed("attention.head_count")?),
        false => keys.needed("attention.key_length"),
    }
}

fn phi3(keys: &Keys) -> Result<Vec<(&'static str, Json)>> {
    let mut config = llama(keys)?;
    let hidden_size = keys.needed("embedding_length")?;
    let head_dim = hidden_size / keys.needed("attention.head_count")?;
    let rotating = keys.count("rope.dimension_count")?.unwrap_or(head_dim);
    // the length of a head is not among phi3's keys: the rotating part alone is
    for (key, value) in &mut config {
        match *key {
            "head_dim" => *value = json!(head_dim),
            "partial_rotary_factor" => *value = json!(rotating as f64 / head_dim as f64),
            _ => {}
        }
    }
    let original = keys.count("rope.scaling.original_context_length")?;
    config.push(("original_max_position_embeddings", json!(original)));
    config.push(("sliding_window", json!(keys.count("attention.sliding_window")?)));
    Ok(config)
}

fn gpt2(keys: &Keys) -> Result<Vec<(&'static str, Json)>> {
    let head_count = keys.needed("attention.head_count")?;
    if keys
        .count("attention.head_count_kv")?
        .is_some_and(|count| count != head_count)
    {
        return Err(keys.refuse(
            "attention.head_count_kv",
            "differs from head_count, which is not computed",
        ));
    }
    Ok(vec![
        ("n_embd", json!(keys.needed("embedding_length")?)),
        ("n_layer", json!(keys.needed("block_count")?)),
        ("n_head", json!(head_count)),
        ("n_inner", json!(keys.needed("feed_forward_length")?)),
        ("n_positions", json!(keys.needed("context_length")?)),
        (
            "layer_norm_epsilon",
            json!(keys.number("attention.layer_norm_epsilon")?),
        ),
    ])
}

/// `rope_scaling` from the keys, or from tensors of factors: Llama 3's and LongRope's.
fn rope_scaling(keys: &Keys) -> Result<Json> {
    let kind = keys.text("rope.scaling.type")?;
    let factor = keys
        .number("rope.scaling.factor")?
        .or(keys.number("rope.scale_linear")?);
    let attention_factor = keys.number("rope.scaling.attn_factor")?;
    let original = keys.count("rope.scaling.original_context_length")?;
    keys.flag("rope.scaling.finetuned")?;
    let context = keys.needed("context_length")?;
    let (long, short) = (
        keys.factors("rope_factors_long.weight")?,
        keys.factors("rope_factors_short.weight")?,
    );
    if let Some(factors) = keys.factors("rope_freqs.weight")? {
        // what Llama 3 divides each frequency by, at every length
        return Ok(
            json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "attention_factor": 1.0, "original_max_position_embeddings": context}),
        );
    }
    if let (Some(long), Some(short)) = (long, short) {
        return Ok(
            json!({"rope_type": "longrope", "short_factor": short, "long_factor": long,
            "attention_factor": attention_factor, "original_max_position_embeddings": original.unwrap_or(context)}),
        );
    }
    match (kind, factor) {
        (None | Some("none"), None) => Ok(Json::Null),
        (None | Some("none" | "linear"), Some(1.0)) => Ok(Json::Null),
        (None | Some("linear"), Some(factor)) => Ok(json!({"rope_type": "linear", "factor": factor})),
        (Some("none"), Some(_)) | (Some("linear"), None) => {
            Err(keys.refuse("rope.scaling.type", "and rope.scaling.factor contradict each other"))
        }
        (Some(kind), factor) => Ok(json!({"rope_type": kind, "factor": factor,
            "original_max_position_embeddings": original})),
    }
}

/// The keys of one architecture, which remember what was asked of them.
pub struct Keys<'f> {
    prefix: &'static str,
    file: &'f File,
    read: std::cell::RefCell<std::collections::HashSet<String>>,
}

/// Keys that say nothing about the forward pass.
const SILENT_KEYS: [&str; 3] = ["vocab_size", "attention.causal", "use_parallel_residual"];

impl<'f> Keys<'f> {
    fn new(prefix: &'static str, file: &'f File) -> Self {
        Self {
            prefix,
            file,
            read: Default::default(),
        }
    }

    fn get(&self, suffix: &str) -> (String, Option<&'f Value>) {
        let key = format!("{}.{suffix}", self.prefix);
        self.read.borrow_mut().insert(key.clone());
        let value = self.file.metadata().get(&key);
        (key, value)
    }

    fn refuse(&self, suffix: &str, cause: &str) -> Error {
        Error::file("", format!("{}.{suffix} {cause}", self.prefix))
    }

    fn count(&self, suffix: &str) -> Result<Option<usize>> {
        let (key, value) = self.get(suffix);
        count(&key, value)
    }

    fn plain_count(&self, key: &str) -> Result<Option<usize>> {
        count(key, self.file.metadata().get(key))
    }

    fn needed(&self, suffix: &str) -> Result<usize> {
        self.count(suffix)?.ok_or_else(|| self.refuse(suffix, "is missing"))
    }

    fn number(&self, suffix: &str) -> Result<Option<f64>> {
        match self.get(suffix).1 {
            None => Ok(None),
            // The file holds an f32; its shortest decimal form is the number that was meant.
            Some(Value::Float(value)) if value.is_finite() => {
                Ok(Some((*value as f32).to_string().parse().unwrap_or(*value)))
            }
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(self.refuse(suffix, "is no number")),
        }
    }

    fn text(&self, suffix: &str) -> Result<Option<&'f str>> {
        match self.get(suffix).1 {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.refuse(suffix, "is no text")),
        }
    }

    fn flag(&self, suffix: &str) -> Result<Option<bool>> {
        match self.get(suffix).1 {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.refuse(suffix, "is neither true nor false")),
        }
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.file.entries().contains_key(name)
    }

    /// A small tensor of factors.
    fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.file.entries().get(name) else {
            return Ok(None);
        };
        super::blocks::dequantise(self.file.bytes_of(entry), entry.stored)
            .map(Some)
            .map_err(Error::from)
    }

    fn refuse_unread(&self) -> Result<()> {
        let read = self.read.borrow();
        let mut unread: Vec<_> = self
            .file
            .metadata()
            .iter()
            .filter(|(key, value)| {
                let suffix = key.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
                let is_silent = matches!(value, Value::Integer(0) | Value::Flag(false));
                suffix.is_some_and(|suffix| !SILENT_KEYS.contains(&suffix)) && !is_silent && !read.contains(*key)
            })
            .map(|(key, _)| key)
            .collect();
        unread.sort();
        match unread.first() {
            None => Ok(()),
            Some(key) => Err(Error::file(
                "",
                format!("{key} is not known here and may change the result"),
            )),
        }
    }
}

fn count(key: &str, value: Option<&Value>) -> Result<Option<usize>> {
    match value {
        None => Ok(None),
        Some(Value::Integer(value)) => match u32::try_from(*value) {
            Ok(value) => Ok(Some(value as usize)),
            Err(_) => Err(Error::file("", format!("{key} = {value} is out of range"))),
        },
        Some(Value::Integers(_)) => Err(Error::file(
            "",
            format!("{key} differs by layer, which is not computed"),
        )),
        Some(_) => Err(Error::file("", format!("{key} is no integer"))),
    }
}

//! The architectures of GGUF files, in Hugging Face's words: which family each is, how its tensors are named and what the converter
//! did to them.

use serde_json::{Map, Value as Json, json};

use super::config;
use super::file::{File, Value};
use super::keys::Keys;
use crate::error::{Error, Result, shown};

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
    /// All of q, then all of k, then all of v, instead of the three of each head.
    Stacked {
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
    /// Hugging Face keeps q, k and v by head.
    stacks_heads: bool,
    /// Weights of norms are stored with 1 added.
    norms_plus_one: bool,
    /// Hugging Face keeps the matrices of blocks as (in, out); files of this format never do.
    turns_matrices: bool,
    config: fn(&Keys) -> Result<config::Pairs>,
}

const ALL: [Architecture; 11] = [
    Architecture {
        pairs_heads: true,
        ..plain("llama", "llama", config::llama)
    },
    plain("qwen2", "qwen2", config::rms),
    plain("qwen3", "qwen3", config::rms),
    Architecture {
        norms_plus_one: true,
        ..plain("gemma", "gemma", config::rms)
    },
    Architecture {
        norms_plus_one: true,
        modules: NORMS_ON_BOTH_SIDES,
        ..plain("gemma2", "gemma2", config::gemma2)
    },
    Architecture {
        norms_plus_one: true,
        modules: NORMS_ON_BOTH_SIDES,
        ..plain("gemma3", "gemma3_text", config::gemma3)
    },
    plain("phi3", "phi3", config::phi3),
    Architecture {
        pairs_heads: true,
        ..plain("olmo", "olmo", config::olmo)
    },
    Architecture {
        modules: NORMS_AFTER,
        ..plain("olmo2", "olmo2", config::rms)
    },
    Architecture {
        modules: GPT2,
        turns_matrices: true,
        ..plain("gpt2", "gpt2", config::gpt2)
    },
    Architecture {
        modules: GPT_NEOX,
        stacks_heads: true,
        ..plain("gptneox", "gpt_neox", config::gpt_neox)
    },
];

const fn plain(name: &'static str, family: &'static str, config: fn(&Keys) -> Result<config::Pairs>) -> Architecture {
    Architecture {
        name,
        family,
        modules: NORMS_BEFORE,
        pairs_heads: false,
        stacks_heads: false,
        norms_plus_one: false,
        turns_matrices: false,
        config,
    }
}

/// Modules of a block, then those outside; Hugging Face's name beside the file's.
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
const GPT_NEOX: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("attention.query_key_value", "attn_qkv"),
    ("attention.dense", "attn_output"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
];
const OUTSIDE: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("gpt_neox.embed_in", "token_embd"),
    ("gpt_neox.final_layer_norm", "output_norm"),
    ("embed_out", "output"),
];
const BLOCKS: [&str; 3] = ["model.layers.", "transformer.h.", "gpt_neox.layers."];

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
                "the architecture {} is not read (read: {})",
                shown(name),
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
        let keys = Keys::new(self.name, file);
        let heads = |suffix: &str| keys.count(suffix).ok().flatten();
        let query_heads = heads("attention.head_count");
        let paired = |head_count| Change::Paired { head_count };
        let stacked = |head_count| Change::Stacked { head_count };
        match own {
            "attn_q" if self.pairs_heads => query_heads.map(paired),
            "attn_k" if self.pairs_heads => heads("attention.head_count_kv").or(query_heads).map(paired),
            "attn_qkv" if self.stacks_heads => query_heads.map(stacked),
            _ if self.norms_plus_one && own.ends_with("norm") => Some(Change::PlusOne),
            _ => None,
        }
        .unwrap_or(Change::None)
    }

    /// config.json, as a Hugging Face directory of the same model would have it.
    pub fn config(&self, file: &File) -> Result<Map<String, Json>> {
        let keys = Keys::new(self.name, file);
        let mut config = Map::from_iter([("model_type".to_owned(), json!(self.family))]);
        let own = (self.config)(&keys)?;
        config.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let embedding = file.entries().get("token_embd.weight");
        let vocab_size = embedding.and_then(|entry| entry.shape.first().copied());
        let vocab_size = vocab_size.ok_or_else(|| Error::tensor("token_embd.weight", "is missing"))?;
        config.insert("vocab_size".into(), json!(vocab_size));
        config.insert("tie_word_embeddings".into(), json!(!keys.has_tensor("output.weight")));
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

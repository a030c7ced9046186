//! The architectures of GGUF files, in Hugging Face's words: which family each is, how its tensors are named and what the converter
//! did to them.

use std::ops::Range;

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
    /// All of q, then all of k, then all of v, instead of what belongs to each key head.
    Stacked {
        head_count: usize,
        kv_head_count: usize,
    },
    /// 1 was added.
    PlusOne,
}

/// Where a tensor lies.
pub struct Place {
    /// The file's name of it, or of one that holds more.
    pub name: String,
    /// Which elements of that.
    pub elements: Option<Range<usize>>,
    pub change: Change,
}

pub struct Architecture {
    /// `general.architecture`, the prefix of its keys too.
    name: &'static str,
    /// `model_type` of config.json.
    family: &'static str,
    modules: &'static [(&'static str, &'static str)],
    /// Rows of q and k are stored in pairs.
    pairs_heads: bool,
    /// Hugging Face keeps q, k and v by key head.
    stacks_heads: bool,
    /// Weights of norms are stored with 1 added.
    norms_plus_one: bool,
    /// Hugging Face keeps the matrices of blocks as (in, out); files of this format never do.
    turns_matrices: bool,
    config: fn(&Keys) -> Result<config::Pairs>,
}

const ALL: &[Architecture] = &[
    Architecture {
        pairs_heads: true,
        ..plain("llama", "llama", config::llama)
    },
    Architecture {
        pairs_heads: true,
        ..plain("mistral3", "llama", config::mistral3)
    },
    plain("qwen2", "qwen2", config::rms),
    plain("qwen3", "qwen3", config::rms),
    plain("qwen3moe", "qwen3_moe", config::qwen3_moe),
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
        ..plain("olmo2", "olmo2", config::olmo2)
    },
    plain("olmoe", "olmoe", config::olmoe),
    Architecture {
        modules: NORMS_OF_GPT_OSS,
        ..plain("gpt-oss", "gpt_oss", config::gpt_oss)
    },
    Architecture {
        pairs_heads: true,
        ..plain("smollm3", "smollm3", config::rms)
    },
    Architecture {
        pairs_heads: true,
        ..plain("granite", "granite", config::granite)
    },
    plain("chatglm", "glm", config::glm),
    Architecture {
        modules: NORMS_OF_GLM4,
        ..plain("glm4", "glm4", config::glm)
    },
    Architecture {
        modules: PHI2,
        ..plain("phi2", "phi", config::phi2)
    },
    Architecture {
        modules: FALCON,
        stacks_heads: true,
        ..plain("falcon", "falcon", config::falcon)
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
const NORMS_OF_GLM4: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
];
const NORMS_OF_GPT_OSS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
];
const SHARED: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
];
/// Of one expert; the file holds those of all as one tensor, older ones each by itself.
const EXPERT: &[(&str, &str)] = &[
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
    ("w1", "ffn_gate"),
    ("w3", "ffn_up"),
    ("w2", "ffn_down"),
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
const PHI2: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.dense", "attn_output"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];
const FALCON: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("ln_mlp", "attn_norm"),
    ("ln_attn", "attn_norm_2"),
    ("self_attention.query_key_value", "attn_qkv"),
    ("self_attention.dense", "attn_output"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
];
const OUTSIDE: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("model.final_layernorm", "output_norm"),
    ("lm_head", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.word_embeddings", "token_embd"),
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

    /// Where in the file a tensor lies that Hugging Face calls `name`, and what was done to it.
    pub fn place(&self, name: &str, file: &File) -> Option<Place> {
        let (module, part) = match name.ends_with(".sinks") {
            true => (name, "weight"),
            false => name.rsplit_once('.')?,
        };
        let of_block = BLOCKS
            .iter()
            .find_map(|prefix| module.strip_prefix(prefix)?.split_once('.'));
        let Some((index, inner)) = of_block else {
            let own = found(OUTSIDE, module)?;
            return Some(self.whole(format!("{own}.{part}"), own, file));
        };
        let at = |own: &str| format!("blk.{index}.{own}.{part}");
        if let Some((_, expert)) = inner.split_once(".experts.") {
            let (number, module) = expert.split_once('.')?;
            let own = found(EXPERT, module)?;
            let all = at(&format!("{own}_exps"));
            return Some(match file.entries().contains_key(&all) {
                true => of_expert(all, number.parse().ok()?, file),
                false => self.whole(at(&format!("{own}.{number}")), own, file),
            });
        }
        let own = found(self.modules, inner).or_else(|| found(SHARED, inner))?;
        if self.turns_matrices && part == "weight" && !own.ends_with("norm") {
            return Some(Place {
                change: Change::Turned,
                ..self.whole(at(own), own, file)
            });
        }
        let together = at("attn_qkv");
        match self.part_of_qkv(own, &together, file) {
            Some(elements) if !file.entries().contains_key(&at(own)) => Some(Place {
                elements: Some(elements),
                ..self.whole(together, own, file)
            }),
            _ => Some(self.whole(at(own), own, file)),
        }
    }

    /// The file's names of what Hugging Face keeps in one tensor of all experts; two of them are kept in pairs.
    pub fn of_experts(name: &str) -> Option<Vec<String>> {
        let (index, inner) = name.strip_prefix(BLOCKS[0])?.split_once('.')?;
        let module = inner.strip_prefix("mlp.experts.")?;
        let (module, part) = match module.strip_suffix("_bias") {
            Some(module) => (module, "bias"),
            None => (module, "weight"),
        };
        let own: &[&str] = match module {
            "gate_up_proj" => &["ffn_gate_exps", "ffn_up_exps"],
            "down_proj" => &["ffn_down_exps"],
            _ => return None,
        };
        Some(own.iter().map(|own| format!("blk.{index}.{own}.{part}")).collect())
    }

    fn whole(&self, name: String, own: &str, file: &File) -> Place {
        Place {
            name,
            elements: None,
            change: self.change(own, file),
        }
    }

    /// Which elements of the tensor `together`, where the file has it, are those of q, k or v.
    fn part_of_qkv(&self, own: &str, together: &str, file: &File) -> Option<Range<usize>> {
        let shape = &file.entries().get(together)?.shape;
        let width: usize = shape[1..].iter().product();
        let (heads, kv_heads) = self.heads(file)?;
        let head = shape[0] / (heads + 2 * kv_heads);
        let (start, count) = match own {
            "attn_q" => (0, heads),
            "attn_k" => (heads, kv_heads),
            "attn_v" => (heads + kv_heads, kv_heads),
            _ => return None,
        };
        let of_head = head * width;
        Some(start * of_head..(start + count) * of_head)
    }

    /// How many heads of queries there are, and of keys.
    fn heads(&self, file: &File) -> Option<(usize, usize)> {
        let keys = Keys::new(self.name, file);
        let count = |suffix: &str| keys.count(suffix).ok().flatten().filter(|count| *count > 0);
        let heads = count("attention.head_count")?;
        Some((heads, count("attention.head_count_kv").unwrap_or(heads)))
    }

    fn change(&self, own: &str, file: &File) -> Change {
        let paired = |head_count| Change::Paired { head_count };
        match own {
            "attn_q" if self.pairs_heads => self.heads(file).map(|(heads, _)| paired(heads)),
            "attn_k" if self.pairs_heads => self.heads(file).map(|(_, heads)| paired(heads)),
            "attn_qkv" if self.stacks_heads => self.heads(file).map(|(head_count, kv_head_count)| Change::Stacked {
                head_count,
                kv_head_count,
            }),
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

fn found(list: &[(&str, &'static str)], module: &str) -> Option<&'static str> {
    list.iter().find(|(theirs, _)| *theirs == module).map(|(_, own)| *own)
}

/// One expert of a tensor that holds all of them.
fn of_expert(name: String, number: usize, file: &File) -> Place {
    let of_one: usize = file.entries()[&name].shape[1..].iter().product();
    let start = number.saturating_mul(of_one);
    Place {
        name,
        elements: Some(start..start.saturating_add(of_one)),
        change: Change::None,
    }
}

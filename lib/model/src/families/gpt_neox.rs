//! GPT-NeoX (Pythia): layer norms, a rope over some of a head's dimensions, an MLP without a gate; attention and MLP may
//! both read the block's input.

use super::{Family, Spelling, llama, rope};
use crate::config::Norm;
use crate::names::{Hidden, Names, Qkv};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "gpt_neox",
    names: NAMES,
    keys: Spelling {
        kv_head_count: None,
        norm_eps: ("layer_norm_eps", 1e-5),
        activation: (&["hidden_act"], Activation::Gelu),
        attention_bias: Some(true),
        rope: Some(rope::Defaults {
            theta: 10_000.0,
            share: 0.25,
        }),
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.norm = Norm::Layer;
        config.mlp_bias = true;
        config.parallel = keys.flag("use_parallel_residual", true)?;
        Ok(())
    },
};

const NAMES: Names = Names {
    embedding: "gpt_neox.embed_in",
    blocks: "gpt_neox.layers",
    qkv: Qkv::ByGroup("attention.query_key_value"),
    attn_out: "attention.dense",
    hidden: Hidden::Plain("mlp.dense_h_to_4h"),
    mlp_out: "mlp.dense_4h_to_h",
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    ..llama::NAMES
};

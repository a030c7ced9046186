//! GPT-2: learned positions, layer norms, an MLP without a gate, and matrices stored the other way round.

use super::{Family, Spelling, llama};
use crate::config::Norm;
use crate::names::{Hidden, Names, Qkv};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "gpt2",
    names: NAMES,
    keys: KEYS,
    finish: |config, keys| {
        config.norm = Norm::Layer;
        (config.qkv_bias, config.attn_out_bias, config.mlp_bias) = (true, true, true);
        if !keys.flag("scale_attn_weights", true)? {
            config.attn_scale = 1.0;
        }
        Ok(())
    },
};

pub(super) const KEYS: Spelling = Spelling {
    hidden_size: "n_embd",
    layer_count: "n_layer",
    head_count: "n_head",
    kv_head_count: None,
    head_dim: None,
    mlp_size: ("n_inner", Some(4)),
    position_count: ("n_positions", 1_024),
    norm_eps: ("layer_norm_epsilon", 1e-5),
    activation: (&["activation_function"], Activation::GeluTanh),
    attention_bias: None,
    rope: None,
    tied: true,
};

const NAMES: Names = Names {
    embedding: "transformer.wte",
    positions: Some("transformer.wpe"),
    blocks: "transformer.h",
    before_attention: Some("ln_1"),
    before_mlp: Some("ln_2"),
    qkv: Qkv::Stacked("attn.c_attn"),
    attn_out: "attn.c_proj",
    hidden: Hidden::Plain("mlp.c_fc"),
    mlp_out: "mlp.c_proj",
    norm: "transformer.ln_f",
    transposed: true,
    ..llama::NAMES
};

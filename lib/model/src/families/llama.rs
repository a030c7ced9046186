//! Llama: RMS norms before attention and MLP, rotary positions, a gated MLP. Other families are told by what differs.

use super::{Family, Spelling, rope};
use crate::names::{Experts, Hidden, Names, Qkv};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    names: NAMES,
    keys: KEYS,
    finish: |config, keys| {
        config.mlp_bias = keys.flag("mlp_bias", false)?;
        keys.get("sliding_window"); // some conversions keep it, transformers' Llama does not read it
        Ok(())
    },
};

pub(super) const KEYS: Spelling = Spelling {
    hidden_size: "hidden_size",
    layer_count: "num_hidden_layers",
    head_count: "num_attention_heads",
    kv_head_count: Some(("num_key_value_heads", None)),
    head_dim: None,
    mlp_size: ("intermediate_size", None),
    position_count: ("max_position_embeddings", 2_048),
    norm_eps: ("rms_norm_eps", 1e-6),
    activation: (&["hidden_act"], Activation::Silu),
    attention_bias: Some(false),
    rope: Some(rope::Defaults {
        theta: 10_000.0,
        share: 1.0,
    }),
    tied: false,
};

pub(super) const NAMES: Names = Names {
    embedding: "model.embed_tokens",
    positions: None,
    blocks: "model.layers",
    before_attention: Some("input_layernorm"),
    after_attention: None,
    before_mlp: Some("post_attention_layernorm"),
    after_mlp: None,
    qkv: Qkv::Separate {
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
    },
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attn_out: "self_attn.o_proj",
    hidden: Hidden::Gated {
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
    },
    mlp_out: "mlp.down_proj",
    mlp: "",
    sinks: "self_attn.sinks",
    router: "mlp.gate",
    experts: Experts::Each("mlp.experts"),
    shared_expert: None,
    norm: "model.norm",
    head: "lm_head",
    transposed: false,
};

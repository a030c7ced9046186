//! Phi-1 and Phi-2: one layer norm for attention and MLP, which are added together; a rope over some of a head's dimensions,
//! biases everywhere.

use super::{Family, Spelling, llama, rope};
use crate::config::{Norm, QkNorm};
use crate::names::{Hidden, Names};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "phi",
    names: NAMES,
    keys: Spelling {
        norm_eps: ("layer_norm_eps", 1e-5),
        activation: (&["hidden_act"], Activation::GeluTanh),
        attention_bias: None,
        rope: Some(rope::Defaults {
            theta: 10_000.0,
            share: 0.5,
        }),
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.norm = Norm::Layer;
        config.parallel = true;
        (config.qkv_bias, config.attn_out_bias, config.mlp_bias) = (true, true, true);
        config.head_bias = true;
        if keys.flag("qk_layernorm", false)? {
            config.qk_norm = QkNorm::Head;
        }
        Ok(())
    },
};

const NAMES: Names = Names {
    before_mlp: None,
    q_norm: "self_attn.q_layernorm",
    k_norm: "self_attn.k_layernorm",
    attn_out: "self_attn.dense",
    hidden: Hidden::Plain("mlp.fc1"),
    mlp_out: "mlp.fc2",
    norm: "model.final_layernorm",
    ..llama::NAMES
};

//! OPT: learned positions, layer norms and biases, a ReLU without a gate. The one size with its norms behind the additions
//! (350M) is refused.

use super::{Family, Keys, Spelling, llama};
use crate::config::Norm;
use crate::error::{Error, Result};
use crate::names::{Hidden, Names, Qkv};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "opt",
    names: NAMES,
    keys: Spelling {
        kv_head_count: None,
        mlp_size: ("ffn_dim", None),
        // no key says it
        norm_eps: ("layer_norm_eps", 1e-5),
        activation: (&["activation_function"], Activation::Relu),
        attention_bias: None,
        rope: None,
        tied: true,
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.norm = Norm::Layer;
        config.position_offset = 2;
        let bias = keys.flag("enable_bias", true)?;
        (config.qkv_bias, config.attn_out_bias, config.mlp_bias) = (bias, bias, bias);
        if keys
            .size("word_embed_proj_dim")?
            .is_some_and(|width| width != config.hidden_size)
        {
            return Err(Error::Config(
                "word_embed_proj_dim differs from hidden_size, which is not computed here".into(),
            ));
        }
        fixed(keys, "do_layer_norm_before", true)?;
        fixed(keys, "_remove_final_layer_norm", false)?;
        fixed(keys, "layer_norm_elementwise_affine", true)
    },
};

/// Refuses a switch that stands otherwise than by default.
fn fixed(keys: &Keys, key: &str, value: bool) -> Result<()> {
    match keys.flag(key, value)? == value {
        true => Ok(()),
        false => Err(Error::Config(format!("{key} = {} is not computed here", !value))),
    }
}

const NAMES: Names = Names {
    embedding: "model.decoder.embed_tokens",
    positions: Some("model.decoder.embed_positions"),
    blocks: "model.decoder.layers",
    before_attention: Some("self_attn_layer_norm"),
    before_mlp: Some("final_layer_norm"),
    qkv: Qkv::Separate {
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
    },
    attn_out: "self_attn.out_proj",
    hidden: Hidden::Plain("fc1"),
    mlp_out: "fc2",
    norm: "model.decoder.final_layer_norm",
    ..llama::NAMES
};

//! Falcon: layer norms, q, k and v in one matrix, an MLP without a gate; attention and MLP are added together in all but the
//! oldest. Its variants differ in how heads are grouped and how many norms a block has; those with ALiBi are refused.

use super::{Family, Keys, Spelling, llama};
use crate::config::{Config, Norm};
use crate::error::{Error, Result};
use crate::names::{Hidden, Names, Qkv};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "falcon",
    names: NAMES,
    keys: Spelling {
        kv_head_count: None,
        mlp_size: ("ffn_hidden_size", Some(4)),
        norm_eps: ("layer_norm_epsilon", 1e-5),
        activation: (&["activation"], Activation::Gelu),
        attention_bias: None,
        tied: true,
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.norm = Norm::Layer;
        if keys.flag("alibi", false)? {
            return Err(Error::Config("alibi = true is not computed here".into()));
        }
        let bias = keys.flag("bias", false)?;
        (config.qkv_bias, config.attn_out_bias, config.mlp_bias) = (bias, bias, bias);
        let grouped = keys.flag("new_decoder_architecture", false)?;
        group_heads(config, keys, grouped)?;
        place_norms(config, keys, grouped)
    },
};

fn group_heads(config: &mut Config, keys: &Keys, grouped: bool) -> Result<()> {
    let given = keys.size("num_kv_heads")?.unwrap_or(config.head_count);
    let one_for_all = keys.flag("multi_query", true)?;
    config.kv_head_count = match (grouped, one_for_all) {
        (true, _) => given,
        (false, true) => 1,
        (false, false) if given == config.head_count => given,
        (false, false) => return Err(Error::Config("num_kv_heads is not num_attention_heads".into())),
    };
    Ok(())
}

fn place_norms(config: &mut Config, keys: &Keys, grouped: bool) -> Result<()> {
    let parallel = keys.flag("parallel_attn", true)?;
    let norm_count = keys
        .size("num_ln_in_parallel_attn")?
        .unwrap_or(if grouped { 2 } else { 1 });
    let (before_attention, before_mlp) = match (parallel, norm_count) {
        (false, _) if !grouped => ("input_layernorm", Some("post_attention_layernorm")),
        (true, 1) => ("input_layernorm", None),
        (true, 2) if grouped => ("ln_attn", Some("ln_mlp")),
        _ => {
            return Err(Error::Config(format!(
                "parallel_attn = {parallel} with num_ln_in_parallel_attn = {norm_count} is not computed here"
            )));
        }
    };
    config.parallel = parallel;
    (config.names.before_attention, config.names.before_mlp) = (Some(before_attention), before_mlp);
    Ok(())
}

const NAMES: Names = Names {
    embedding: "transformer.word_embeddings",
    blocks: "transformer.h",
    qkv: Qkv::ByGroup("self_attention.query_key_value"),
    attn_out: "self_attention.dense",
    hidden: Hidden::Plain("mlp.dense_h_to_4h"),
    mlp_out: "mlp.dense_4h_to_h",
    norm: "transformer.ln_f",
    ..llama::NAMES
};

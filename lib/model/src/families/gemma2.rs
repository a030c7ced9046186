//! Gemma 2: Gemma with norms on both sides, capped scores and logits, and every other layer sliding.

use super::{Family, Keys, Spelling, gemma, llama, windows};
use crate::config::Config;
use crate::error::Result;
use crate::names::Names;

pub(super) const FAMILY: Family = Family {
    name: "gemma2",
    names: NAMES,
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(4))),
        ..gemma::KEYS
    },
    finish: |config, keys| {
        finish(config, keys)?;
        let softcap = |key: &str, default| -> Result<_> {
            let cap = keys.positive(key)?;
            // null means none
            Ok(if keys.has(key) { cap } else { Some(default) })
        };
        config.attn_softcap = softcap("attn_logit_softcapping", 50.0)?;
        config.logit_softcap = softcap("final_logit_softcapping", 30.0)?;
        windows::set(config, keys, windows::length(keys, Some(4_096))?, |layer| {
            layer % 2 == 0
        })
    },
};

pub(super) const NAMES: Names = Names {
    before_attention: Some("input_layernorm"),
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
    ..llama::NAMES
};

/// What Gemma 3 has too.
pub(super) fn finish(config: &mut Config, keys: &Keys) -> Result<()> {
    gemma::finish(config, keys)?;
    config.attn_scale = keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5);
    Ok(())
}

//! Gemma: Llama with scaled embeddings and norms that store their weights around zero.

use super::{Family, Keys, Spelling, llama};
use crate::config::{Config, Norm};
use crate::error::Result;
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "gemma",
    names: llama::NAMES,
    keys: KEYS,
    finish,
};

pub(super) const KEYS: Spelling = Spelling {
    kv_head_count: Some(("num_key_value_heads", Some(16))),
    head_dim: Some(256),
    position_count: ("max_position_embeddings", 8_192),
    activation: (&["hidden_activation", "hidden_act"], Activation::GeluTanh),
    tied: true,
    ..llama::KEYS
};

pub(super) fn finish(config: &mut Config, _: &Keys) -> Result<()> {
    config.norm = Norm::Rms { offset: 1.0 };
    config.embed_scale = Some((config.hidden_size as f64).sqrt());
    Ok(())
}

//! Phi-3: Llama with its projections stacked in one matrix each.

use super::{Family, Spelling, llama, windows};
use crate::names::{Hidden, Names, Qkv};

pub(super) const FAMILY: Family = Family {
    name: "phi3",
    names: Names {
        qkv: Qkv::Stacked("self_attn.qkv_proj"),
        hidden: Hidden::Stacked("mlp.gate_up_proj"),
        ..llama::NAMES
    },
    keys: Spelling {
        position_count: ("max_position_embeddings", 4_096),
        norm_eps: ("rms_norm_eps", 1e-5),
        attention_bias: None,
        ..llama::KEYS
    },
    finish: |config, keys| {
        windows::set_all(config, windows::length(keys, None)?);
        Ok(())
    },
};

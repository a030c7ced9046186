//! GLM-4 of 2024: Llama with a rope that turns neighbouring dimensions, over half of a head, and gate and up in one matrix.

use super::{Family, Spelling, llama, rope};
use crate::config::Config;
use crate::names::{Hidden, Names};
use crate::ops::RopePairs;

pub(super) const FAMILY: Family = Family {
    name: "glm",
    names: NAMES,
    keys: KEYS,
    finish: |config, _| {
        finish(config);
        Ok(())
    },
};

pub(super) const NAMES: Names = Names {
    hidden: Hidden::Stacked("mlp.gate_up_proj"),
    ..llama::NAMES
};

pub(super) const KEYS: Spelling = Spelling {
    kv_head_count: Some(("num_key_value_heads", Some(2))),
    head_dim: Some(128),
    position_count: ("max_position_embeddings", 131_072),
    norm_eps: ("rms_norm_eps", 1.5625e-7),
    attention_bias: Some(true),
    rope: Some(rope::Defaults {
        theta: 10_000.0,
        share: 0.5,
    }),
    ..llama::KEYS
};

pub(super) fn finish(config: &mut Config) {
    config.attn_out_bias = false;
    config.rope_pairs = RopePairs::Interleaved;
}

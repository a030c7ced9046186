//! Qwen2: Llama with biases on q, k and v; its upper layers may slide.

use super::{Family, Keys, Spelling, llama, windows};
use crate::config::Config;
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    names: llama::NAMES,
    keys: Spelling {
        attention_bias: None,
        ..KEYS
    },
    finish: |config, keys| {
        config.qkv_bias = true;
        slide(config, keys)
    },
};

pub(super) const KEYS: Spelling = Spelling {
    kv_head_count: Some(("num_key_value_heads", Some(32))),
    position_count: ("max_position_embeddings", 32_768),
    ..llama::KEYS
};

/// Where the family slides at all, the layers from `max_window_layers` on do.
pub(super) fn slide(config: &mut Config, keys: &Keys) -> Result<()> {
    let used = keys.flag("use_sliding_window", false)?;
    let first = keys.count("max_window_layers")?.unwrap_or(28);
    let length = windows::length(keys, used.then_some(4_096))?;
    windows::set(config, keys, length, |layer| used && layer >= first)
}

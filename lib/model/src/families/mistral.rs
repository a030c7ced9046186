//! Mistral: Llama whose layers all slide.

use super::{Family, Spelling, llama, windows};

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    names: llama::NAMES,
    keys: KEYS,
    finish: |config, keys| {
        windows::set_all(config, windows::length(keys, Some(4_096))?);
        Ok(())
    },
};

pub(super) const KEYS: Spelling = Spelling {
    kv_head_count: Some(("num_key_value_heads", Some(8))),
    position_count: ("max_position_embeddings", 131_072),
    attention_bias: None,
    ..llama::KEYS
};

//! Mistral: Llama whose layers all slide.

use super::{Family, Spelling, llama, windows};

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    names: llama::NAMES,
    keys: Spelling {
        position_count: ("max_position_embeddings", 131_072),
        attention_bias: None,
        ..llama::KEYS
    },
    finish: |config, keys| {
        let length = windows::length(keys, Some(4_096))?;
        config.layers.iter_mut().for_each(|layer| layer.window = length);
        Ok(())
    },
};

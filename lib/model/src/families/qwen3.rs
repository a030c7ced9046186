//! Qwen3: Qwen2 with a norm over each query and key head in the place of the biases.

use super::{Family, Spelling, llama, qwen2};
use crate::config::QkNorm;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    names: llama::NAMES,
    keys: Spelling {
        head_dim: Some(128),
        ..qwen2::KEYS
    },
    finish: |config, keys| {
        config.qk_norm = QkNorm::Head;
        qwen2::slide(config, keys)
    },
};

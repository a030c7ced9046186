//! OLMo 2: Llama with its norms after attention and MLP, and norms over the whole query and key projections.

use super::{Family, Spelling, llama};
use crate::config::QkNorm;
use crate::names::Names;

pub(super) const FAMILY: Family = Family {
    name: "olmo2",
    names: NAMES,
    keys: KEYS,
    finish: |config, _| {
        config.qk_norm = QkNorm::Full;
        Ok(())
    },
};

pub(super) const NAMES: Names = Names {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
    ..llama::NAMES
};

pub(super) const KEYS: Spelling = Spelling {
    norm_eps: ("rms_norm_eps", 1e-5),
    ..llama::KEYS
};

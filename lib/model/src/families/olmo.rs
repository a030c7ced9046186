//! OLMo: Llama with norms that have no parameters, and queries, keys and values that may be clipped.

use super::{Family, llama};
use crate::config::Norm;

pub(super) const FAMILY: Family = Family {
    name: "olmo",
    names: llama::NAMES,
    keys: llama::KEYS,
    finish: |config, keys| {
        config.norm = Norm::Bare;
        config.norm_eps = 1e-5;
        config.qkv_clip = keys.positive("clip_qkv")?;
        Ok(())
    },
};

//! Ministral 3: Mistral with a YaRN rope. Beyond the rope's pretrained length its queries grow with their position, which is
//! not computed: that is its longest sequence here.

use super::{Family, Spelling, mistral, rope, windows};

pub(super) const FAMILY: Family = Family {
    name: "ministral3",
    keys: Spelling {
        head_dim: Some(128),
        position_count: ("max_position_embeddings", 262_144),
        norm_eps: ("rms_norm_eps", 1e-5),
        rope: Some(rope::Defaults {
            theta: 1_000_000.0,
            share: 1.0,
        }),
        ..mistral::KEYS
    },
    finish: |config, keys| {
        if keys.object("rope_parameters")?.is_none() {
            return Err(crate::error::Error::Config("rope_parameters is missing".into()));
        }
        windows::set_all(config, windows::length(keys, None)?);
        Ok(())
    },
    ..mistral::FAMILY
};

//! OLMo 3: OLMo 2 of which three layers in four slide; a scaled rope is that of the others alone.

use super::rope::{self, Defaults};
use super::{Family, Spelling, olmo2, windows};
use crate::config::QkNorm;
use crate::error::Error;

pub(super) const FAMILY: Family = Family {
    name: "olmo3",
    names: olmo2::NAMES,
    keys: Spelling {
        rope: None,
        ..olmo2::KEYS
    },
    finish: |config, keys| {
        config.qk_norm = QkNorm::Full;
        windows::set(config, keys, windows::length(keys, Some(4_096))?, |layer| {
            !(layer + 1).is_multiple_of(4)
        })?;
        let defaults = Defaults {
            theta: THETA,
            share: 1.0,
        };
        if let Some(theta) = keys.positive("rope_theta")?.filter(|theta| *theta != THETA) {
            // of one version of transformers it is that of all layers, of another that of the full ones
            return Err(Error::Config(format!(
                "rope_theta = {theta} is not {THETA}: which layers it is meant for, rope_parameters must say"
            )));
        }
        let ropes = rope::of_kinds(config, keys, defaults, defaults)?;
        rope::set_kinds(config, ropes);
        Ok(())
    },
};

const THETA: f64 = 500_000.0;

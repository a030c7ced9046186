//! Gemma 3: Gemma 2 with a norm over each query and key head, and another rope in the layers that slide.

use super::rope::{self, Defaults};
use super::{Family, Keys, Spelling, gemma, gemma2, windows};
use crate::config::{Config, QkNorm, Rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    name: "gemma3_text",
    names: gemma2::NAMES,
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(4))),
        position_count: ("max_position_embeddings", 131_072),
        rope: None,
        ..gemma::KEYS
    },
    finish: |config, keys| {
        gemma2::finish(config, keys)?;
        config.qk_norm = QkNorm::Head;
        config.attn_softcap = keys.positive("attn_logit_softcapping")?;
        config.logit_softcap = keys.positive("final_logit_softcapping")?;
        let own = keys.size("sliding_window_pattern")?;
        let pattern = own.or(keys.size("_sliding_window_pattern")?).unwrap_or(6);
        windows::set(config, keys, windows::length(keys, Some(4_096))?, |layer| {
            !(layer + 1).is_multiple_of(pattern)
        })?;
        let ropes = ropes(config, keys)?;
        rope::set_kinds(config, ropes);
        Ok(())
    },
};

/// The rope of the layers that see everything, and of those that slide.
fn ropes(config: &mut Config, keys: &Keys) -> Result<[Rope; 2]> {
    let share = 1.0;
    let full = Defaults {
        theta: keys.positive("rope_theta")?.unwrap_or(1_000_000.0),
        share,
    };
    let sliding = Defaults {
        theta: keys.positive("rope_local_base_freq")?.unwrap_or(10_000.0),
        share,
    };
    rope::of_kinds(config, keys, full, sliding)
}

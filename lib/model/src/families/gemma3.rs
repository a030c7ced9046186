//! Gemma 3: Gemma 2 with a norm over each query and key head, and another rope in the layers that slide.

use super::rope::{self, Defaults};
use super::{Family, Keys, Spelling, gemma, gemma2, windows};
use crate::config::{Config, QkNorm, Rope};
use crate::error::{Error, Result};

pub(super) const FAMILY: Family = Family {
    name: "gemma3_text",
    names: gemma2::NAMES,
    keys: Spelling {
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
        config.ropes = ropes(config, keys)?.into();
        for layer in &mut config.layers {
            layer.rope = Some(usize::from(layer.window.is_some()));
        }
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
    let legacy = keys.object("rope_scaling")?;
    let Some(both) = keys.object("rope_parameters")? else {
        return Ok([
            rope::of(config, keys, legacy, full)?,
            rope::of(config, keys, None, sliding)?,
        ]);
    };
    let both = Keys::new(both);
    let (Some(of_full), Some(of_sliding)) = (both.object("full_attention")?, both.object("sliding_attention")?) else {
        return Err(Error::Config(
            "rope_parameters lacks full_attention or sliding_attention".into(),
        ));
    };
    both.refuse_unread()?;
    Ok([
        rope::of(config, keys, Some(of_full), full)?,
        rope::of(config, keys, Some(of_sliding), sliding)?,
    ])
}

//! SmolLM 3: Llama of which some layers have no rope; those may slide.

use serde_json::Value;

use super::keys::wrong;
use super::{Family, Keys, Spelling, llama, rope, windows};
use crate::config::Config;
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    name: "smollm3",
    names: llama::NAMES,
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(4))),
        position_count: ("max_position_embeddings", 32_768),
        rope: Some(rope::Defaults {
            theta: 2_000_000.0,
            share: 1.0,
        }),
        tied: true,
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.mlp_bias = keys.flag("mlp_bias", false)?;
        let given = keys.list("no_rope_layers", config.layers.len(), "numbers 0 or 1")?;
        leave_ropes_out(config, keys, given)?;
        let slides = keys.flag("use_sliding_window", false)?;
        let length = windows::length(keys, None)?.filter(|_| slides);
        let ropes: Vec<_> = config.layers.iter().map(|layer| layer.rope).collect();
        windows::set(config, keys, length, |layer| ropes[layer].is_none())
    },
};

/// Layers with a 0 in `no_rope_layers`, which is `given`, or by default every so many, have none.
pub(super) fn leave_ropes_out(config: &mut Config, keys: &Keys, given: Option<&[Value]>) -> Result<()> {
    let interval = keys.size("no_rope_layer_interval")?.unwrap_or(4);
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let rotates = match given.map(|given| &given[index]) {
            None => !(index + 1).is_multiple_of(interval),
            Some(value) => match value.as_u64() {
                Some(flag @ 0..=1) => flag == 1,
                _ => {
                    return Err(wrong(
                        "no_rope_layers",
                        &Value::Array(vec![value.clone()]),
                        "numbers 0 or 1",
                    ));
                }
            },
        };
        layer.rope = layer.rope.filter(|_| rotates);
    }
    Ok(())
}

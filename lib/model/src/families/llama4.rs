//! Llama 4's decoder of text: experts beside an MLP for every row, chunks of attention in the layers with a rope, and queries that
//! grow with their position in those without.

use serde_json::Value;

use super::keys::{POSITIONS_MAX, wrong};
use super::{Family, Keys, Spelling, llama, mixtral, rope, smollm3, windows};
use crate::config::{Config, Experts, QkNorm, QueryGrowth};
use crate::error::Result;
use crate::names::{self, Hidden, Names};
use crate::ops::{ExpertWeights, RopePairs, Weighed, Window};

pub(super) const FAMILY: Family = Family {
    name: "llama4_text",
    names: Names {
        mlp: "feed_forward.",
        hidden: Hidden::Gated {
            gate: "gate_proj",
            up: "up_proj",
        },
        mlp_out: "down_proj",
        router: "feed_forward.router",
        experts: names::Experts::Together {
            hidden: "feed_forward.experts.gate_up_proj",
            in_pairs: false,
            down: "feed_forward.experts.down_proj",
        },
        shared_expert: Some("feed_forward.shared_expert."),
        ..llama::NAMES
    },
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(8))),
        head_dim: Some(128),
        position_count: ("max_position_embeddings", 131_072),
        norm_eps: ("rms_norm_eps", 1e-5),
        rope: Some(rope::Defaults {
            theta: 500_000.0,
            share: 1.0,
        }),
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.rope_pairs = RopePairs::Interleaved;
        if keys.flag("use_qk_norm", true)? {
            config.qk_norm = QkNorm::Turned;
        }
        let plain = mixtral::experts(keys, (mixtral::count_key(keys), 16), 1, false)?;
        config.experts = Some(Experts {
            weights: ExpertWeights::Sigmoid,
            weighed: Weighed::Inputs,
            ..plain
        });
        leave_experts_out(config, keys)?;
        smollm3::leave_ropes_out(config, keys, listed_ropes(config, keys)?)?;
        config.query_growth = query_growth(keys)?;
        cut_into_chunks(config, keys)
    },
};

/// Layers that `moe_layers` does not name, or by default all but every so many, have one MLP.
fn leave_experts_out(config: &mut Config, keys: &Keys) -> Result<()> {
    let step = keys.size("interleave_moe_layer_step")?.unwrap_or(1);
    let size = keys.size("intermediate_size_mlp")?.unwrap_or(16_384);
    let given = keys.get("moe_layers");
    let given = given.map(|value| layers_of(value, config.layers.len())).transpose()?;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let has_experts = match &given {
            None => (index + 1).is_multiple_of(step),
            Some(layers) => layers.contains(&index),
        };
        layer.dense = (!has_experts).then_some(size);
    }
    Ok(())
}

fn layers_of(value: &Value, count: usize) -> Result<Vec<usize>> {
    let layer = |value: &Value| {
        value
            .as_u64()
            .map(|layer| layer as usize)
            .filter(|layer| *layer < count)
    };
    let layers = value.as_array().and_then(|list| list.iter().map(layer).collect());
    layers.ok_or_else(|| wrong("moe_layers", value, &format!("a list of layers below {count}")))
}

/// `no_rope_layers`, where it says anything: an empty list does not.
fn listed_ropes<'a>(config: &Config, keys: &Keys<'a>) -> Result<Option<&'a [Value]>> {
    const KEY: &str = "no_rope_layers";
    match keys.get(KEY).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        true => Ok(None),
        false => keys.list(KEY, config.layers.len(), "numbers 0 or 1"),
    }
}

fn query_growth(keys: &Keys) -> Result<Option<QueryGrowth>> {
    let stretch = keys.positive("floor_scale")?.unwrap_or(8_192.0) as f32;
    let scale = keys.number("attn_scale")?.unwrap_or(0.1) as f32;
    let is_on = match keys.get("attn_temperature_tuning").and_then(Value::as_u64) {
        Some(number) => number > 0, // how the first checkpoints spell it
        None => keys.flag("attn_temperature_tuning", true)?,
    };
    Ok(is_on.then_some(QueryGrowth { stretch, scale }))
}

/// Layers with a rope see their own chunk, unless `layer_types` says otherwise.
fn cut_into_chunks(config: &mut Config, keys: &Keys) -> Result<()> {
    const KEY: &str = "attention_chunk_size";
    let length = keys.size_at_most(KEY, POSITIONS_MAX)?;
    let length = if keys.has(KEY) { length } else { Some(8_192) }; // null means that nothing is cut
    let kind = windows::Kind {
        name: "chunked_attention",
        key: KEY,
        window: length.map(Window::Chunk),
    };
    let turns: Vec<_> = config.layers.iter().map(|layer| layer.rope.is_some()).collect();
    windows::set_kind(config, keys, kind, |layer| turns[layer])
}

//! gpt-oss: experts in the place of the MLP, whose matrices are stored together and have biases; each head has a sink, every other
//! layer slides, and the rope is that of YaRN.

use serde_json::json;

use super::{Family, Keys, Spelling, llama, mixtral, rope, windows};
use crate::config::{Config, Experts, Gate, Rope};
use crate::error::{Error, Result};
use crate::names::{self, Names};
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    name: "gpt_oss",
    names: Names {
        router: "mlp.router",
        experts: names::Experts::Together {
            hidden: "mlp.experts.gate_up_proj",
            in_pairs: true,
            down: "mlp.experts.down_proj",
        },
        ..llama::NAMES
    },
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(8))),
        head_dim: Some(64),
        position_count: ("max_position_embeddings", 131_072),
        norm_eps: ("rms_norm_eps", 1e-5),
        attention_bias: Some(true),
        rope: Some(ROPE),
        ..llama::KEYS
    },
    finish: |config, keys| {
        (config.sinks, config.mlp_bias) = (true, true);
        config.experts = Some(experts(config, keys)?);
        windows::set(config, keys, windows::length(keys, Some(128))?, |layer| layer % 2 == 0)?;
        keys.get("initial_context_length"); // what the rope's object says too, which is read
        let is_told = ["rope_parameters", "rope_scaling"].map(|key| keys.get(key).is_some());
        if !is_told.contains(&true) {
            config.ropes = vec![usual_rope(config, keys)?];
        }
        Ok(())
    },
};

const ROPE: rope::Defaults = rope::Defaults {
    theta: 150_000.0,
    share: 1.0,
};

fn experts(config: &Config, keys: &Keys) -> Result<Experts> {
    let plain = mixtral::experts(keys, (mixtral::count_key(keys), 128), 4, true)?;
    if let Some(chosen) = keys.size("experts_per_token")?.filter(|chosen| *chosen != plain.chosen) {
        return Err(Error::Config(format!(
            "experts_per_token = {chosen} is not num_experts_per_tok = {}",
            plain.chosen
        )));
    }
    if config.activation != Activation::Silu {
        return Err(Error::Config(
            "hidden_act is not \"silu\", which alone is computed".into(),
        ));
    }
    Ok(Experts {
        router_bias: true,
        gate: Gate::Clamped {
            alpha: keys.positive("swiglu_alpha")?.unwrap_or(1.702) as f32,
            limit: keys.positive("swiglu_limit")?.unwrap_or(7.0) as f32,
        },
        ..plain
    })
}

/// What transformers takes where config.json says nothing.
fn usual_rope(config: &mut Config, keys: &Keys) -> Result<Rope> {
    let scaling = json!({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
        "original_max_position_embeddings": 4096});
    let defaults = rope::Defaults {
        theta: keys.positive("rope_theta")?.unwrap_or(ROPE.theta),
        ..ROPE
    };
    rope::of(config, keys, scaling.as_object(), defaults)
}

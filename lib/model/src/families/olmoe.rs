//! OLMoE: Llama with norms over the whole query and key projections, and experts in the place of the MLP.

use super::{Family, Spelling, llama, mixtral};
use crate::config::QkNorm;
use crate::names::{Hidden, Names};

pub(super) const FAMILY: Family = Family {
    name: "olmoe",
    names: Names {
        hidden: Hidden::Gated {
            gate: "gate_proj",
            up: "up_proj",
        },
        mlp_out: "down_proj",
        ..llama::NAMES
    },
    keys: Spelling {
        position_count: ("max_position_embeddings", 4_096),
        norm_eps: ("rms_norm_eps", 1e-5),
        ..llama::KEYS
    },
    finish: |config, keys| {
        config.qk_norm = QkNorm::Full;
        config.qkv_clip = keys.positive("clip_qkv")?;
        config.experts = Some(mixtral::experts(
            keys,
            (mixtral::count_key(keys), 64),
            8,
            keys.flag("norm_topk_prob", false)?,
        )?);
        Ok(())
    },
};

//! GPT-J: one layer norm for attention and MLP, which are added together; a rope that turns neighbouring dimensions.

use super::{Family, Keys, Spelling, gpt2, llama};
use crate::config::{Config, Norm, Rope, RopeScaling};
use crate::error::{Error, Result};
use crate::names::{Hidden, Names, Qkv};
use crate::ops::RopePairs;

pub(super) const FAMILY: Family = Family {
    name: "gptj",
    names: NAMES,
    keys: Spelling {
        position_count: ("n_positions", 2_048),
        tied: false,
        ..gpt2::KEYS
    },
    finish: |config, keys| {
        config.norm = Norm::Layer;
        config.parallel = true;
        (config.mlp_bias, config.head_bias) = (true, true);
        keys.get("scale_attn_weights"); // scores are scaled whatever it says
        rotate(config, keys)
    },
};

fn rotate(config: &mut Config, keys: &Keys) -> Result<()> {
    if !keys.flag("rotary", true)? {
        return Err(Error::Config("rotary = false is not computed here".into()));
    }
    config.rope_pairs = RopePairs::Interleaved;
    config.ropes = vec![Rope {
        theta: 10_000.0,
        dims: keys.size("rotary_dim")?.unwrap_or(64),
        scaling: RopeScaling::None,
    }];
    config.layers.iter_mut().for_each(|layer| layer.rope = Some(0));
    Ok(())
}

const NAMES: Names = Names {
    embedding: "transformer.wte",
    blocks: "transformer.h",
    before_attention: Some("ln_1"),
    before_mlp: None,
    qkv: Qkv::Separate {
        q: "attn.q_proj",
        k: "attn.k_proj",
        v: "attn.v_proj",
    },
    attn_out: "attn.out_proj",
    hidden: Hidden::Plain("mlp.fc_in"),
    mlp_out: "mlp.fc_out",
    norm: "transformer.ln_f",
    ..llama::NAMES
};

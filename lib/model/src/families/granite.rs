//! Granite: Llama with four multipliers.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "granite",
    names: llama::NAMES,
    keys: llama::KEYS,
    finish: |config, keys| {
        config.mlp_bias = keys.flag("mlp_bias", false)?;
        config.embed_scale = keys.positive("embedding_multiplier")?;
        config.residual_scale = keys.positive("residual_multiplier")?;
        config.logit_divisor = keys.positive("logits_scaling")?;
        config.attn_scale = keys.positive("attention_multiplier")?.unwrap_or(1.0);
        Ok(())
    },
};

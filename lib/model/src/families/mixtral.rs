//! Mixtral: Mistral with experts in the place of the MLP.

use super::{Family, Keys, Spelling, mistral, rope, windows};
use crate::config::{Experts, Gate};
use crate::error::Result;
use crate::names::{self, Hidden, Names};
use crate::ops::{ExpertWeights, Weighed};

pub(super) const FAMILY: Family = Family {
    name: "mixtral",
    names: Names {
        router: "block_sparse_moe.gate",
        experts: names::Experts::Each("block_sparse_moe.experts"),
        hidden: Hidden::Gated { gate: "w1", up: "w3" },
        mlp_out: "w2",
        ..mistral::FAMILY.names
    },
    keys: Spelling {
        norm_eps: ("rms_norm_eps", 1e-5),
        rope: Some(rope::Defaults {
            theta: 1_000_000.0,
            share: 1.0,
        }),
        ..mistral::KEYS
    },
    finish: |config, keys| {
        config.experts = Some(experts(keys, ("num_local_experts", 8), 2, true)?);
        windows::set_all(config, windows::length(keys, None)?);
        Ok(())
    },
};

/// What the keys say, or transformers takes where they are absent.
pub(super) fn experts(keys: &Keys, count: (&str, usize), chosen: usize, renormalise: bool) -> Result<Experts> {
    Ok(Experts {
        count: keys.size(count.0)?.unwrap_or(count.1),
        chosen: keys.size("num_experts_per_tok")?.unwrap_or(chosen),
        weights: match renormalise {
            true => ExpertWeights::ShareOfChosen,
            false => ExpertWeights::Share,
        },
        weighed: Weighed::Outputs,
        router_bias: false,
        gate: Gate::Plain,
    })
}

/// The key of the number of experts: older configs say `num_experts`, newer ones either.
pub(super) fn count_key(keys: &Keys) -> &'static str {
    match keys.has("num_local_experts") {
        true => "num_local_experts",
        false => "num_experts",
    }
}

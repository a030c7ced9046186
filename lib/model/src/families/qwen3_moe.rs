//! Qwen3 with experts in the place of the MLP, in every block.

use super::{Family, Keys, Spelling, mixtral, olmoe, qwen3, windows};
use crate::config::QkNorm;
use crate::error::{Error, Result};

pub(super) const FAMILY: Family = Family {
    name: "qwen3_moe",
    names: olmoe::FAMILY.names,
    keys: Spelling {
        kv_head_count: Some(("num_key_value_heads", Some(4))),
        head_dim: None,
        mlp_size: ("moe_intermediate_size", None),
        ..qwen3::FAMILY.keys
    },
    finish: |config, keys| {
        config.qk_norm = QkNorm::Head;
        keys.get("intermediate_size"); // of blocks without experts
        refuse_dense_blocks(keys)?;
        config.experts = Some(mixtral::experts(
            keys,
            (mixtral::count_key(keys), 128),
            8,
            keys.flag("norm_topk_prob", false)?,
        )?);
        let slides = keys.flag("use_sliding_window", false)?;
        let length = windows::length(keys, Some(4_096))?.filter(|_| slides);
        windows::set_all(config, length);
        Ok(())
    },
};

fn refuse_dense_blocks(keys: &Keys) -> Result<()> {
    let listed = keys.get("mlp_only_layers").and_then(|list| list.as_array());
    if listed.is_some_and(|list| !list.is_empty()) || keys.size("decoder_sparse_step")?.is_some_and(|step| step != 1) {
        return Err(Error::Config(
            "mlp_only_layers or decoder_sparse_step leave blocks without experts, which is not computed here".into(),
        ));
    }
    Ok(())
}

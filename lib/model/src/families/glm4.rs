//! GLM-4 of 2025: the older one with norms behind attention and MLP too.

use super::{Family, glm};
use crate::names::Names;

pub(super) const FAMILY: Family = Family {
    name: "glm4",
    names: Names {
        after_attention: Some("post_self_attn_layernorm"),
        after_mlp: Some("post_mlp_layernorm"),
        ..glm::NAMES
    },
    ..glm::FAMILY
};

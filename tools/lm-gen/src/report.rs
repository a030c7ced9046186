//! The keys of lm-gen's stream beside those of `records::Completion`.

use model::Compute;
use serde::{Deserialize, Serialize};

/// What `begin` says besides tool, version and plan.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct BeginKeys {
    pub model_digest: String,
    pub input_digest: String,
    /// `index/count`; absent for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    pub compute: Compute,
}

/// A record that is in the partial file for good: where it ends, and the digest of its line.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Mark {
    pub end: u64,
    pub digest: String,
}

//! What may be asked of a product beside its numbers.

use serde::{Deserialize, Serialize};

/// How exact products of f32 are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// That of f32.
    #[default]
    Full,
    /// Where the processor has a tile unit, two parts of bf16 of each number: 16 bits of it.
    Medium,
}

/// What may be asked of a product beside its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Rows have the bits that each has alone, on any x86-64 processor with AVX2.
    pub steady: bool,
    pub precision: Precision,
}

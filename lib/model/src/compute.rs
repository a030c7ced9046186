//! What may change the last bits of a number beside the weights and the input.

use candle_core::{DType, Device};
pub use products::Precision;
use serde::{Deserialize, Serialize};

/// The object `compute` of a plan, a `begin` record and a container. Without the device's number, threads and host: they change
/// no bit. `process::plan::digest` leaves device and kernel out, so that shards of two machines have one plan; they are
/// compared on their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// `cpu` or `cuda`.
    pub device: String,
    /// `f32`, `bf16` or `f16`.
    pub dtype: String,
    /// The family of products: two of them may differ in the last bits.
    pub kernel: String,
    /// Whether products of f32 may be less exact.
    #[serde(default, skip_serializing_if = "is_full")]
    pub precision: Precision,
    /// Whether the matrices of blocks are multiplied as a file stores them.
    #[serde(default, skip_serializing_if = "is_dequantised")]
    pub weights: Weights,
}

/// What matrices that are stored quantised are multiplied as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// As numbers of the type that is computed in.
    #[default]
    Dequantised,
    /// As they are stored, by activations that are rounded to eight bits.
    AsStored,
}

impl Compute {
    pub fn new(device: &Device, dtype: DType, precision: Precision) -> Self {
        Self {
            device: if device.is_cpu() { "cpu" } else { "cuda" }.into(),
            dtype: dtype.as_str().into(),
            kernel: kernel(device, dtype, precision).into(),
            precision,
            weights: Weights::Dequantised,
        }
    }
}

fn is_dequantised(weights: &Weights) -> bool {
    *weights == Weights::Dequantised
}

fn is_full(precision: &Precision) -> bool {
    *precision == Precision::Full
}

fn kernel(device: &Device, dtype: DType, precision: Precision) -> &'static str {
    match dtype {
        _ if !device.is_cpu() => "cuda",
        DType::BF16 => products::family::<half::bf16>(precision),
        _ => products::family::<f32>(precision),
    }
}

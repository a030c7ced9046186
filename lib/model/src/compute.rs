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
}

impl Compute {
    pub fn new(device: &Device, dtype: DType, precision: Precision) -> Self {
        Self {
            device: if device.is_cpu() { "cpu" } else { "cuda" }.into(),
            dtype: dtype.as_str().into(),
            kernel: kernel(device, dtype, precision).into(),
            precision,
        }
    }
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

//! What may change the last bits of a number beside the weights and the input.

use candle_core::{DType, Device};
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
}

impl Compute {
    pub fn new(device: &Device, dtype: DType) -> Self {
        Self {
            device: if device.is_cpu() { "cpu" } else { "cuda" }.into(),
            dtype: dtype.as_str().into(),
            kernel: kernel(device, dtype).into(),
        }
    }
}

fn kernel(device: &Device, dtype: DType) -> &'static str {
    match device.is_cpu() {
        true => cpu_kernel(dtype),
        false => "cuda",
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_kernel(dtype: DType) -> &'static str {
    if is_x86_feature_detected!("avx512f") {
        match dtype == DType::BF16 && is_x86_feature_detected!("avx512bf16") {
            true => "avx512-bf16",
            false => "avx512",
        }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "avx2"
    } else {
        "portable"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_kernel(_: DType) -> &'static str {
    match cfg!(target_arch = "aarch64") {
        true => "neon",
        false => "portable",
    }
}

//! The words of `--device`, `--dtype` and `--precision`.

use candle_core::{DType, Device};

use crate::compute::Precision;
use crate::error::{Error, Result};

/// Opens a device by name.
pub fn open(name: &str) -> Result<Device> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", "0") => Ok(Device::Cpu),
        ("cuda", index) => {
            let ordinal: usize = index
                .parse()
                .map_err(|_| Error::Device(format!("{name:?}: {index:?} is not a device number")))?;
            if !candle_core::utils::cuda_is_available() {
                return Err(Error::Device(format!(
                    "{name:?}: this binary was built without the feature `cuda`"
                )));
            }
            Device::new_cuda(ordinal).map_err(|cause| Error::Device(format!("{name:?}: {cause}")))
        }
        _ => Err(Error::Device(format!(
            "{name:?} is unknown (known: cpu, cuda, cuda:1, …)"
        ))),
    }
}

/// Reads how exact products are to be; what is not f32 on the CPU has one way alone.
pub fn precision(name: &str, device: &Device, dtype: DType) -> Result<Precision> {
    match name {
        "full" => Ok(Precision::Full),
        "medium" if device.is_cpu() && dtype == DType::F32 => Ok(Precision::Medium),
        "medium" => Err(Error::Device(format!("{name:?} is for products of f32 on the CPU"))),
        _ => Err(Error::Device(format!("{name:?} is unknown (known: full, medium)"))),
    }
}

/// Reads a compute type by name.
pub fn dtype(name: &str) -> Result<DType> {
    match name {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        "bf16" => Ok(DType::BF16),
        _ => Err(Error::Device(format!(
            "cannot compute in {name:?} (known: f32, f16, bf16)"
        ))),
    }
}

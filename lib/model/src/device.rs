//! The words of `--device`, `--dtype` and `--precision`.

use candle_core::{DType, Device};

use crate::compute::Precision;
use crate::error::{Error, Result};

/// A name of a device, whether or not it is there: cpu, cuda, or cuda with a number.
pub fn known(name: &str) -> Result<String> {
    let is_known = match name.split_once(':') {
        None => ["cpu", "cuda"].contains(&name),
        Some((kind, index)) => kind == "cuda" && index.parse::<usize>().is_ok() || name == "cpu:0",
    };
    let unknown = || Error::Device(format!("{name:?} is unknown (known: cpu, cuda, cuda:1, …)"));
    is_known.then(|| name.to_owned()).ok_or_else(unknown)
}

/// The number of the graphics card that a name means, if it means one.
pub fn card(name: &str) -> Result<Option<usize>> {
    let name = known(name)?;
    let number = |index: &str| index.strip_prefix(':').map_or(Ok(0), str::parse);
    let index = name.strip_prefix("cuda").map(number).transpose();
    index.map_err(|cause| Error::Device(format!("{name:?}: {cause}")))
}

/// Opens a device by name.
pub fn open(name: &str) -> Result<Device> {
    let Some(index) = card(name)? else {
        return Ok(Device::Cpu);
    };
    if !candle_core::utils::cuda_is_available() {
        return Err(Error::Device(format!(
            "{name:?}: this binary was built without the feature `cuda`"
        )));
    }
    Device::new_cuda(index).map_err(|cause| Error::Device(format!("{name:?}: {cause}")))
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

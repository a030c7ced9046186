//! Stored blocks → f32, in parallel, by the arithmetic of the format's own library.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage};
use candle_core::{Device, Result};
use rayon::prelude::*;

use super::file::Stored;

/// Numbers that one thread takes at a time: a multiple of every block.
const CHUNK: usize = 1 << 16;

/// The numbers of `bytes`, which hold whole blocks.
pub fn dequantise(bytes: &[u8], stored: Stored) -> Result<Vec<f32>> {
    let (block, block_bytes) = stored.block();
    let chunks: Vec<Vec<f32>> = bytes
        .par_chunks(CHUNK / block * block_bytes)
        .map(|bytes| {
            let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, kind(stored))?;
            let count = bytes.len() / block_bytes * block;
            let tensor = candle_core::quantized::QTensor::new(storage, count)?.dequantize(&Device::Cpu)?;
            tensor.to_vec1()
        })
        .collect::<Result<_>>()?;
    Ok(chunks.concat())
}

fn kind(stored: Stored) -> GgmlDType {
    match stored {
        Stored::F32 => GgmlDType::F32,
        Stored::F16 => GgmlDType::F16,
        Stored::Bf16 => GgmlDType::BF16,
        Stored::Q4_0 => GgmlDType::Q4_0,
        Stored::Q4_1 => GgmlDType::Q4_1,
        Stored::Q5_0 => GgmlDType::Q5_0,
        Stored::Q5_1 => GgmlDType::Q5_1,
        Stored::Q8_0 => GgmlDType::Q8_0,
        Stored::Q2K => GgmlDType::Q2K,
        Stored::Q3K => GgmlDType::Q3K,
        Stored::Q4K => GgmlDType::Q4K,
        Stored::Q5K => GgmlDType::Q5K,
        Stored::Q6K => GgmlDType::Q6K,
    }
}

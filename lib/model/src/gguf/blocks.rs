//! Stored blocks → f32, in parallel, by the arithmetic of the format's own library.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result};
use half::f16;
use rayon::prelude::*;

use super::file::Stored;

/// Numbers that one thread takes at a time: a multiple of every block.
const CHUNK: usize = 1 << 16;

/// The numbers of `bytes`, which hold whole blocks.
pub fn dequantise(bytes: &[u8], stored: Stored) -> Result<Vec<f32>> {
    let (block, block_bytes) = stored.block();
    let mut values = vec![0.0; bytes.len() / block_bytes * block];
    let chunks = bytes.par_chunks(CHUNK / block * block_bytes);
    let filled = values.par_chunks_mut(CHUNK).zip(chunks);
    filled.try_for_each(|(values, bytes)| match kind(stored) {
        Kind::Candle(kind) => by_candle(bytes, kind, values),
        Kind::Table(decode) => {
            let blocks = bytes.chunks_exact(block_bytes);
            values
                .chunks_exact_mut(block)
                .zip(blocks)
                .for_each(|(values, bytes)| decode(bytes, values));
            Ok(())
        }
    })?;
    Ok(values)
}

/// Who decodes a type.
enum Kind {
    Candle(GgmlDType),
    /// One block's bytes → its numbers.
    Table(fn(&[u8], &mut [f32])),
}

/// The type under which blocks are multiplied as they are stored; none for plain floats and for those that only stand for numbers.
pub fn multiplied(stored: Stored) -> Option<GgmlDType> {
    match kind(stored) {
        Kind::Candle(GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16) | Kind::Table(_) => None,
        Kind::Candle(kind) => Some(kind),
    }
}

fn kind(stored: Stored) -> Kind {
    Kind::Candle(match stored {
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
        Stored::Iq4Nl => return Kind::Table(iq4_nl),
        Stored::Iq4Xs => return Kind::Table(iq4_xs),
        Stored::Mxfp4 => return Kind::Table(mxfp4),
    })
}

fn by_candle(bytes: &[u8], kind: GgmlDType, values: &mut [f32]) -> Result<()> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, kind)?;
    let tensor = QTensor::new(storage, values.len())?.dequantize(&Device::Cpu)?;
    values.copy_from_slice(&tensor.to_vec1::<f32>()?);
    Ok(())
}

/// What the 16 codes of the IQ4 types stand for, before their scale.
const IQ4_CODES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// Floats of one sign, two exponent bits and one of mantissa.
pub const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// A scale, then 32 codes: low halves of 16 bytes, then high halves.
fn iq4_nl(bytes: &[u8], values: &mut [f32]) {
    let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    codes(&bytes[2..], scale, &IQ4_CODES, values);
}

/// A scale, the high two bits of eight 6-bit scales, their low four bits, then eight groups of 32 codes.
fn iq4_xs(bytes: &[u8], values: &mut [f32]) {
    let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    let (low, groups) = bytes[4..].split_at(4);
    let each = groups.chunks_exact(16).zip(values.chunks_exact_mut(32));
    for (group, (bytes, values)) in each.enumerate() {
        let low = (low[group / 2] >> (4 * (group % 2))) & 0xf;
        let high = ((high >> (2 * group)) & 3) as u8;
        codes(
            bytes,
            scale * f32::from(((high << 4) | low) as i8 - 32),
            &IQ4_CODES,
            values,
        );
    }
}

/// A power of two, then 32 codes.
fn mxfp4(bytes: &[u8], values: &mut [f32]) {
    let scale = 2f64.powi(i32::from(bytes[0]) - 127) as f32;
    codes(&bytes[1..], scale, &E2M1, values);
}

/// What a byte's halves stand for: low halves of all bytes, then high halves.
fn codes(bytes: &[u8], scale: f32, table: &[f32; 16], values: &mut [f32]) {
    let (low, high) = values.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = scale * table[usize::from(byte & 0xf)];
        *high = scale * table[usize::from(byte >> 4)];
    }
}

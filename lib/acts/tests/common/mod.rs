//! Containers for the tests: one with every dtype and codec in small blocks, and reproducible noise.
#![allow(dead_code, reason = "each test file uses its part")]

use acts::{Codec, Dtype, Header, Role, Site, Summary, TensorSpec, Writer};

pub struct Container {
    pub bytes: Vec<u8>,
    /// Raw bytes of each tensor.
    pub raw: Vec<Vec<u8>>,
    pub summary: Summary,
}

/// Bytes that follow from `seed` and look random.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Finite values of several magnitudes, as bytes of `dtype`.
pub fn values(dtype: Dtype, count: usize, seed: u64) -> Vec<u8> {
    let mut raw = Vec::new();
    for (index, byte) in noise(count, seed).into_iter().enumerate() {
        let value = (f32::from(byte) - 127.5) * 1.37f32.powi((index % 11) as i32);
        match dtype {
            Dtype::F64 => raw.extend(f64::from(value).to_le_bytes()),
            Dtype::F32 => raw.extend(value.to_le_bytes()),
            Dtype::F16 => raw.extend(half::f16::from_f32(value).to_le_bytes()),
            Dtype::Bf16 => raw.extend(half::bf16::from_f32(value).to_le_bytes()),
            Dtype::U32 => raw.extend(u32::from(byte).to_le_bytes()),
            Dtype::I64 => raw.extend((i64::from(byte) - 100).to_le_bytes()),
            Dtype::U8 => raw.push(byte),
        }
    }
    raw
}

/// A container with every dtype under every codec, several blocks each, pushed in turns.
pub fn sample_container(threads: usize) -> Container {
    let mut header = Header::new("test", "0", "plan", None);
    for codec in Codec::ALL {
        for dtype in Dtype::ALL {
            header
                .tensors
                .push(TensorSpec::new(format!("{codec}/{dtype}"), dtype, &[3]).codec(codec));
        }
    }
    header
        .tensors
        .push(TensorSpec::activations(Site::ResidPost, Some(0), Dtype::Bf16, 8));
    header
        .tensors
        .push(TensorSpec::new("wide", Dtype::F64, &[]).role(Role::Basis));
    for spec in &mut header.tensors {
        spec.block_row_count = 64;
    }
    let rows = 300;
    let raw: Vec<Vec<u8>> = header
        .tensors
        .iter()
        .enumerate()
        .map(|(index, spec)| values(spec.dtype, rows * spec.row_elements().unwrap() as usize, index as u64))
        .collect();
    let mut writer = Writer::new(Vec::new(), header, threads).unwrap();
    for turn in 0..rows / 20 {
        for (tensor, raw) in raw.iter().enumerate() {
            let row_bytes = raw.len() / rows;
            writer
                .push(tensor, &raw[turn * 20 * row_bytes..(turn + 1) * 20 * row_bytes])
                .unwrap();
        }
    }
    let (bytes, summary) = writer.finish().unwrap();
    Container { bytes, raw, summary }
}

//! f32 ↔ bf16, many at a time: one by one, the `half` crate's conversions took half of a forward pass.

use half::bf16;
use rayon::prelude::*;

use crate::wide;

/// Numbers of a task.
const CHUNK: usize = 32 * 1024;

/// Rounded to nearest, ties to even; what is no number stays none.
pub fn narrow(numbers: &[f32]) -> Vec<bf16> {
    convert(numbers, bf16::ZERO, |x| {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        // whichever bits it loses
        let kept = if x.is_nan() { bits >> 16 | 0x40 } else { rounded };
        bf16::from_bits(kept as u16)
    })
}

pub fn widen(numbers: &[bf16]) -> Vec<f32> {
    convert(numbers, 0.0, |x| f32::from_bits(u32::from(x.to_bits()) << 16))
}

fn convert<A: Copy + Sync, B: Copy + Send>(from: &[A], empty: B, f: impl Fn(A) -> B + Sync) -> Vec<B> {
    let mut into = vec![empty; from.len()];
    into.par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(into, from)| {
            wide!({
                for (into, &from) in into.iter_mut().zip(from) {
                    *into = f(from);
                }
            });
        });
    into
}

//! f32 ↔ bf16, many at a time: one by one, the `half` crate's conversions took half of a forward pass.

use half::bf16;
use rayon::prelude::*;

use crate::wide;

/// Numbers of a task.
const CHUNK: usize = 32 * 1024;

/// Rounded to nearest, ties to even; what is no number stays none.
#[inline(always)]
pub fn narrowed(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // whichever bits it loses
    let kept = if x.is_nan() { bits >> 16 | 0x40 } else { rounded };
    bf16::from_bits(kept as u16)
}

#[inline(always)]
pub fn widened(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// [`narrowed`], of each.
pub fn narrow(numbers: &[f32]) -> Vec<bf16> {
    convert(numbers, narrowed)
}

/// [`widened`], of each.
pub fn widen(numbers: &[bf16]) -> Vec<f32> {
    convert(numbers, widened)
}

fn convert<A: Copy + Sync, B: Copy + Send>(from: &[A], f: impl Fn(A) -> B + Sync) -> Vec<B> {
    let mut into = Vec::with_capacity(from.len());
    into.spare_capacity_mut()[..from.len()]
        .par_chunks_mut(CHUNK)
        .zip(from.par_chunks(CHUNK))
        .for_each(|(into, from)| {
            wide!({
                for (into, &from) in into.iter_mut().zip(from) {
                    into.write(f(from));
                }
            });
        });
    // SAFETY: the zip of equally cut, equally long chunks has written every number.
    unsafe { into.set_len(from.len()) };
    into
}

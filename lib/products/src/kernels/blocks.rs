//! A weight that is kept in blocks meets one row of x: its numbers are made in AVX2's registers and never written. Bits are those of
//! the kernel for few rows, which sums the same numbers in the same order.
//!
//! With more rows of x the numbers are worth writing, once for all of them: [`write`] does that.

use std::arch::x86_64::*;

use super::{Operand, few};

/// Numbers of a group: as many as four registers hold.
const GROUP: usize = 32;
/// Rows of the weight that are summed side by side, so that no addition waits for the one before it.
pub(super) const ROWS: usize = 4;

/// A way to keep `NUMBERS` numbers, whole groups of 32, in `BYTES` bytes.
pub trait Blocks<const BYTES: usize, const NUMBERS: usize> {
    /// What the groups of a block have in common.
    type Scales;

    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    unsafe fn scales(block: &[u8; BYTES]) -> Self::Scales;

    /// The numbers of a group.
    ///
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    unsafe fn numbers(block: &[u8; BYTES], scales: &Self::Scales, group: usize) -> [__m256; 4];
}

/// Numbers of bf16, which as blocks of a whole group are no different.
pub struct Bf16;

impl Blocks<64, 32> for Bf16 {
    type Scales = ();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scales(_: &[u8; 64]) {}

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn numbers(block: &[u8; 64], _: &(), _: usize) -> [__m256; 4] {
        let mut numbers = [_mm256_setzero_ps(); 4];
        for (numbers, bytes) in numbers.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: sixteen bytes are there.
            let halves = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
            *numbers = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves));
        }
        numbers
    }
}

fn are_there() -> bool {
    few::has_avx2() && is_x86_feature_detected!("f16c")
}

/// Writes the numbers of `bytes`, rounded to the type of their place. False where the processor lacks the instructions or these are no
/// whole blocks, and nothing is written.
///
/// # Panics
/// If the place is of another size.
pub fn write<B: Blocks<BYTES, NUMBERS>, T: Operand, const BYTES: usize, const NUMBERS: usize>(
    bytes: &[u8],
    into: &mut [T],
) -> bool {
    let (blocks, rest) = bytes.as_chunks();
    if !rest.is_empty() || !are_there() {
        return false;
    }
    let (into, rest) = into.as_chunks_mut();
    assert!(rest.is_empty() && into.len() == blocks.len(), "whole blocks");
    // SAFETY: the instructions are there.
    unsafe { write_blocks::<B, T, BYTES, NUMBERS>(blocks, into) };
    true
}

#[target_feature(enable = "avx2,fma,f16c")]
fn write_blocks<B: Blocks<BYTES, NUMBERS>, T: Operand, const BYTES: usize, const NUMBERS: usize>(
    blocks: &[[u8; BYTES]],
    into: &mut [[T; NUMBERS]],
) {
    for (block, into) in blocks.iter().zip(into) {
        // SAFETY: this function has the instructions.
        let scales = unsafe { B::scales(block) };
        for (group, into) in into.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            // SAFETY: likewise.
            let numbers = unsafe { B::numbers(block, &scales, group) };
            for (numbers, into) in numbers.into_iter().zip(into.as_chunks_mut::<8>().0) {
                let mut lanes = [0.0; 8];
                // SAFETY: a register is eight numbers.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), numbers) };
                for (into, number) in into.iter_mut().zip(lanes) {
                    *into = T::of(number);
                }
            }
        }
    }
}

/// x · each of four rows of a weight. `None` where the processor lacks the instructions or the rows are no whole blocks.
///
/// # Panics
/// If a row has not as many numbers as x.
pub fn dots<B: Blocks<BYTES, NUMBERS>, const BYTES: usize, const NUMBERS: usize>(
    x: &[f32],
    w: [&[u8]; ROWS],
) -> Option<[f32; ROWS]> {
    let (x, rest) = x.as_chunks();
    if !rest.is_empty() || !are_there() {
        return None;
    }
    let w = w.map(|row| row.as_chunks().0);
    assert!(w.iter().all(|row| row.len() == x.len()), "rows of one length");
    // SAFETY: the instructions are there.
    Some(unsafe { dots_of_blocks::<B, BYTES, NUMBERS>(x, w) })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dots_of_blocks<B: Blocks<BYTES, NUMBERS>, const BYTES: usize, const NUMBERS: usize>(
    x: &[[f32; NUMBERS]],
    w: [&[[u8; BYTES]]; ROWS],
) -> [f32; ROWS] {
    let mut sums = [_mm256_setzero_ps(); ROWS];
    let [w0, w1, w2, w3] = w;
    for ((((x, w0), w1), w2), w3) in x.iter().zip(w0).zip(w1).zip(w2).zip(w3) {
        let w = [w0, w1, w2, w3];
        // SAFETY: this function has the instructions.
        let scales = unsafe { [B::scales(w0), B::scales(w1), B::scales(w2), B::scales(w3)] };
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            for ((w, scales), sum) in w.iter().zip(&scales).zip(&mut sums) {
                // SAFETY: likewise.
                let numbers = unsafe { B::numbers(w, scales, group) };
                for (numbers, x) in numbers.into_iter().zip(x.as_chunks::<8>().0) {
                    // SAFETY: eight numbers are a register.
                    let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
                    *sum = _mm256_fmadd_ps(x, numbers, *sum);
                }
            }
        }
    }
    let mut dots = [0.0; ROWS];
    for (dot, sum) in dots.iter_mut().zip(sums) {
        *dot = few::eight(sum);
    }
    dots
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::tests::{bits, values};
    use super::*;
    use crate::dense::matrix;
    use crate::rounding::{narrow, widen};
    use crate::{How, MixedProduct};

    #[test]
    fn dots_are_to_the_bit_the_products_of_the_numbers() {
        let k = 96;
        let (x, w) = (values(k, 1), narrow(&values(ROWS * k, 2)));
        let row = |at: usize| bytemuck::cast_slice::<bf16, u8>(&w[at * k..][..k]);
        let Some(found) = dots::<Bf16, _, _>(&x, [row(0), row(1), row(2), row(3)]) else {
            return harness::skip("f16c", "no AVX2 with F16C here");
        };
        if crate::family::<f32>(crate::Precision::Full) != "avx2" {
            return harness::skip("avx2", "other registers multiply here");
        }
        let w = widen(&w);
        let product = MixedProduct::of(matrix(&x, 1, k), matrix(&w, ROWS, k).reversed_axes(), How::default());
        assert_eq!(bits(&found), bits(&product.to_f32()));
    }

    #[test]
    fn what_is_no_whole_block_is_left_to_others() {
        let (x, w) = (values(48, 1), [0u8; 96]);
        assert_eq!(dots::<Bf16, _, _>(&x, [&w; ROWS]), None);
        assert!(!write::<Bf16, f32, _, _>(&w, &mut [0.0; 48]));
    }
}

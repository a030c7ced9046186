//! A weight that is kept in blocks meets one row of x: its numbers are made in registers and never written. Bits are those of
//! the kernel for few rows, which sums the same numbers in the same order: eight side by side, or sixteen where there is AVX-512.
//!
//! With more rows of x the numbers are worth writing, once for all of them: [`write`] does that.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::{Operand, few};

/// Numbers of a group: as many as four registers hold.
const GROUP: usize = 32;
/// Rows of the weight that are summed side by side, so that no addition waits for the one before it.
const ROWS: usize = 4;
/// Bytes that memory is read by.
const LINE: usize = 64;

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

    /// The same numbers in two registers.
    ///
    /// # Safety
    /// The processor has these too: AVX-512 F, BW, VL and VBMI.
    unsafe fn wide_numbers(block: &[u8; BYTES], scales: &Self::Scales, group: usize) -> [__m512; 2];
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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
    unsafe fn wide_numbers(block: &[u8; 64], _: &(), _: usize) -> [__m512; 2] {
        let mut numbers = [_mm512_setzero_ps(); 2];
        for (numbers, bytes) in numbers.iter_mut().zip(block.as_chunks::<32>().0) {
            // SAFETY: 32 bytes are there.
            let halves = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) });
            *numbers = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves));
        }
        numbers
    }
}

fn are_there() -> bool {
    few::has_avx2() && is_x86_feature_detected!("f16c")
}

fn makes_wide() -> bool {
    are_there()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
}

/// Once for each of the first groups, written out, so that what depends on the group is known when the program is built.
macro_rules! for_each_group {
    ($group:ident in [$($number:literal)*] of $count:expr, $body:block) => {
        const { assert!($count <= [$($number),*].len(), "every group has its turn") };
        $(if $number < $count {
            let $group = $number;
            $body
        })*
    };
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
    unsafe {
        match makes_wide() {
            true => write_sixteens::<B, T, BYTES, NUMBERS>(blocks, into),
            false => write_eights::<B, T, BYTES, NUMBERS>(blocks, into),
        }
    }
    true
}

/// Writes the numbers of blocks: `$numbers` makes them, so many in a register.
macro_rules! write_blocks {
    ($name:ident, $features:literal, $numbers:ident, $lanes:literal, $store:ident) => {
        #[target_feature(enable = $features)]
        fn $name<B: Blocks<BYTES, NUMBERS>, T: Operand, const BYTES: usize, const NUMBERS: usize>(
            blocks: &[[u8; BYTES]],
            into: &mut [[T; NUMBERS]],
        ) {
            for (block, into) in blocks.iter().zip(into) {
                // SAFETY: this function has the instructions.
                let scales = unsafe { B::scales(block) };
                let groups = into.as_chunks_mut::<GROUP>().0;
                for_each_group!(group in [0 1 2 3 4 5 6 7] of NUMBERS / GROUP, {
                    // SAFETY: likewise.
                    let numbers = unsafe { B::$numbers(block, &scales, group) };
                    for (numbers, into) in numbers.into_iter().zip(groups[group].as_chunks_mut::<$lanes>().0) {
                        let mut lanes = [0.0; $lanes];
                        // SAFETY: a register is so many numbers.
                        unsafe { $store(lanes.as_mut_ptr(), numbers) };
                        for (into, number) in into.iter_mut().zip(lanes) {
                            *into = T::of(number);
                        }
                    }
                });
            }
        }
    };
}

write_blocks!(write_eights, "avx2,fma,f16c", numbers, 8, _mm256_storeu_ps);
write_blocks!(
    write_sixteens,
    "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c",
    wide_numbers,
    16,
    _mm512_storeu_ps
);

/// Writes x · each row of a weight, as many as there are places, as the kernel for few rows sums in so many lanes. False where the
/// processor lacks the instructions or rows are no whole blocks, and nothing is written.
///
/// # Panics
/// If a row has not as many numbers as x.
pub fn multiply<'w, B: Blocks<BYTES, NUMBERS>, const BYTES: usize, const NUMBERS: usize>(
    x: &[f32],
    row: impl Fn(usize) -> &'w [u8],
    lanes: usize,
    into: &mut [f32],
) -> bool {
    let (x, rest) = x.as_chunks();
    let Some(four_rows) = four_rows_in::<B, BYTES, NUMBERS>(lanes).filter(|_| rest.is_empty()) else {
        return false;
    };
    let count = into.len();
    for (first, into) in (0..).step_by(ROWS).zip(into.chunks_mut(ROWS)) {
        let w = std::array::from_fn(|at| {
            let blocks = row((first + at).min(count - 1)).as_chunks().0;
            assert_eq!(blocks.len(), x.len(), "rows of one length");
            blocks
        });
        // SAFETY: the instructions are there.
        let sums = unsafe { four_rows(x, w) };
        into.copy_from_slice(&sums[..into.len()]);
    }
    true
}

type FourRows<const BYTES: usize, const NUMBERS: usize> =
    unsafe fn(&[[f32; NUMBERS]], [&[[u8; BYTES]]; ROWS]) -> [f32; ROWS];

/// x · four rows in so many lanes, where this processor can.
fn four_rows_in<B: Blocks<BYTES, NUMBERS>, const BYTES: usize, const NUMBERS: usize>(
    lanes: usize,
) -> Option<FourRows<BYTES, NUMBERS>> {
    match lanes {
        8 if are_there() => Some(eight_lanes::<B, BYTES, NUMBERS>),
        16 if makes_wide() => Some(sixteen_lanes::<B, BYTES, NUMBERS>),
        16 if are_there() && is_x86_feature_detected!("avx512f") => Some(twice_eight_lanes::<B, BYTES, NUMBERS>),
        _ => None,
    }
}

/// x · four rows: `$add` adds the products of a group, whose numbers `$numbers` makes, to a register of sums.
macro_rules! four_rows {
    ($name:ident, $features:literal, $zero:ident, $numbers:ident, $add:ident, $sum:expr) => {
        #[target_feature(enable = $features)]
        fn $name<B: Blocks<BYTES, NUMBERS>, const BYTES: usize, const NUMBERS: usize>(
            x: &[[f32; NUMBERS]],
            w: [&[[u8; BYTES]]; ROWS],
        ) -> [f32; ROWS] {
            let mut sums = [$zero(); ROWS];
            let ahead = ROWS * BYTES * x.len();
            let [w0, w1, w2, w3] = w;
            for ((((x, w0), w1), w2), w3) in x.iter().zip(w0).zip(w1).zip(w2).zip(w3) {
                let w = [w0, w1, w2, w3];
                for w in w {
                    for at in (0..BYTES).step_by(LINE) {
                        // of the rows after these: four short streams are more than the processor foresees
                        _mm_prefetch::<_MM_HINT_T0>(w.as_ptr().wrapping_add(ahead + at).cast());
                    }
                }
                // SAFETY: this function has the instructions.
                let scales = unsafe { [B::scales(w0), B::scales(w1), B::scales(w2), B::scales(w3)] };
                // of many scales each comes from memory in every lane of a register, and takes none meanwhile
                let scales = if NUMBERS > GROUP { black_box(&scales) } else { &scales };
                let groups = x.as_chunks::<GROUP>().0;
                for_each_group!(group in [0 1 2 3 4 5 6 7] of NUMBERS / GROUP, {
                    for ((w, scales), sum) in w.iter().zip(scales).zip(&mut sums) {
                        // SAFETY: likewise.
                        *sum = $add(*sum, &groups[group], unsafe { B::$numbers(w, scales, group) });
                    }
                });
            }
            sums.map(|sum| $sum(sum))
        }
    };
}

four_rows!(eight_lanes, "avx2,fma,f16c", _mm256_setzero_ps, numbers, add, |sum| {
    few::eight(sum)
});
four_rows!(
    sixteen_lanes,
    "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c",
    _mm512_setzero_ps,
    wide_numbers,
    add_wide,
    |sum| _mm512_reduce_add_ps(sum)
);
// where numbers are made eight at a time
four_rows!(
    twice_eight_lanes,
    "avx512f,avx2,fma,f16c",
    _mm512_setzero_ps,
    numbers,
    add_twice,
    |sum| _mm512_reduce_add_ps(sum)
);

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add(mut sum: __m256, x: &[f32; GROUP], numbers: [__m256; 4]) -> __m256 {
    for (numbers, x) in numbers.into_iter().zip(x.as_chunks::<8>().0) {
        // SAFETY: eight numbers are a register.
        sum = _mm256_fmadd_ps(unsafe { _mm256_loadu_ps(x.as_ptr()) }, numbers, sum);
    }
    sum
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_twice(sum: __m512, x: &[f32; GROUP], [a, b, c, d]: [__m256; 4]) -> __m512 {
    let joined = |low, high| {
        let low = _mm512_castpd256_pd512(_mm256_castps_pd(low));
        _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
    };
    add_wide(sum, x, [joined(a, b), joined(c, d)])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_wide(mut sum: __m512, x: &[f32; GROUP], numbers: [__m512; 2]) -> __m512 {
    for (numbers, x) in numbers.into_iter().zip(x.as_chunks::<16>().0) {
        // SAFETY: sixteen numbers are a register.
        sum = _mm512_fmadd_ps(unsafe { _mm512_loadu_ps(x.as_ptr()) }, numbers, sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::super::tests::{bits, product, values};
    use super::*;
    use crate::rounding::{narrow, widen};

    #[test]
    fn rows_in_blocks_have_the_products_of_their_numbers_to_the_bit() {
        let k = 96;
        for (kernel, lanes, need) in [(few::NARROW, 8, "f16c"), (few::WIDE, 16, "avx512f")] {
            for count in [1, 4, 7] {
                let (x, w) = (values(k, 1), narrow(&values(count * k, 2)));
                let row = |at: usize| bytemuck::cast_slice(&w[at * k..][..k]);
                let mut found = vec![f32::NAN; count];
                if !multiply::<Bf16, _, _>(&x, row, lanes, &mut found) {
                    harness::skip(need, format!("no {need} here"));
                    break;
                }
                let exact = product(&kernel, Unit::F32, &bits(&x), &bits(&widen(&w)), k);
                assert_eq!(bits(&found), bits(&exact), "{lanes} lanes");
            }
        }
    }

    #[test]
    fn numbers_of_either_width_are_the_same() {
        if !makes_wide() {
            return harness::skip("avx512vbmi", "no numbers in wide registers here");
        }
        let (x, w) = (values(96, 1), narrow(&values(4 * 96, 2)));
        let bytes: &[u8] = bytemuck::cast_slice(&w);
        let rows = std::array::from_fn(|row| bytes[row * 192..][..192].as_chunks().0);
        let x = x.as_chunks().0;
        let (mut eights, mut sixteens) = ([[f32::NAN; 32]; 12], [[0.0; 32]; 12]);
        // SAFETY: the instructions are there.
        unsafe {
            let wide = sixteen_lanes::<Bf16, _, _>(x, rows);
            assert_eq!(bits(&wide), bits(&twice_eight_lanes::<Bf16, _, _>(x, rows)));
            write_eights::<Bf16, f32, _, _>(bytes.as_chunks().0, &mut eights);
            write_sixteens::<Bf16, f32, _, _>(bytes.as_chunks().0, &mut sixteens);
        }
        assert_eq!(bits(eights.as_flattened()), bits(sixteens.as_flattened()));
        assert_eq!(bits(eights.as_flattened()), bits(&widen(&w)));
    }

    #[test]
    fn what_is_no_whole_block_is_left_to_others() {
        let (x, w) = (values(48, 1), [0u8; 96]);
        assert!(!multiply::<Bf16, _, _>(&x, |_| &w, 8, &mut [0.0]));
        assert!(!write::<Bf16, f32, _, _>(&w, &mut [0.0; 48]));
    }
}

//! `x · wᵀ` for one to three rows of x, as in decoding: the time is that of reading the weight once, so nothing is transposed.
//!
//! Four rows of `w` meet up to three of x in registers. Every output has one register of partial sums, filled along k in one order
//! and summed in one order, so **a row's bits do not depend on the rows beside it**. With more rows the panels are faster, although
//! they transpose: at one row they read the weight at two thirds of the speed of this kernel, at four at the same, at eight at 1.3
//! times it. Where there is AVX2 alone this kernel takes more rows: those of a decoding step, in which few read all weights.

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use super::panels::{self, Pairs};
use super::{Kernel, Operands, STEADY_ROWS, Unit, Weight};
use crate::dense::Target;

/// Rows of x a tile holds: as many are few.
pub(super) const ROWS: usize = 3;
/// Rows of `w` a tile holds.
const COLUMNS: usize = 4;
/// Rows of `w` a task reads.
const TASK: usize = 32;
/// Rows of x that meet these at a time, so that both stay in the second cache; no fewer than a decoding step has, whose weights may have
/// to be made.
const BLOCK: usize = 36;

/// Where the panels are too. Bits differ from theirs, so it is not for products that must be steady.
pub(super) const WIDE: Kernel = Kernel {
    family: panels::family,
    takes: |row_count, steady| row_count <= ROWS && !steady,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { multiply(of, y, Registers::Wide(Pairs::Whole)) }
    },
};

/// The same where pairs are widened.
pub(super) const WIDENED: Kernel = Kernel {
    family: panels::widened_family,
    takes: WIDE.takes,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { multiply(of, y, Registers::Wide(Pairs::Widened)) }
    },
};

/// Where registers are narrow. Up to so many rows, and not beside panels, so that a decoding step's bits are those of each of its rows alone.
pub(super) const NARROW: Kernel = Kernel {
    family: |unit| (unit == Unit::F32 && has_avx2()).then_some("avx2"),
    takes: |row_count, steady| row_count <= STEADY_ROWS && !steady,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { multiply(of, y, Registers::Narrow) }
    },
};

/// AVX-512 or AVX2.
#[derive(Clone, Copy)]
enum Registers {
    Wide(Pairs),
    Narrow,
}

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// # Safety
/// As `Kernel::multiply`; the processor has such registers, and multiplies pairs if they stay whole.
unsafe fn multiply(of: Operands<'_>, y: Target<f32>, registers: Registers) {
    let Operands {
        unit,
        x,
        k,
        column_count,
        ..
    } = of;
    let tasks = (0..column_count.div_ceil(TASK)).into_par_iter();
    tasks.for_each_init(Vec::new, |room, task| {
        let columns = task * TASK..((task + 1) * TASK).min(column_count);
        if let Some(sums) = sums_of_one(of, columns.clone(), registers) {
            // SAFETY: these columns of the only row of y are there, and this task's alone.
            unsafe {
                y.at(columns.start)
                    .pointer
                    .copy_from_nonoverlapping(sums.as_ptr(), columns.len())
            };
            return;
        }
        for (block, x) in x.chunks(BLOCK * k).enumerate() {
            for column in columns.clone().step_by(COLUMNS) {
                let w = of.w(column..(column + COLUMNS).min(columns.end), room);
                for (group, x) in x.chunks(ROWS * k).enumerate() {
                    let row = block * BLOCK + group * ROWS;
                    let tile = Tile {
                        x: x.as_ptr(),
                        w: w.as_ptr(),
                        k,
                        y: y.at(row * y.row_stride + column).pointer,
                        n: y.row_stride,
                    };
                    // SAFETY: the processor has what is asked for, by the caller's promise; these parts of x and w hold as many whole
                    // rows as are counted here, and this task alone writes these columns.
                    unsafe { tile.run_any(x.len() / k, w.len() / k, unit, registers) };
                }
            }
        }
    });
}

/// The products of a single row of x with a task's rows of w, if they need not be written for it.
fn sums_of_one(of: Operands<'_>, rows: Range<usize>, registers: Registers) -> Option<[f32; TASK]> {
    let Weight::Made(w) = of.w else { return None };
    if of.row_count() != 1 || of.unit != Unit::F32 {
        return None;
    }
    let lanes = match registers {
        Registers::Narrow => 8,
        Registers::Wide(_) => 16,
    };
    let mut sums = [0.0; TASK];
    let is_done = w.multiply(rows.clone(), bytemuck::cast_slice(of.x), lanes, &mut sums[..rows.len()]);
    is_done.then_some(sums)
}

/// Some rows of x, some of w, and where their products go.
struct Tile {
    x: *const u32,
    w: *const u32,
    k: usize,
    y: *mut f32,
    /// From one row of y to the next.
    n: usize,
}

impl Tile {
    /// # Safety
    /// So many rows of x and of w are there, and the processor has such registers, and multiplies pairs if they stay whole.
    unsafe fn run_any(&self, rows: usize, columns: usize, unit: Unit, registers: Registers) {
        // SAFETY: passed on.
        unsafe {
            match (rows, columns) {
                (1, 4) => self.run::<1, 4>(unit, registers),
                (2, 4) => self.run::<2, 4>(unit, registers),
                (3, 4) => self.run::<3, 4>(unit, registers),
                _ => {
                    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                        let one = Tile {
                            x: self.x.add(row * self.k),
                            w: self.w.add(column * self.k),
                            y: self.y.add(row * self.n + column),
                            ..*self
                        };
                        one.run::<1, 1>(unit, registers);
                    }
                }
            }
        }
    }

    /// # Safety
    /// R rows of x and C of w are there, and the processor has such registers, and multiplies pairs if they stay whole.
    unsafe fn run<const R: usize, const C: usize>(&self, unit: Unit, registers: Registers) {
        // SAFETY: passed on.
        let sums = unsafe {
            // where rows begin is computed once: arithmetic that is checked for overflow would leave the loops no registers
            let x: [*const u32; R] = std::array::from_fn(|row| self.x.add(row * self.k));
            let w: [*const u32; C] = std::array::from_fn(|row| self.w.add(row * self.k));
            match (unit, registers) {
                (Unit::Bf16Pair, Registers::Wide(Pairs::Widened)) => pairs_widened(x, w, self.k),
                (Unit::Bf16Pair, _) => pairs(x, w, self.k),
                (Unit::F32, Registers::Wide(_)) => avx512(x, w, self.k),
                (Unit::F32, Registers::Narrow) => avx2(x, w, self.k),
            }
        };
        for (row, sums) in sums.into_iter().enumerate() {
            for (column, sum) in sums.into_iter().enumerate() {
                // SAFETY: R rows and C columns of y are there.
                unsafe { *self.y.add(row * self.n + column) = sum };
            }
        }
    }
}

/// The sums over k of R rows of x by C rows of w, `lanes` units at a time, the last ones under a mask.
macro_rules! kernel {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:expr, $load_some:expr, $multiply_add:expr, $sum:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const C: usize>(
            x: [*const u32; R],
            w: [*const u32; C],
            k: usize,
        ) -> [[f32; C]; R] {
            // SAFETY: every row holds k units; the masked load reads no more.
            unsafe {
                let mut sums = [[$zero(); C]; R];
                let mut i = 0;
                while k - i >= $lanes {
                    // one of w at a time, so that sixteen registers are enough
                    let x = x.map(|x| $load(x.add(i)));
                    for (column, w) in w.iter().enumerate() {
                        let w = $load(w.add(i));
                        for (x, sums) in x.iter().zip(&mut sums) {
                            sums[column] = $multiply_add(*x, w, sums[column]);
                        }
                    }
                    i += $lanes;
                }
                if i < k {
                    let w = w.map(|w| $load_some(w.add(i), k - i));
                    for (x, sums) in x.iter().zip(&mut sums) {
                        let x = $load_some(x.add(i), k - i);
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = $multiply_add(x, w, *sum);
                        }
                    }
                }
                sums.map(|sums| sums.map(|sum| $sum(sum)))
            }
        }
    };
}

kernel!(
    avx512,
    "avx512f",
    16,
    _mm512_setzero_ps,
    |at: *const u32| _mm512_loadu_ps(at.cast()),
    |at: *const u32, count: usize| _mm512_maskz_loadu_ps((1u16 << count) - 1, at.cast()),
    |x, w, sum| _mm512_fmadd_ps(x, w, sum),
    |sum| _mm512_reduce_add_ps(sum)
);

kernel!(
    pairs,
    "avx512f,avx512bf16",
    16,
    _mm512_setzero_ps,
    |at: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_epi32(at.cast())),
    |at: *const u32, count: usize| std::mem::transmute::<__m512i, __m512bh>(_mm512_maskz_loadu_epi32(
        (1u16 << count) - 1,
        at.cast()
    )),
    |x, w, sum| _mm512_dpbf16_ps(sum, x, w),
    |sum| _mm512_reduce_add_ps(sum)
);

kernel!(
    pairs_widened,
    "avx512f",
    16,
    _mm512_setzero_ps,
    |at: *const u32| panels::widened(_mm512_loadu_epi32(at.cast())),
    |at: *const u32, count: usize| panels::widened(_mm512_maskz_loadu_epi32((1u16 << count) - 1, at.cast())),
    |x: [__m512; 2], w: [__m512; 2], sum| _mm512_fmadd_ps(x[1], w[1], _mm512_fmadd_ps(x[0], w[0], sum)),
    |sum| _mm512_reduce_add_ps(sum)
);

kernel!(
    avx2,
    "avx2,fma",
    8,
    _mm256_setzero_ps,
    |at: *const u32| _mm256_loadu_ps(at.cast()),
    |at: *const u32, count: usize| _mm256_maskload_ps(at.cast(), first_lanes(count)),
    |x, w, sum| _mm256_fmadd_ps(x, w, sum),
    |sum| eight(sum)
);

/// A mask of the first `count` of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_lanes(count: usize) -> __m256i {
    let lanes: [i32; 8] = std::array::from_fn(|lane| -i32::from(lane < count));
    // SAFETY: there are eight.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

/// The sum of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight(sum: __m256) -> f32 {
    let low = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let low = _mm_add_ps(low, _mm_movehl_ps(low, low));
    _mm_cvtss_f32(_mm_add_ss(low, _mm_movehdup_ps(low)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{
        bits, close, pairs_are_bf16, products_are_those_of_the_definition, rows_are_independent, values,
    };
    use super::*;

    #[test]
    fn products_of_awkward_shapes_are_those_of_the_definition() {
        for (kernel, need) in [(WIDE, "avx512f"), (NARROW, "avx2")] {
            let shapes = [(1, 1, 1), (2, 4, 16), (1, 33, 15), (3, 70, 37), (8, 7, 100)];
            products_are_those_of_the_definition(&kernel, need, &shapes);
        }
    }

    #[test]
    fn a_register_that_k_does_not_fill_is_read_no_further() {
        if !has_avx2() {
            return harness::skip("avx2", "no AVX2 here");
        }
        for k in [1, 7, 8, 9, 40, 101] {
            let (x, w) = (values(2 * k, 3), values(2 * k, 4));
            let (xs, ws) = (bits(&x), bits(&w));
            // SAFETY: AVX2 is there, and both hold two rows of k.
            let sums = unsafe { avx2::<2, 2>([xs.as_ptr(), xs.as_ptr().add(k)], [ws.as_ptr(), ws.as_ptr().add(k)], k) };
            close(sums.as_flattened(), &x, &w, (2, 2, k));
        }
    }

    #[test]
    fn pairs_of_bf16_are_multiplied_as_bf16() {
        let family = |_| panels::multiplies_pairs().then_some("avx512-bf16");
        for kernel in [Kernel { family, ..WIDE }, WIDENED] {
            pairs_are_bf16(&kernel, (3, 50, 70));
        }
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_the_rows_beside_it() {
        for (kernel, need) in [(WIDE, "avx512f"), (NARROW, "avx2")] {
            rows_are_independent(&kernel, need, (10, 100, 77), &[(0, 1), (1, 2), (2, 1), (5, 5)]);
        }
    }
}

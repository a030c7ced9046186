//! `x · wᵀ` by panels of 48 outputs: the product of the forward pass where the processor has AVX-512.
//!
//! One tile of 8 rows by 48 outputs lives in 24 registers; `w` is transposed panel by panel on the way (each element once),
//! `x` is read where it lies. Every output is summed over k in one fixed order, whatever the number of rows and threads, so
//! **a row's bits do not depend on the rows beside it**. In bf16 two neighbours along k are one 32-bit unit and the
//! multiply-add takes both, so the same code serves both types.

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use super::{Kernel, Operands, Unit};
use crate::dense::Target;

/// Outputs of a panel: three registers of 16.
const PANEL: usize = 48;
/// Rows of a tile.
const TILE: usize = 8;
/// Units of k between two visits of the output: 48 of them are 72 KiB, which stays in the second-level cache.
const DEPTH: usize = 384;

pub(super) const KERNEL: Kernel = Kernel {
    family,
    takes: |_, _| true,
    multiply,
};

pub(super) fn family(unit: Unit) -> Option<&'static str> {
    let wide = is_x86_feature_detected!("avx512f");
    match unit {
        Unit::F32 => wide.then_some("avx512"),
        Unit::Bf16Pair => (wide && is_x86_feature_detected!("avx512bf16")).then_some("avx512-bf16"),
    }
}

/// # Safety
/// As `Kernel::multiply`.
unsafe fn multiply(of: Operands<'_>, y: Target<f32>) {
    let (rows, panels) = (of.row_count(), of.column_count().div_ceil(PANEL));
    // few panels for many threads: rows are split too, at the price of transposing a panel more than once
    let threads = rayon::current_num_threads();
    let row_parts = (4 * threads).div_ceil(panels).clamp(1, rows.div_ceil(8 * TILE).max(1));
    let part_rows = rows.div_ceil(row_parts).next_multiple_of(TILE);
    (0..panels * row_parts).into_par_iter().with_max_len(1).for_each_init(
        || vec![0u32; PANEL * DEPTH + 16],
        |buffer, task| {
            let (panel, part) = (task % panels, task / panels);
            let part = (part * part_rows).min(rows)..((part + 1) * part_rows).min(rows);
            // a cache line's start, for loads that cross none
            let skip = buffer.as_ptr().align_offset(64);
            // SAFETY: the processor has AVX-512, by the caller's promise, and this task alone writes these rows of these columns.
            unsafe { multiply_panel(of, y, part, panel, &mut buffer[skip..skip + PANEL * DEPTH]) };
        },
    );
}

/// # Safety
/// As `Kernel::multiply`, for these rows and the columns of one panel; `packed` has room for 48 columns of a whole depth.
unsafe fn multiply_panel(of: Operands<'_>, y: Target<f32>, rows: Range<usize>, panel: usize, packed: &mut [u32]) {
    let k = of.k;
    let columns = panel * PANEL..((panel + 1) * PANEL).min(of.column_count());
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        // SAFETY: the processor has AVX-512, by the caller's promise; these rows of w have `depth` units from `start` on.
        unsafe { transpose(&of.w[columns.start * k..columns.end * k], k, start, depth, packed) };
        for row in rows.clone().step_by(TILE) {
            let tile = Tile {
                x: of.x[row * k + start..].as_ptr(),
                k,
                packed: packed.as_ptr(),
                depth,
                y: y.at(row * y.row_stride + columns.start).pointer,
                n: y.row_stride,
                columns: columns.len(),
                fresh: start == 0,
            };
            // SAFETY: so many rows of x and y are there, and they are this call's alone, by the caller's promise.
            unsafe { tile.run_rows((rows.end - row).min(TILE), of.unit) };
        }
    }
}

/// Some rows of x, one panel of w, and where their products go.
struct Tile {
    x: *const u32,
    /// From one row of x to the next.
    k: usize,
    packed: *const u32,
    depth: usize,
    y: *mut f32,
    /// From one row of y to the next.
    n: usize,
    columns: usize,
    /// The first stretch of k writes, the others add.
    fresh: bool,
}

impl Tile {
    /// # Safety
    /// So many rows of x and y are there, at most 8, and the processor multiplies such units.
    unsafe fn run_rows(&self, row_count: usize, unit: Unit) {
        // SAFETY: passed on.
        unsafe {
            match row_count {
                8 => self.run::<8>(unit),
                7 => self.run::<7>(unit),
                6 => self.run::<6>(unit),
                5 => self.run::<5>(unit),
                4 => self.run::<4>(unit),
                3 => self.run::<3>(unit),
                2 => self.run::<2>(unit),
                _ => self.run::<1>(unit),
            }
        }
    }

    /// # Safety
    /// R rows of x and y are there, and the processor multiplies such units.
    unsafe fn run<const R: usize>(&self, unit: Unit) {
        // SAFETY: passed on; bf16 is asked for only where the processor has it.
        unsafe {
            match unit {
                Unit::F32 => self.run_f32::<R>(),
                Unit::Bf16Pair => self.run_bf16::<R>(),
            }
        }
    }

    /// Where each row of x begins, computed once: arithmetic that is checked for overflow would leave the loop no registers.
    unsafe fn rows<const R: usize>(&self) -> [*const u32; R] {
        // SAFETY: R rows `k` apart are there.
        std::array::from_fn(|row| unsafe { self.x.add(row * self.k) })
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn run_f32<const R: usize>(&self) {
        // SAFETY: `packed` holds depth · 48 units, x has `depth` units in each of R rows `k` apart.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; R];
            let (x, mut b) = (self.rows::<R>(), self.packed.cast::<f32>());
            for i in 0..self.depth {
                let w = [
                    _mm512_loadu_ps(b),
                    _mm512_loadu_ps(b.add(16)),
                    _mm512_loadu_ps(b.add(32)),
                ];
                for (x, sums) in x.iter().zip(&mut sums) {
                    let a = _mm512_set1_ps(*x.cast::<f32>().add(i));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_fmadd_ps(a, w, *sum);
                    }
                }
                b = b.add(PANEL);
            }
            self.store(&sums);
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run_bf16<const R: usize>(&self) {
        // SAFETY: `packed` holds depth · 48 units, x has `depth` units in each of R rows `k` apart; a register of 16 units and
        // one of 32 bf16 are the same bits.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; R];
            let (x, mut b) = (self.rows::<R>(), self.packed.cast::<i32>());
            for i in 0..self.depth {
                let w = [0, 16, 32].map(|at| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_epi32(b.add(at))));
                for (x, sums) in x.iter().zip(&mut sums) {
                    let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*x.cast::<i32>().add(i)));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbf16_ps(*sum, a, w);
                    }
                }
                b = b.add(PANEL);
            }
            self.store(&sums);
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn store<const R: usize>(&self, sums: &[[__m512; 3]; R]) {
        for (row, sums) in sums.iter().enumerate() {
            for (third, sum) in sums.iter().enumerate() {
                let left = self.columns.saturating_sub(16 * third).min(16);
                let mask = ((1u32 << left) - 1) as __mmask16;
                // SAFETY: the mask keeps to the panel's columns, which are there in each of R rows of y.
                unsafe {
                    // wrapping: a third without columns may begin behind the buffer, and its mask is empty
                    let y = self.y.wrapping_add(row * self.n + 16 * third);
                    let sum = match self.fresh {
                        true => *sum,
                        false => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), *sum),
                    };
                    _mm512_mask_storeu_ps(y, mask, sum);
                }
            }
        }
    }
}

/// Columns `start..start + depth` of w's rows (at most 48, `k` units each) → packed (depth, 48), zeros where rows end.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
    let rows = w.len() / k;
    for group in 0..PANEL / 16 {
        let mut column = 0;
        if rows >= (group + 1) * 16 {
            while column + 16 <= depth {
                // SAFETY: 16 rows with 16 columns each are there, and 16 packed rows of 48.
                unsafe {
                    let from = w.as_ptr().add(group * 16 * k + start + column);
                    let to = packed.as_mut_ptr().add(column * PANEL + group * 16);
                    square(from, k, to);
                }
                column += 16;
            }
        }
        for column in column..depth {
            for lane in 0..16 {
                let row = group * 16 + lane;
                packed[column * PANEL + row] = if row < rows { w[row * k + start + column] } else { 0 };
            }
        }
    }
}

/// Transposes 16 × 16 units: rows `k` apart to rows 48 apart.
#[target_feature(enable = "avx512f")]
unsafe fn square(from: *const u32, k: usize, to: *mut u32) {
    // SAFETY: the caller has 16 rows of 16 units on both sides.
    unsafe {
        let mut r: [__m512i; 16] = std::array::from_fn(|row| _mm512_loadu_epi32(from.add(row * k).cast()));
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        // r[4i + j] holds, in its four quarters, columns j, j + 4, j + 8, j + 12 of rows 4i..4i + 4
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]); // columns j, j + 8 of rows 0..8
            let high = _mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]);
            let low_odd = _mm512_shuffle_i32x4::<0xdd>(r[j], r[4 + j]); // columns j + 4, j + 12
            let high_odd = _mm512_shuffle_i32x4::<0xdd>(r[8 + j], r[12 + j]);
            t[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
            t[j + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
            t[j + 4] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
            t[j + 12] = _mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd);
        }
        for (row, t) in t.into_iter().enumerate() {
            _mm512_storeu_epi32(to.add(row * PANEL).cast(), t);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pairs_are_bf16, products_are_those_of_the_definition, rows_are_independent};
    use super::*;

    #[test]
    fn products_of_awkward_shapes_are_those_of_the_definition() {
        let shapes = [
            (1, 1, 1),
            (8, 48, 16),
            (7, 47, 15),
            (9, 49, 385),
            (3, 16, 800),
            (33, 130, 401),
            (65, 33, 64),
        ];
        products_are_those_of_the_definition(&KERNEL, "avx512f", &shapes);
    }

    #[test]
    fn pairs_of_bf16_are_multiplied_as_bf16() {
        pairs_are_bf16(&KERNEL, (11, 50, 70));
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_the_rows_beside_it() {
        rows_are_independent(
            &KERNEL,
            "avx512f",
            (70, 100, 500),
            &[(0, 1), (5, 3), (11, 8), (20, 50), (69, 1)],
        );
    }
}

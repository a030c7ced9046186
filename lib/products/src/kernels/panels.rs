//! `x · wᵀ` by panels of outputs: the product of the forward pass where the processor has AVX-512, and in `narrow` where it has AVX2.
//!
//! One tile of 8 rows by 48 outputs lives in 24 registers; `w` is transposed panel by panel on the way (each element once),
//! `x` is read where it lies. Every output is summed over k in one fixed order, whatever the number of rows and threads, so
//! **a row's bits do not depend on the rows beside it**. In bf16 two neighbours along k are one 32-bit unit and the
//! multiply-add takes both, so the same code serves both types.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::transpose::transpose;
use super::turned::Turned;
use super::{Kernel, Operands, Unit, Weight, grown};
use crate::dense::Target;

/// Outputs of a panel: three registers of 16.
const PANEL: usize = 48;
/// Panels that a task packs together, so that what it reads of x serves all of them.
const TOGETHER: usize = 4;
/// Rows that meet one panel after the other: 384 KiB of x, which stay in the second-level cache beside four panels.
const ROWS: usize = 256;

/// Registers of one width: what a panel and a tile are in them.
pub(super) trait Width: Copy + Send + Sync {
    /// Outputs of a panel.
    const PANEL: usize;
    /// Rows of a tile.
    const TILE: usize;
    /// Units of k between two visits of the output, so that a panel of so many stays in a near cache.
    const DEPTH: usize;

    /// Columns `start..start + depth` of w's rows (at most a panel, `k` units each) → packed (depth, panel), zeros where rows end.
    ///
    /// # Safety
    /// The processor has such registers, and the columns are there.
    unsafe fn pack(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]);

    /// The same of rows that lie turned.
    ///
    /// # Safety
    /// The processor has such registers.
    unsafe fn pack_turned(w: Turned<'_>, rows: Range<usize>, start: usize, depth: usize, packed: &mut [u32]);

    /// # Safety
    /// So many rows of x and y are there, at most a tile's, and the processor multiplies such units.
    unsafe fn run(self, tile: &Tile, row_count: usize, unit: Unit);
}

pub(super) const KERNEL: Kernel = Kernel {
    family,
    takes: |_, _| true,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { multiply(of, y, false, Pairs::Whole) }
    },
};

/// Where pairs of bf16 are multiplied no faster than twice as many of f32.
pub(super) const WIDENED: Kernel = Kernel {
    family: widened_family,
    takes: |_, _| true,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { multiply(of, y, false, Pairs::Widened) }
    },
};

/// Registers of 512 bits, by how pairs of bf16 are multiplied: by the instruction for them, or each number as one of f32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairs {
    Whole,
    Widened,
}

impl Width for Pairs {
    const PANEL: usize = PANEL;
    const TILE: usize = 8;
    /// 72 KiB of a panel, which stay in the second-level cache.
    const DEPTH: usize = 384;

    unsafe fn pack(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
        // SAFETY: passed on.
        unsafe { pack(w, k, start, depth, packed) };
    }

    unsafe fn pack_turned(w: Turned<'_>, rows: Range<usize>, start: usize, depth: usize, packed: &mut [u32]) {
        // SAFETY: passed on.
        unsafe { pack_turned(w, rows, start, depth, packed) };
    }

    unsafe fn run(self, tile: &Tile, row_count: usize, unit: Unit) {
        // SAFETY: passed on.
        unsafe { tile.run_rows(row_count, unit, self) };
    }
}

pub(super) fn family(unit: Unit) -> Option<&'static str> {
    let wide = is_x86_feature_detected!("avx512f");
    match unit {
        Unit::F32 => wide.then_some("avx512"),
        Unit::Bf16Pair => (wide && multiplies_pairs() && pairs_are_fast()).then_some("avx512-bf16"),
    }
}

pub(super) fn widened_family(unit: Unit) -> Option<&'static str> {
    (unit == Unit::Bf16Pair && is_x86_feature_detected!("avx512f")).then_some("avx512")
}

pub(super) fn multiplies_pairs() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// AMD's processors begin such an instruction in every cycle, Intel's in every second of one unit: half of what they do in f32.
fn pairs_are_fast() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx]
        .map(u32::to_le_bytes)
        .as_flattened()
        == b"AuthenticAMD"
}

/// Writes the product, or adds it to what the target holds.
///
/// # Safety
/// As `Kernel::multiply`; with `add` the target is initialised.
pub(super) unsafe fn multiply<W: Width>(of: Operands<'_>, y: Target<f32>, add: bool, width: W) {
    let (rows, panels) = (of.row_count(), of.column_count.div_ceil(W::PANEL));
    // few panels for many threads: first they are packed alone, then rows are split too, at the price of packing more than once
    let tasks = 4 * rayon::current_num_threads();
    let together = (panels / tasks).clamp(1, TOGETHER);
    let groups = panels.div_ceil(together);
    let row_parts = tasks.div_ceil(groups).clamp(1, rows.div_ceil(8 * W::TILE).max(1));
    let part_rows = rows.div_ceil(row_parts).next_multiple_of(W::TILE);
    let room = together * W::PANEL * W::DEPTH;
    (0..groups * row_parts)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (group, part) = (task % groups, task / groups);
            let part = (part * part_rows).min(rows)..((part + 1) * part_rows).min(rows);
            let group = group * together..((group + 1) * together).min(panels);
            ROOM.with_borrow_mut(|(packed, made)| {
                let packed = grown(packed, room + 16);
                // a cache line's start, for loads that cross none
                let skip = packed.as_ptr().align_offset(64);
                let packed = &mut packed[skip..skip + room];
                // SAFETY: the processor has the registers, by the caller's promise, and this task alone writes these rows of these columns.
                unsafe { multiply_panels((of, width), (y, add), part, group, packed, made) };
            });
        });
}

thread_local! {
    /// What a task packs into, and rows of w that are made. A task starts no other, so that one of each does for a thread.
    static ROOM: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// # Safety
/// As `Kernel::multiply`, for these rows and the columns of these panels; `packed` has room for as many of a whole depth, `made` is for
/// rows of w that are made.
unsafe fn multiply_panels<W: Width>(
    (of, width): (Operands<'_>, W),
    (y, add): (Target<f32>, bool),
    rows: Range<usize>,
    panels: Range<usize>,
    packed: &mut [u32],
    made: &mut Vec<u32>,
) {
    let k = of.k;
    let columns = |panel: usize| panel * W::PANEL..((panel + 1) * W::PANEL).min(of.column_count);
    let w = match of.w {
        Weight::Turned(w) => Right::Turned(w),
        _ => Right::Rows(of.w(columns(panels.start).start..columns(panels.end - 1).end, made)),
    };
    for start in (0..k).step_by(W::DEPTH) {
        let depth = W::DEPTH.min(k - start);
        let rooms = packed.chunks_exact_mut(W::PANEL * W::DEPTH);
        for ((at, panel), packed) in panels.clone().enumerate().zip(rooms) {
            // SAFETY: the processor has the registers, by the caller's promise; these rows of w have `depth` units from `start` on.
            unsafe {
                match w {
                    Right::Rows(w) => W::pack(
                        w.chunks(W::PANEL * k).nth(at).unwrap_or_default(),
                        k,
                        start,
                        depth,
                        packed,
                    ),
                    Right::Turned(w) => W::pack_turned(w, columns(panel), start, depth, packed),
                }
            };
        }
        for first in rows.clone().step_by(ROWS) {
            let rows = first..(first + ROWS).min(rows.end);
            for (panel, packed) in panels.clone().zip(packed.chunks_exact(W::PANEL * W::DEPTH)) {
                for row in rows.clone().step_by(W::TILE) {
                    let tile = Tile {
                        x: of.x[row * k + start..].as_ptr(),
                        k,
                        packed: packed.as_ptr(),
                        depth,
                        y: y.at(row * y.row_stride + panel * W::PANEL).pointer,
                        n: y.row_stride,
                        columns: columns(panel).len(),
                        fresh: start == 0 && !add,
                    };
                    // SAFETY: so many rows of x and y are there, and they are this call's alone, by the caller's promise.
                    unsafe { width.run(&tile, (rows.end - row).min(W::TILE), of.unit) };
                }
            }
        }
    }
}

/// What panels are packed from.
#[derive(Clone, Copy)]
enum Right<'a> {
    Rows(&'a [u32]),
    Turned(Turned<'a>),
}

/// Some rows of x, one panel of w, and where their products go.
pub(super) struct Tile {
    x: *const u32,
    /// From one row of x to the next.
    k: usize,
    pub packed: *const u32,
    pub depth: usize,
    pub y: *mut f32,
    /// From one row of y to the next.
    pub n: usize,
    pub columns: usize,
    /// The first stretch of k writes, unless there is something to add to; the others add.
    pub fresh: bool,
}

impl Tile {
    /// # Safety
    /// So many rows of x and y are there, at most 8, and the processor multiplies such units.
    unsafe fn run_rows(&self, row_count: usize, unit: Unit, pairs: Pairs) {
        // SAFETY: passed on.
        unsafe {
            match row_count {
                8 => self.run::<8>(unit, pairs),
                7 => self.run::<7>(unit, pairs),
                6 => self.run::<6>(unit, pairs),
                5 => self.run::<5>(unit, pairs),
                4 => self.run::<4>(unit, pairs),
                3 => self.run::<3>(unit, pairs),
                2 => self.run::<2>(unit, pairs),
                _ => self.run::<1>(unit, pairs),
            }
        }
    }

    /// # Safety
    /// R rows of x and y are there, and the processor multiplies such units.
    unsafe fn run<const R: usize>(&self, unit: Unit, pairs: Pairs) {
        // SAFETY: passed on; whole pairs are asked for only where the processor has the instruction.
        unsafe {
            match (unit, pairs) {
                (Unit::F32, _) => self.run_f32::<R>(),
                (Unit::Bf16Pair, Pairs::Whole) => self.run_bf16::<R>(),
                (Unit::Bf16Pair, Pairs::Widened) => self.run_widened::<R>(),
            }
        }
    }

    /// Where each row of x begins, computed once: arithmetic that is checked for overflow would leave the loop no registers.
    pub unsafe fn rows<const R: usize>(&self) -> [*const u32; R] {
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
    unsafe fn run_widened<const R: usize>(&self) {
        // SAFETY: as in `run_bf16`.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; R];
            let (x, mut b) = (self.rows::<R>(), self.packed.cast::<i32>());
            for i in 0..self.depth {
                let w = [0, 16, 32].map(|at| widened(_mm512_loadu_epi32(b.add(at))));
                for (x, sums) in x.iter().zip(&mut sums) {
                    let [first, second] = widened(_mm512_set1_epi32(*x.cast::<i32>().add(i)));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_fmadd_ps(second, w[1], _mm512_fmadd_ps(first, w[0], *sum));
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

/// Sixteen pairs of bf16 as their first numbers and their second ones.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widened(pairs: __m512i) -> [__m512; 2] {
    let (first, second) = (
        _mm512_slli_epi32::<16>(pairs),
        _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)),
    );
    [_mm512_castsi512_ps(first), _mm512_castsi512_ps(second)]
}

/// # Safety
/// As `Width::pack`.
#[target_feature(enable = "avx512f")]
unsafe fn pack(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
    // SAFETY: the squares that are asked for are there.
    pack_squares::<PANEL, 16>(w, k, start..start + depth, packed, |from, to| unsafe {
        square(from, k, to)
    });
}

/// Columns of w's rows → packed (columns, PANEL), zeros where rows end: by squares of LANES rows and columns where they are whole.
#[inline(always)]
pub(super) fn pack_squares<const PANEL: usize, const LANES: usize>(
    w: &[u32],
    k: usize,
    columns: Range<usize>,
    packed: &mut [u32],
    square: impl Fn(*const u32, *mut u32),
) {
    let (rows, depth) = (w.len() / k, columns.len());
    for first in (0..PANEL).step_by(LANES) {
        let mut column = 0;
        if rows >= first + LANES {
            while column + LANES <= depth {
                let from = w.as_ptr().wrapping_add(first * k + columns.start + column);
                square(from, packed.as_mut_ptr().wrapping_add(column * PANEL + first));
                column += LANES;
            }
        }
        for column in column..depth {
            for row in first..first + LANES {
                packed[column * PANEL + row] = if row < rows {
                    w[row * k + columns.start + column]
                } else {
                    0
                };
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn pack_turned(w: Turned<'_>, rows: Range<usize>, start: usize, depth: usize, packed: &mut [u32]) {
    pack_lines(w, rows, start..start + depth, packed.chunks_exact_mut(PANEL));
}

/// A line of units of rows that lie turned is a line of the panel.
#[inline(always)]
pub(super) fn pack_lines<'a>(
    w: Turned<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    lines: impl Iterator<Item = &'a mut [u32]>,
) {
    for (line, at) in lines.zip(depth) {
        let (line, rest) = line.split_at_mut(rows.len());
        w.units(at, rows.clone(), line);
        rest.fill(0);
    }
}

/// Transposes 16 × 16 units: rows `k` apart to rows 48 apart.
#[target_feature(enable = "avx512f")]
unsafe fn square(from: *const u32, k: usize, to: *mut u32) {
    // SAFETY: the caller has 16 rows of 16 units on both sides.
    unsafe {
        let rows = std::array::from_fn(|row| _mm512_loadu_epi32(from.add(row * k).cast()));
        for (row, units) in transpose(rows).into_iter().enumerate() {
            _mm512_storeu_epi32(to.add(row * PANEL).cast(), units);
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
        let family = |_| multiplies_pairs().then_some("avx512-bf16");
        for kernel in [Kernel { family, ..KERNEL }, WIDENED] {
            pairs_are_bf16(&kernel, (11, 50, 70));
        }
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

//! Panels of 16 outputs, in registers of 256 bits: the product where the processor has AVX2 and nothing wider.
//!
//! One tile of 6 rows by 16 outputs lives in 12 of 16 registers. Products that must be steady come here at any number of rows, others where
//! they have more than the kernel for few rows takes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::panels::{self, Tile, Width};
use super::turned::Turned;
use super::{Kernel, Unit, few};

/// Two registers of 8.
const PANEL: usize = 16;
const LANES: usize = 8;

pub(super) const KERNEL: Kernel = Kernel {
    family: few::NARROW.family,
    takes: |_, _| true,
    multiply: |of, y| {
        // SAFETY: passed on.
        unsafe { panels::multiply(of, y, false, Narrow) }
    },
};

/// Registers of 256 bits, for f32 alone.
#[derive(Clone, Copy)]
struct Narrow;

impl Width for Narrow {
    const PANEL: usize = PANEL;
    const TILE: usize = 6;
    /// 16 KiB of a panel, which stay in the first-level cache beside a tile's rows.
    const DEPTH: usize = 256;

    unsafe fn pack(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
        // SAFETY: passed on.
        unsafe { pack(w, k, start, depth, packed) };
    }

    unsafe fn pack_turned(w: Turned<'_>, rows: Range<usize>, start: usize, depth: usize, packed: &mut [u32]) {
        panels::pack_lines(w, rows, start..start + depth, packed.chunks_exact_mut(PANEL));
    }

    unsafe fn run(self, tile: &Tile, row_count: usize, _: Unit) {
        // SAFETY: passed on.
        unsafe {
            match row_count {
                6 => run::<6>(tile),
                5 => run::<5>(tile),
                4 => run::<4>(tile),
                3 => run::<3>(tile),
                2 => run::<2>(tile),
                _ => run::<1>(tile),
            }
        }
    }
}

/// # Safety
/// R rows of x and y are there.
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const R: usize>(tile: &Tile) {
    // SAFETY: `packed` holds depth · 16 numbers, x has `depth` numbers in each of R rows.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        let (x, mut b) = (tile.rows::<R>(), tile.packed.cast::<f32>());
        for i in 0..tile.depth {
            let w = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(LANES))];
            for (x, sums) in x.iter().zip(&mut sums) {
                let a = _mm256_set1_ps(*x.cast::<f32>().add(i));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm256_fmadd_ps(a, w, *sum);
                }
            }
            b = b.add(PANEL);
        }
        store(tile, &sums);
    }
}

/// # Safety
/// R rows of y are there, each with the tile's columns.
#[target_feature(enable = "avx2,fma")]
unsafe fn store<const R: usize>(tile: &Tile, sums: &[[__m256; 2]; R]) {
    // SAFETY: passed on.
    unsafe {
        // stores under a mask are slow on some processors
        match tile.columns {
            PANEL => store_by(
                tile,
                sums,
                |y, _| _mm256_loadu_ps(y),
                |y, _, sum| _mm256_storeu_ps(y, sum),
            ),
            count => {
                let masks = [0, LANES].map(|start| few::first_lanes(count.saturating_sub(start).min(LANES)));
                let load = |y: *const f32, half: usize| _mm256_maskload_ps(y, masks[half]);
                store_by(tile, sums, load, |y, half, sum| {
                    _mm256_maskstore_ps(y, masks[half], sum)
                });
            }
        }
    }
}

/// # Safety
/// R rows of y are there, with as many columns as `load` and `store` touch of each half.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store_by<const R: usize>(
    tile: &Tile,
    sums: &[[__m256; 2]; R],
    load: impl Fn(*const f32, usize) -> __m256,
    store: impl Fn(*mut f32, usize, __m256),
) {
    for (row, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // wrapping: a half without columns may begin behind the buffer, and nothing of it is touched
            let y = tile.y.wrapping_add(row * tile.n + LANES * half);
            match tile.fresh {
                true => store(y, half, *sum),
                false => store(y, half, _mm256_add_ps(load(y, half), *sum)),
            }
        }
    }
}

/// # Safety
/// As `Width::pack`.
#[target_feature(enable = "avx2")]
unsafe fn pack(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
    // SAFETY: the squares that are asked for are there.
    panels::pack_squares::<PANEL, LANES>(w, k, start..start + depth, packed, |from, to| unsafe {
        square(from, k, to)
    });
}

/// Transposes 8 × 8 units: rows `k` apart to rows 16 apart.
#[target_feature(enable = "avx2")]
unsafe fn square(from: *const u32, k: usize, to: *mut u32) {
    // SAFETY: the caller has 8 rows of 8 units on both sides.
    unsafe {
        let r: [__m256; LANES] = std::array::from_fn(|row| _mm256_loadu_ps(from.add(row * k).cast()));
        // pairs of rows, then fours of them, then both halves
        let low = |at: usize| _mm256_unpacklo_ps(r[2 * at], r[2 * at + 1]);
        let high = |at: usize| _mm256_unpackhi_ps(r[2 * at], r[2 * at + 1]);
        let (l, h) = ([low(0), low(1), low(2), low(3)], [high(0), high(1), high(2), high(3)]);
        let four = |at: usize| {
            [
                _mm256_shuffle_ps::<0x44>(l[at], l[at + 1]),
                _mm256_shuffle_ps::<0xee>(l[at], l[at + 1]),
                _mm256_shuffle_ps::<0x44>(h[at], h[at + 1]),
                _mm256_shuffle_ps::<0xee>(h[at], h[at + 1]),
            ]
        };
        for (row, (first, second)) in four(0).into_iter().zip(four(2)).enumerate() {
            _mm256_storeu_ps(
                to.add(row * PANEL).cast(),
                _mm256_permute2f128_ps::<0x20>(first, second),
            );
            _mm256_storeu_ps(
                to.add((row + 4) * PANEL).cast(),
                _mm256_permute2f128_ps::<0x31>(first, second),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{products_are_those_of_the_definition, rows_are_independent};
    use super::*;

    #[test]
    fn products_of_awkward_shapes_are_those_of_the_definition() {
        let shapes = [
            (1, 1, 1),
            (6, 16, 8),
            (5, 15, 7),
            (7, 17, 257),
            (3, 9, 800),
            (33, 130, 401),
            (65, 33, 64),
        ];
        products_are_those_of_the_definition(&KERNEL, "avx2", &shapes);
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_the_rows_beside_it() {
        let parts = [(0, 1), (5, 3), (11, 8), (20, 50), (69, 1)];
        rows_are_independent(&KERNEL, "avx2", (70, 100, 500), &parts);
    }
}

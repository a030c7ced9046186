//! XᵀX of a block of rows, added to sums in f64: the product behind every covariance.
//!
//! A general product forms all of XᵀX, copies its sides again for every strip, and writes single precision to memory before it can be added
//! up. This one forms the upper triangle alone, from panels that are packed once, and adds each short run of rows to f64 from registers.
//! An element is a fused multiply-add over the rows, in their order, for each run: its bits depend on neither the threads nor on how
//! many lanes the processor has.

use products::{Real, wide};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a panel: three registers of sixteen, or as many smaller ones.
pub const PANEL: usize = 48;
/// A cache line, in numbers of any type: where a panel begins, so that loads cross none.
const LINE: usize = 64;

/// A block's columns, 48 at a time: (panels, rows, 48), zeros beyond the width.
pub struct Panels<T> {
    row_count: usize,
    numbers: Vec<T>,
    skip: usize,
}

impl<T: Real> Panels<T> {
    pub fn new(row_count: usize, width: usize) -> Self {
        let len = width.div_ceil(PANEL) * row_count * PANEL;
        let numbers = vec![T::ZERO; len + LINE];
        let skip = numbers.as_ptr().align_offset(LINE).min(LINE);
        Self {
            row_count,
            numbers,
            skip,
        }
    }

    /// Each panel's rows, for filling: in parallel.
    pub fn par_iter_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [[T; PANEL]]> {
        let len = self.numbers.len() - LINE;
        self.numbers[self.skip..self.skip + len]
            .par_chunks_mut(self.row_count * PANEL)
            .map(|panel| panel.as_chunks_mut().0)
    }

    fn panel(&self, index: usize) -> &[[T; PANEL]] {
        let len = self.row_count * PANEL;
        let start = self.skip + index * len;
        self.numbers[start..start + len].as_chunks().0
    }

    /// Adds XᵀX + weight·δδᵀ to rows `48·panel..` of a packed upper triangle as wide as δ. `run` rows are summed in `T`, runs in f64.
    pub fn add_scatter(&self, panel: usize, run: usize, weight: f64, delta: &[f64], packed: &mut [f64]) {
        let (width, top) = (delta.len(), panel * PANEL);
        let left = self.panel(panel);
        for right in panel..width.div_ceil(PANEL) {
            let columns = right * PANEL..((right + 1) * PANEL).min(width);
            let mut sums = [[0.0; PANEL]; PANEL];
            Arch::new().dispatch(Square {
                left,
                right: self.panel(right),
                run,
                column_count: columns.len(),
                diagonal: right == panel,
                sums: &mut sums,
            });
            wide!({
                let mut start = 0; // of the row, in the packed triangle
                for (row, sums) in (top..width).zip(&sums) {
                    let first = columns.start.max(row);
                    let target = &mut packed[start + first - row..start + columns.end - row];
                    let scaled = weight * delta[row];
                    let beside = sums[first - columns.start..].iter().zip(&delta[first..]);
                    for (target, (sum, delta)) in target.iter_mut().zip(beside) {
                        *target += sum + scaled * delta;
                    }
                    start += width - row;
                }
            });
        }
    }
}

/// sums += leftᵀ · right for two panels, run by run; on the diagonal at least what lies in the upper triangle.
struct Square<'a, T> {
    left: &'a [[T; PANEL]],
    right: &'a [[T; PANEL]],
    run: usize,
    /// Columns of the right panel that are within the width.
    column_count: usize,
    diagonal: bool,
    sums: &'a mut [[f64; PANEL]; PANEL],
}

impl<T: Real> WithSimd for Square<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as registers hold, beside a row's part of the right side and one number of the left: 24 + 3 + 1, or 12 + 2 + 1.
        if S::REGISTER_COUNT >= 32 {
            self.tiles::<S, 8>(simd, 3);
        } else {
            self.tiles::<S, 6>(simd, 2);
        }
    }
}

impl<T: Real> Square<'_, T> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S, vector_count: usize) {
        let lanes = T::lane_count::<S>();
        for (left, right) in self.left.chunks(self.run).zip(self.right.chunks(self.run)) {
            for (strip, sums) in self.sums.as_chunks_mut::<R>().0.iter_mut().enumerate() {
                for first in (0..self.column_count).step_by(vector_count * lanes) {
                    // Registers that lie below the diagonal as a whole, and those that reach beyond the width.
                    let below = if self.diagonal {
                        (strip * R).saturating_sub(first) / lanes
                    } else {
                        0
                    };
                    let within = (self.column_count - first).div_ceil(lanes).min(vector_count);
                    let column = first + below * lanes;
                    match within.saturating_sub(below) {
                        3 => tile::<S, T, R, 3>(simd, left, right, strip, column, sums),
                        2 => tile::<S, T, R, 2>(simd, left, right, strip, column, sums),
                        1 => tile::<S, T, R, 1>(simd, left, right, strip, column, sums),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// R columns of the left panel by V registers of the right, over all rows given.
#[inline(always)]
fn tile<S: Simd, T: Real, const R: usize, const V: usize>(
    simd: S,
    left: &[[T; PANEL]],
    right: &[[T; PANEL]],
    strip: usize,
    column: usize,
    sums: &mut [[f64; PANEL]; R],
) {
    let lanes = T::lane_count::<S>();
    let columns = column..column + V * lanes;
    let mut tile = [[T::splat(simd, T::ZERO); V]; R];
    for (left, right) in left.iter().zip(right) {
        let left = &left.as_chunks::<R>().0[strip];
        let right = T::vectors::<S>(&right[columns.clone()]);
        let right: [T::Vector<S>; V] = std::array::from_fn(|at| right[at]);
        for (tile, x) in tile.iter_mut().zip(left) {
            let x = T::splat(simd, *x);
            for (sum, y) in tile.iter_mut().zip(right) {
                *sum = T::multiply_add(simd, x, y, *sum);
            }
        }
    }
    for (sums, tile) in sums.iter_mut().zip(&tile) {
        for (sums, vector) in sums[columns.clone()].chunks_exact_mut(lanes).zip(tile) {
            let mut numbers = [T::ZERO; LINE / size_of::<f32>()];
            T::vectors_mut::<S>(&mut numbers[..lanes])[0] = *vector;
            for (sum, x) in sums.iter_mut().zip(numbers) {
                *sum += x.to_f64();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moments::{packed_len, packed_row_start};
    use crate::rng::Rng;

    /// The packed triangle of the panels' rows, and those rows in f64.
    fn scatter<T: Real>(row_count: usize, width: usize, run: usize, narrow: fn(f64) -> T) -> (Vec<f64>, Vec<f64>) {
        let rng = Rng::new(5, "scatter test");
        let rows: Vec<T> = (0..row_count * width)
            .map(|at| narrow(rng.normal((at / width) as u64, (at % width) as u64)))
            .collect();
        let mut panels = Panels::new(row_count, width);
        panels.par_iter_mut().enumerate().for_each(|(panel, place)| {
            for (place, row) in place.iter_mut().zip(rows.chunks(width)) {
                let part = &row[panel * PANEL..width.min((panel + 1) * PANEL)];
                place[..part.len()].copy_from_slice(part);
            }
        });
        let delta: Vec<f64> = (0..width).map(|at| at as f64).collect();
        let mut packed = vec![1.0; packed_len(width)];
        for panel in 0..width.div_ceil(PANEL) {
            let start = packed_row_start(width, panel * PANEL);
            panels.add_scatter(panel, run, 0.5, &delta, &mut packed[start..]);
        }
        (packed, rows.iter().map(|x| x.to_f64()).collect())
    }

    fn check<T: Real>(row_count: usize, width: usize, run: usize, narrow: fn(f64) -> T, tolerance: f64) {
        let (packed, rows) = scatter(row_count, width, run, narrow);
        let mut found = packed.iter();
        for i in 0..width {
            for j in i..width {
                let products = rows.chunks(width).map(|row| row[i] * row[j]);
                let expected = 1.0 + products.sum::<f64>() + 0.5 * (i * j) as f64;
                let found = found.next().unwrap();
                assert!(
                    (found - expected).abs() <= tolerance * expected.abs().max(1.0),
                    "{row_count} x {width} at {i}, {j}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_scatter_is_the_sum_of_products_at_every_end_of_a_panel_and_a_run() {
        for width in [1, 15, 16, 47, 48, 49, 65, 100] {
            for row_count in [1, 7, 8, 9, 20] {
                check(row_count, width, 8, |x| x, 1e-14);
                check(row_count, width, 8, |x| x as f32, 1e-5);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_bits_do_not_depend_on_the_lanes() {
        let (Some(narrow), Some(wide)) = (pulp::x86::V3::try_new(), pulp::x86::V4::try_new()) else {
            return harness::skip("avx512f", "no AVX-512 here");
        };
        let rng = Rng::new(6, "scatter test");
        let panel = |side: u64| -> Vec<[f32; PANEL]> {
            let number = |row: u64, at: usize| rng.normal(2 * row + side, at as u64) as f32;
            (0..70).map(|row| std::array::from_fn(|at| number(row, at))).collect()
        };
        let (left, right) = (panel(0), panel(1));
        for diagonal in [false, true] {
            let (mut a, mut b) = ([[0.0; PANEL]; PANEL], [[0.0; PANEL]; PANEL]);
            let square = |sums| Square {
                left: &left,
                right: &right,
                run: 32,
                column_count: 40,
                diagonal,
                sums,
            };
            pulp::Simd::vectorize(narrow, square(&mut a));
            pulp::Simd::vectorize(wide, square(&mut b));
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                let first = if diagonal { i } else { 0 };
                assert!(first >= 40 || a[first..40] == b[first..40], "row {i}");
            }
        }
    }
}

//! XᵀX of a block of rows, added to sums in f64: the product behind every covariance.
//!
//! A general product forms all of XᵀX, copies its sides again for every strip, and writes single precision to memory before it can be added
//! up. This one forms the upper triangle alone, from panels that are packed once, and adds each short run of rows to f64 from registers.
//! An element is a fused multiply-add over the rows, in their order, for each run: its bits depend on neither the threads nor on how
//! many lanes the processor has.

use crate::product::Real;
use crate::registers::wide;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a panel: three registers of sixteen, or as many smaller ones.
pub const PANEL: usize = 48;
/// Registers of a tile's row.
const VECTOR_COUNT: usize = 3;
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
        // As many sums as registers hold, beside a row's part of the right side and one number of the left.
        if S::REGISTER_COUNT >= 32 {
            self.tiles::<S, 8>(simd);
        } else {
            self.tiles::<S, 4>(simd);
        }
    }
}

impl<T: Real> Square<'_, T> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S) {
        let lanes = T::lane_count::<S>();
        for (left, right) in self.left.chunks(self.run).zip(self.right.chunks(self.run)) {
            for (strip, sums) in self.sums.as_chunks_mut::<R>().0.iter_mut().enumerate() {
                for first in (0..self.column_count).step_by(VECTOR_COUNT * lanes) {
                    // Registers that lie below the diagonal as a whole, and those that reach beyond the width.
                    let below = if self.diagonal {
                        (strip * R).saturating_sub(first) / lanes
                    } else {
                        0
                    };
                    let within = (self.column_count - first).div_ceil(lanes).min(VECTOR_COUNT);
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

//! Sides of a product whose rows lie along the other index, as in a backward pass: a unit is a pair of bf16 from two neighbouring rows.

use std::ops::Range;

use rayon::prelude::*;

use super::Operand;
use crate::wide;

/// Rows of a side that are made together: as many as a cache line holds numbers.
const TOGETHER: usize = 32;

/// (k, count) numbers of bf16 that are `count` rows of k for a product.
#[derive(Clone, Copy)]
pub struct Turned<'a> {
    numbers: &'a [u16],
    pub count: usize,
}

impl<'a> Turned<'a> {
    /// `None` for numbers that are no bf16.
    pub fn new<T: Operand>(numbers: &'a [T], count: usize) -> Option<Self> {
        let numbers = bytemuck::try_cast_slice(numbers).ok().filter(|_| T::PER_UNIT == 2)?;
        Some(Self { numbers, count })
    }

    /// Units of a row; behind an odd number of numbers there is a zero.
    pub fn k(&self) -> usize {
        (self.numbers.len() / self.count.max(1)).div_ceil(2)
    }

    /// Unit `at` of some rows.
    #[inline(always)]
    pub fn units(&self, at: usize, rows: Range<usize>, into: &mut [u32]) {
        let line = |at: usize| {
            self.numbers
                .get(at * self.count + rows.start..at * self.count + rows.end)
        };
        let (first, second) = (line(2 * at).unwrap_or_default(), line(2 * at + 1));
        match second {
            Some(second) => {
                for ((unit, first), second) in into.iter_mut().zip(first).zip(second) {
                    *unit = u32::from(*first) | u32::from(*second) << 16;
                }
            }
            None => {
                for (unit, first) in into.iter_mut().zip(first) {
                    *unit = u32::from(*first);
                }
            }
        }
    }

    /// Writes some rows one after the other.
    pub fn write(&self, rows: Range<usize>, into: &mut [u32]) {
        let k = self.k();
        let parts = into.chunks_mut(TOGETHER * k).zip(rows.clone().step_by(TOGETHER));
        for (into, first) in parts {
            let rows = first..(first + TOGETHER).min(rows.end);
            wide!({
                let mut units = [0; TOGETHER];
                for at in 0..k {
                    self.units(at, rows.clone(), &mut units);
                    for (row, unit) in into.chunks_exact_mut(k).zip(units) {
                        row[at] = unit;
                    }
                }
            });
        }
    }

    /// All rows, on all threads.
    pub fn rows(&self) -> Vec<u32> {
        let mut rows = vec![0; self.count * self.k()];
        let parts = rows.par_chunks_mut((TOGETHER * self.k()).max(1)).enumerate();
        parts.for_each(|(part, into)| {
            let first = part * TOGETHER;
            self.write(first..(first + TOGETHER).min(self.count), into);
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::tests::values;
    use super::*;
    use crate::rounding::narrow;

    #[test]
    fn rows_are_the_columns_and_an_odd_one_ends_with_zero() {
        let (k, count) = (5, 70);
        let numbers = narrow(&values(k * count, 1));
        let rows = Turned::new(&numbers, count).unwrap().rows();
        let rows: &[bf16] = bytemuck::cast_slice(&rows);
        for (column, row) in rows.chunks(6).enumerate() {
            let expected: Vec<bf16> = (0..k).map(|at| numbers[at * count + column]).collect();
            assert_eq!((&row[..k], row[k]), (&expected[..], bf16::ZERO));
        }
        assert!(Turned::new(&[1.0_f32], 1).is_none());
    }
}

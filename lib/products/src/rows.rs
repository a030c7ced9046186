//! The right side of `x · wᵀ`: a matrix in memory, or one whose rows are made while they are multiplied.

use std::ops::Range;

use ndarray::ArrayView2;

/// The rows of a matrix that is kept in another form, such as a weight in four bits. A product asks for few of them at a time, in each of
/// its tasks, so that the matrix never stands whole; its bits are those of a product with the same numbers in memory.
pub trait Rows<T>: Sync {
    /// (rows, numbers of a row).
    fn dim(&self) -> (usize, usize);

    /// Writes some rows, one after the other, into a place of their size.
    fn write(&self, rows: Range<usize>, into: &mut [T]);

    /// Writes x · each of some rows for the kernel that multiplies few rows of f32 and sums in so many lanes (8 on AVX2, 16 on
    /// AVX-512), to the bits that it has of their numbers. False where these have to be written for it.
    fn multiply(&self, _rows: Range<usize>, _x: &[f32], _lanes: usize, _into: &mut [f32]) -> bool {
        false
    }
}

/// A right side, (k, columns).
#[derive(Clone, Copy)]
pub(crate) enum Right<'a, T> {
    Lies(ArrayView2<'a, T>),
    /// Its columns are these rows.
    Made(&'a dyn Rows<T>),
}

impl<T> Right<'_, T> {
    /// (k, columns).
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::Lies(view) => view.dim(),
            Self::Made(rows) => {
                let (columns, k) = rows.dim();
                (k, columns)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::{How, MixedProduct, Operand, Precision, matrix, narrow};

    /// Rows that lie, given when they are asked for.
    struct Copied<'a, T>(ArrayView2<'a, T>);

    impl<T: Operand> Rows<T> for Copied<'_, T> {
        fn dim(&self) -> (usize, usize) {
            self.0.dim()
        }

        fn write(&self, rows: Range<usize>, into: &mut [T]) {
            let all = self.0.to_slice().expect("a matrix without gaps");
            into.copy_from_slice(&all[rows.start * self.0.ncols()..rows.end * self.0.ncols()]);
        }
    }

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    #[track_caller]
    fn is_the_same<T: Operand>(x: &[T], w: &[T], (rows, columns, k): (usize, usize, usize), how: How) {
        let (x, w, bias) = (matrix(x, rows, k), matrix(w, columns, k), numbers(columns, 0.3));
        let made = Copied(w);
        let lies = MixedProduct::of(x, w.reversed_axes(), how).with_bias(Some(&bias));
        let made = MixedProduct::of_rows(x, &made, how).with_bias(Some(&bias));
        assert_eq!(made.dim(), (rows, columns));
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let same = pool.install(|| {
                bytemuck::cast_slice::<T, u8>(&made.to_vec()) == bytemuck::cast_slice::<T, u8>(&lies.to_vec())
            });
            assert!(same, "{rows} {columns} {k} {how:?} {threads}");
            assert!(pool.install(|| made.to_f32() == lies.to_f32()));
        }
    }

    #[test]
    fn rows_that_are_made_are_multiplied_to_the_bits_of_rows_that_lie() {
        let shapes = [
            (1, 1, 32),
            (1, 200, 96),
            (3, 31, 800),
            (4, 33, 64),
            (33, 130, 416),
            (130, 300, 96),
            (2, 5, 7),
            (9, 40, 33),
        ];
        for shape @ (rows, columns, k) in shapes {
            let (x, w) = (numbers(rows * k, 0.7), numbers(columns * k, 1.3));
            for steady in [false, true] {
                for precision in [Precision::Full, Precision::Medium] {
                    is_the_same(&x, &w, shape, How { steady, precision });
                }
                let precision = Precision::Full;
                is_the_same::<bf16>(&narrow(&x), &narrow(&w), shape, How { steady, precision });
            }
        }
    }
}

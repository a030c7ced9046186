//! A symmetric matrix reduced to a band with the same eigenvalues, on all threads: the stage of the eigenvalue problem that costs.
//!
//! A panel of [`BAND`] rows right of the band is triangularised by reflectors, H = I − V·T·Vᵀ, and what is left becomes
//! HᵀAH = A − V·Wᵀ − W·Vᵀ. Nearly all the work is two products per panel, A·V and that update, which read only the upper triangle and are
//! divided into strips of rows: the bits do not depend on the threads.

use crate::lapack::{self, LapackError, Reflectors};
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use products::{Product, strided, strided_mut};
use rayon::prelude::*;

/// Superdiagonals of the band: wide enough for products to run at full speed, narrow enough for the second stage.
const BAND: usize = 48;
/// Rows of a strip.
const STRIP: usize = 256;

/// All eigenvalues of a full symmetric matrix, in descending order.
pub fn eigenvalues(mut matrix: Array2<f64>) -> Result<Vec<f64>, LapackError> {
    assert!(
        matrix.is_square() && matrix.is_standard_layout(),
        "a square row-major matrix"
    );
    let order = matrix.nrows();
    reduce(matrix.as_slice_mut().expect("row-major"), order)?;
    let width = BAND.min(order.saturating_sub(1));
    let mut band = Array2::zeros((order, width + 1));
    for (row, mut band) in band.rows_mut().into_iter().enumerate() {
        let count = (width + 1).min(order - row);
        band.slice_mut(s![..count])
            .assign(&matrix.slice(s![row, row..row + count]));
    }
    drop(matrix);
    lapack::eigenvalues_of_band(band)
}

/// Overwrites the upper triangle of the row-major `matrix` with the band; what lies right of it is left as rubbish.
fn reduce(matrix: &mut [f64], order: usize) -> Result<(), LapackError> {
    if order <= BAND + 1 {
        return Ok(());
    }
    let mut reflectors = lapack::reflectors(strided_mut(&mut matrix[BAND..], BAND, order - BAND, order))?;
    for top in (BAND..order).step_by(BAND) {
        let trailing = Trailing { order, top };
        let len = order - top;
        let update = trailing.update(matrix, &reflectors);
        // The next panel first: while the others are updated, its reflectors are found.
        let panel_row_count = BAND.min(len);
        let (panel, rest) = matrix[top * order..].split_at_mut(panel_row_count * order);
        update.apply(panel, trailing, 0);
        if len <= BAND + 1 {
            update.apply_strips(rest, trailing, panel_row_count);
            break;
        }
        let next = strided_mut(&mut panel[top + BAND..], panel_row_count, len - BAND, order);
        let (next, ()) = rayon::join(
            || lapack::reflectors(next),
            || update.apply_strips(rest, trailing, panel_row_count),
        );
        reflectors = next?;
    }
    Ok(())
}

/// The square below and right of `top`, of which the upper triangle counts.
#[derive(Clone, Copy)]
struct Trailing {
    order: usize,
    top: usize,
}

/// V and W: what a panel's reflectors take from the trailing square. (2·count, len): V above W, and W above V.
struct Update {
    left: Array2<f64>,
    right: Array2<f64>,
}

impl Trailing {
    fn update(self, matrix: &[f64], reflectors: &Reflectors) -> Update {
        let (v, t) = (&reflectors.vectors, &reflectors.factor); // (count, len), (count, count)
        let image = self.times(matrix, v.view());
        // X = A·V·T, S = Vᵀ·X, W = X − ½·V·TᵀS; all of them transposed here.
        let x = Product::of(t.t(), image.view()).to_array_by_columns();
        let s = Product::of(x.view(), v.t()).to_array();
        let half = Product::of(s.view(), t.view()).to_array();
        let inside = Product::of(half.view(), v.view()).to_array_by_columns();
        let w = x - 0.5 * inside;
        let stacked = |above: &Array2<f64>, below: &Array2<f64>| {
            concatenate(Axis(0), &[above.view(), below.view()]).expect("both have count rows of len")
        };
        Update {
            left: stacked(v, &w),
            right: stacked(&w, v),
        }
    }

    /// v · A for the rows of `v`. Each strip of A gives its own columns of the result, and what its mirror image adds to later ones.
    fn times(self, matrix: &[f64], v: ArrayView2<'_, f64>) -> Array2<f64> {
        let len = self.order - self.top;
        let parts: Vec<(Array2<f64>, Array2<f64>)> = (0..len)
            .into_par_iter()
            .step_by(STRIP)
            .with_max_len(1)
            .map(|first| self.times_strip(matrix, v.view(), first))
            .collect();
        let mut image = vec![0.0; v.nrows() * len];
        image.par_chunks_exact_mut(len).enumerate().for_each(|(row, image)| {
            for (strip, (own, later)) in parts.iter().enumerate() {
                let (own, later) = (own.row(row), later.row(row));
                let image = &mut image[strip * STRIP..];
                image
                    .iter_mut()
                    .zip(own.iter().chain(later))
                    .for_each(|(x, part)| *x += part);
            }
        });
        Array2::from_shape_vec((v.nrows(), len), image).expect("as many rows of len")
    }

    /// What the rows of A from `first` on give to their own columns, and to all that come later.
    fn times_strip(self, matrix: &[f64], v: ArrayView2<'_, f64>, first: usize) -> (Array2<f64>, Array2<f64>) {
        let len = self.order - self.top;
        let end = (first + STRIP).min(len);
        let rows = strided(
            &matrix[(self.top + first) * self.order + self.top..],
            end - first,
            len,
            self.order,
        );
        let (_, rows) = rows.split_at(Axis(1), first);
        let (square, beside) = rows.split_at(Axis(1), end - first);
        let mut square = square.to_owned();
        mirror(&mut square);
        let (_, from_first) = v.split_at(Axis(1), first);
        let (here, after) = from_first.split_at(Axis(1), end - first);
        let mut own = Product::of(here.view(), square.view()).to_array();
        let mut later = Array2::zeros((v.nrows(), len - end));
        if end < len {
            Product::of(after, beside.t()).add_to(own.view_mut());
            Product::of(here, beside).fill(later.view_mut());
        }
        (own, later)
    }
}

impl Update {
    /// Takes V·Wᵀ + W·Vᵀ from whole rows of the matrix, of which the first is `first` of the trailing square.
    fn apply(&self, rows: &mut [f64], trailing: Trailing, first: usize) {
        let (row_count, len) = (rows.len() / trailing.order, self.left.ncols());
        let (_, right) = self.right.view().split_at(Axis(1), first);
        let (left, _) = self.left.view().split_at(Axis(1), first + row_count);
        let (_, left) = left.split_at(Axis(1), first);
        let place = strided_mut(
            &mut rows[trailing.top + first..],
            row_count,
            len - first,
            trailing.order,
        );
        Product::of(left.reversed_axes(), right).scaled(-1.0).add_to(place);
    }

    fn apply_strips(&self, rows: &mut [f64], trailing: Trailing, first: usize) {
        rows.par_chunks_mut(STRIP * trailing.order)
            .enumerate()
            .for_each(|(at, rows)| self.apply(rows, trailing, first + at * STRIP));
    }
}

/// Makes the upper triangle the law.
fn mirror(square: &mut Array2<f64>) {
    for row in 1..square.nrows() {
        for column in 0..row {
            square[[row, column]] = square[[column, row]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lapack::tests::symmetric;

    #[test]
    fn eigenvalues_are_lapacks_at_every_end_of_a_panel_and_a_strip() {
        for order in [
            1,
            2,
            BAND,
            BAND + 1,
            BAND + 2,
            2 * BAND - 1,
            2 * BAND + 1,
            STRIP + BAND + 1,
            700,
        ] {
            let matrix = symmetric(order, 7);
            let expected = lapack::eigen(matrix.clone()).unwrap().values;
            let found = eigenvalues(matrix).unwrap();
            assert_eq!(found.len(), order);
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-13 * (order as f64), "{order}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_threads_and_the_lower_triangle_is_not_read() {
        let order = 620;
        let matrix = symmetric(order, 7);
        let whole = eigenvalues(matrix.clone()).unwrap();
        let mut upper = matrix;
        for row in 0..order {
            upper.slice_mut(s![row, ..row]).fill(f64::NAN);
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| eigenvalues(upper.clone()).unwrap()), whole);
        }
    }
}

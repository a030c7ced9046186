//! A symmetric matrix reduced to a band with the same eigenvalues, on all threads: the stage of the eigenvalue problem that costs.
//!
//! A panel of [`BAND`] rows right of the band is triangularised by reflectors, H = I − V·T·Vᵀ, and what is left becomes
//! HᵀAH = A − V·Wᵀ − W·Vᵀ. Nearly all the work is two products per panel, A·V and that update, which read only the upper triangle and are
//! divided into strips of rows: the bits do not depend on the threads.

use crate::lapack::{self, LapackError, Reflectors};
use crate::product::{self, View};
use rayon::prelude::*;

/// Superdiagonals of the band: wide enough for products to run at full speed, narrow enough for the second stage.
const BAND: usize = 48;
/// Rows of a strip.
const STRIP: usize = 256;

/// All eigenvalues of a full symmetric matrix, in descending order.
pub fn eigenvalues(mut matrix: Vec<f64>, order: usize) -> Result<Vec<f64>, LapackError> {
    assert_eq!(matrix.len(), order * order, "a square matrix");
    reduce(&mut matrix, order)?;
    let width = BAND.min(order.saturating_sub(1));
    let mut band = vec![0.0; order * (width + 1)];
    for (row, band) in band.chunks_exact_mut(width + 1).enumerate() {
        let count = (width + 1).min(order - row);
        band[..count].copy_from_slice(&matrix[row * order + row..][..count]);
    }
    drop(matrix);
    lapack::eigenvalues_of_band(band, order, width)
}

/// Overwrites the upper triangle of the row-major `matrix` with the band; what lies right of it is left as rubbish.
fn reduce(matrix: &mut [f64], order: usize) -> Result<(), LapackError> {
    if order <= BAND + 1 {
        return Ok(());
    }
    let mut reflectors = lapack::reflectors(&mut matrix[BAND..], order, BAND, order - BAND)?;
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
        let (next, ()) = rayon::join(
            || lapack::reflectors(&mut panel[top + BAND..], order, panel_row_count, len - BAND),
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

/// V and W: what a panel's reflectors take from the trailing square. Row-major (2·count, len): V above W, and W above V.
struct Update {
    len: usize,
    left: Vec<f64>,
    right: Vec<f64>,
}

impl Trailing {
    fn update(self, matrix: &[f64], reflectors: &Reflectors) -> Update {
        let len = self.order - self.top;
        let count = reflectors.count;
        let v = &reflectors.vectors; // (count, len)
        let image = self.times(matrix, v, count);
        // X = A·V·T, S = Vᵀ·X, W = X − ½·V·TᵀS; all of them transposed here.
        let t = View::new(&reflectors.factor, count, count, count);
        let x = product::multiply_by_columns(t.transposed(), View::new(&image, count, len, len));
        let mut s = vec![0.0; count * count];
        product::multiply(
            View::new(&x, count, len, len),
            View::new(v, count, len, len).transposed(),
            &mut s,
            count,
        );
        let mut half = vec![0.0; count * count];
        product::multiply(View::new(&s, count, count, count), t, &mut half, count);
        let inside = product::multiply_by_columns(View::new(&half, count, count, count), View::new(v, count, len, len));
        let w = x.iter().zip(&inside).map(|(x, inside)| x - 0.5 * inside);
        let mut right: Vec<f64> = w.collect();
        let mut left = Vec::with_capacity(2 * count * len);
        left.extend_from_slice(v);
        left.extend_from_slice(&right);
        right.extend_from_slice(v);
        Update { len, left, right }
    }

    /// v · A for the rows of `v`. Each strip of A gives its own columns of the result, and what its mirror image adds to later ones.
    fn times(self, matrix: &[f64], v: &[f64], count: usize) -> Vec<f64> {
        let len = self.order - self.top;
        let parts: Vec<(Vec<f64>, Vec<f64>)> = (0..len)
            .into_par_iter()
            .step_by(STRIP)
            .with_max_len(1)
            .map(|first| {
                let end = (first + STRIP).min(len);
                let rows = &matrix[(self.top + first) * self.order + self.top..];
                let strip = |from: usize| View::new(&rows[from..], end - first, len - from, self.order);
                let mut square = vec![0.0; (end - first) * (end - first)];
                for (at, square) in square.chunks_exact_mut(end - first).enumerate() {
                    square.copy_from_slice(&rows[at * self.order + first..][..end - first]);
                }
                mirror(&mut square, end - first);
                let mut own = vec![0.0; count * (end - first)];
                product::multiply(
                    View::new(&v[first..], count, end - first, len),
                    View::new(&square, end - first, end - first, end - first),
                    &mut own,
                    end - first,
                );
                let mut later = vec![0.0; count * (len - end)];
                if end < len {
                    product::multiply_add(
                        1.0,
                        View::new(&v[end..], count, len - end, len),
                        strip(end).transposed(),
                        &mut own,
                        end - first,
                    );
                    product::multiply(
                        View::new(&v[first..], count, end - first, len),
                        strip(end),
                        &mut later,
                        len - end,
                    );
                }
                (own, later)
            })
            .collect();
        let mut image = vec![0.0; count * len];
        image.par_chunks_exact_mut(len).enumerate().for_each(|(row, image)| {
            for (strip, (own, later)) in parts.iter().enumerate() {
                let first = strip * STRIP;
                let end = (first + STRIP).min(len);
                let add = |image: &mut [f64], part: &[f64]| image.iter_mut().zip(part).for_each(|(x, part)| *x += part);
                add(&mut image[first..end], &own[row * (end - first)..][..end - first]);
                add(&mut image[end..], &later[row * (len - end)..][..len - end]);
            }
        });
        image
    }
}

impl Update {
    /// Takes V·Wᵀ + W·Vᵀ from whole rows of the matrix, of which the first is `first` of the trailing square.
    fn apply(&self, rows: &mut [f64], trailing: Trailing, first: usize) {
        let row_count = rows.len() / trailing.order;
        let depth = self.left.len() / self.len;
        product::multiply_add(
            -1.0,
            View::new(&self.left[first..], depth, row_count, self.len).transposed(),
            View::new(&self.right[first..], depth, self.len - first, self.len),
            &mut rows[trailing.top + first..],
            trailing.order,
        );
    }

    fn apply_strips(&self, rows: &mut [f64], trailing: Trailing, first: usize) {
        rows.par_chunks_mut(STRIP * trailing.order)
            .enumerate()
            .for_each(|(at, rows)| self.apply(rows, trailing, first + at * STRIP));
    }
}

/// Makes the upper triangle the law.
fn mirror(square: &mut [f64], order: usize) {
    for row in 1..order {
        for column in 0..row {
            square[row * order + column] = square[column * order + row];
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
            let expected = lapack::eigen(matrix.clone(), order).unwrap().values;
            let found = eigenvalues(matrix, order).unwrap();
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
        let whole = eigenvalues(matrix.clone(), order).unwrap();
        let mut upper = matrix;
        for row in 0..order {
            upper[row * order..row * order + row].fill(f64::NAN);
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| eigenvalues(upper.clone(), order).unwrap()), whole);
        }
    }
}

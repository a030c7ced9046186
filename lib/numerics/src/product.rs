//! The dense product, and the only place that calls its kernel.
//!
//! The `gemm` crate picks AVX-512, AVX2 or NEON when the program runs, looks at no environment variable and starts no thread here,
//! so the bits of a product depend on its shape and on the processor's family alone. Parallelism is over tiles that the shape decides.

use crate::registers::Lanes;
use rayon::prelude::*;

/// Columns of a task.
const STRIP: usize = 128;

/// A row-major matrix seen through its strides: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    row_count: usize,
    column_count: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Copy> View<'a, T> {
    /// The `row_count` × `column_count` matrix that starts at `data[0]`, whose rows lie `row_stride` apart.
    ///
    /// # Panics
    /// If the matrix does not lie inside `data`.
    pub fn new(data: &'a [T], row_count: usize, column_count: usize, row_stride: usize) -> Self {
        let last = row_count.saturating_sub(1) * row_stride + column_count;
        assert!(
            row_count == 0 || column_count == 0 || last <= data.len(),
            "a view reaches beyond its data"
        );
        Self {
            data,
            row_count,
            column_count,
            row_stride,
            column_stride: 1,
        }
    }

    pub fn row_count(self) -> usize {
        self.row_count
    }

    /// Some columns of it.
    fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.column_count, "columns beyond the last");
        Self {
            data: &self.data[first * self.column_stride..],
            column_count: count,
            ..self
        }
    }

    /// The same numbers with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            row_count: self.column_count,
            column_count: self.row_count,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// The number types of products; sealed, because the kernels know these two.
pub trait Real: Lanes + Send + Sync {
    const ZERO: Self;
    const ONE: Self;
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// out = left · right, row-major with rows `out_row_stride` apart, on the calling thread.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply<T: Real>(left: View<'_, T>, right: View<'_, T>, out: &mut [T], out_row_stride: usize) {
    kernel(false, T::ONE, left, right, out, out_row_stride);
}

/// out += scale · left · right, otherwise as [`multiply`].
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply_add<T: Real>(scale: T, left: View<'_, T>, right: View<'_, T>, out: &mut [T], out_row_stride: usize) {
    kernel(true, scale, left, right, out, out_row_stride);
}

/// left · right, with the columns of `right` divided among tasks: for products of few rows.
pub fn multiply_by_columns<T: Real>(left: View<'_, T>, right: View<'_, T>) -> Vec<T> {
    let (row_count, column_count) = (left.row_count, right.column_count);
    let strips: Vec<Vec<T>> = (0..column_count)
        .into_par_iter()
        .step_by(STRIP)
        .map(|first| {
            let width = STRIP.min(column_count - first);
            let mut out = vec![T::ZERO; row_count * width];
            multiply(left, right.columns(first, width), &mut out, width);
            out
        })
        .collect();
    let mut whole = vec![T::ZERO; row_count * column_count];
    for (at, strip) in strips.iter().enumerate() {
        let width = STRIP.min(column_count - at * STRIP);
        for (whole, strip) in whole.chunks_exact_mut(column_count).zip(strip.chunks_exact(width)) {
            whole[at * STRIP..][..width].copy_from_slice(strip);
        }
    }
    whole
}

fn kernel<T: Real>(add: bool, scale: T, left: View<'_, T>, right: View<'_, T>, out: &mut [T], out_row_stride: usize) {
    let (m, n, k) = (left.row_count, right.column_count, left.column_count);
    assert_eq!(k, right.row_count, "inner sizes differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        out_row_stride >= n && (m - 1) * out_row_stride + n <= out.len(),
        "the product does not fit its place"
    );
    if k == 0 {
        for row in out.chunks_mut(out_row_stride).take(m).filter(|_| !add) {
            row[..n].fill(T::ZERO);
        }
        return;
    }
    // SAFETY: the views were checked to lie inside their slices when made, `out` was checked above and is borrowed mutably, so the
    // kernel reads and writes only memory that belongs to the arguments; f32 and f64 are types it supports.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row_stride as isize,
            add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            T::ONE, // of out, where it is read
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_agrees_with_three_loops_for_every_orientation() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64 * 0.7).sin()).collect();
        let b: Vec<f64> = (0..k * n).map(|i| (i as f64 * 1.3).cos()).collect();
        let mut b_transposed = vec![0.0; n * k];
        for row in 0..k {
            for column in 0..n {
                b_transposed[column * k + row] = b[row * n + column];
            }
        }
        let mut out = vec![f64::NAN; m * 9];
        let mut other = vec![f64::NAN; m * n];
        multiply(View::new(&a, m, k, k), View::new(&b, k, n, n), &mut out, 9);
        multiply(
            View::new(&a, m, k, k),
            View::new(&b_transposed, n, k, k).transposed(),
            &mut other,
            n,
        );
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                assert!((out[i * 9 + j] - exact).abs() < 1e-14 && (other[i * n + j] - exact).abs() < 1e-14);
            }
        }
        assert!(out[7].is_nan(), "the padding of a row is not written");
    }

    #[test]
    fn columns_in_parallel_and_sums_are_those_of_one_product() {
        let (m, n, k) = (3, 2 * STRIP + 5, 4);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64 * 0.7).sin()).collect();
        let b: Vec<f64> = (0..k * n).map(|i| (i as f64 * 1.3).cos()).collect();
        let (left, right) = (View::new(&a, m, k, k), View::new(&b, k, n, n));
        let mut whole = vec![0.0; m * n];
        multiply(left, right, &mut whole, n);
        let close = |found: &[f64]| found.iter().zip(&whole).all(|(x, y)| (x - y).abs() < 1e-14);
        assert!(close(&multiply_by_columns(left, right)));
        let mut sum = whole.iter().map(|x| 3.0 * x).collect::<Vec<f64>>();
        multiply_add(-2.0, left, right, &mut sum, n);
        assert!(close(&sum));
    }

    #[test]
    fn an_empty_inner_size_gives_zeros() {
        let mut out = vec![1.0_f32; 4];
        multiply(View::new(&[], 2, 0, 0), View::new(&[], 0, 2, 2), &mut out, 2);
        assert_eq!(out, [0.0; 4]);
    }
}

//! The general product, and the only place that calls its kernel.
//!
//! The `gemm` crate picks AVX-512, AVX2 or NEON when the program runs and looks at no environment variable, so the bits of a product
//! depend on its shape and on the processor's family alone.

use std::mem::MaybeUninit;

use gemm::Parallelism;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Ix2, ShapeBuilder, StrideShape};
use rayon::prelude::*;

use crate::registers::Lanes;

/// Columns of a task.
const STRIP: usize = 128;

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

/// A row-major matrix at the start of a slice.
///
/// # Panics
/// If it reaches beyond the slice.
pub fn matrix<T>(numbers: &[T], row_count: usize, column_count: usize) -> ArrayView2<'_, T> {
    strided(numbers, row_count, column_count, column_count)
}

/// A matrix at the start of a slice, with rows `row_stride` apart.
///
/// # Panics
/// If it reaches beyond the slice.
pub fn strided<T>(numbers: &[T], row_count: usize, column_count: usize, row_stride: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape(layout(row_count, column_count, row_stride), numbers).expect("a matrix inside its slice")
}

/// As [`strided`], to be written.
pub fn strided_mut<T>(
    numbers: &mut [T],
    row_count: usize,
    column_count: usize,
    row_stride: usize,
) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape(layout(row_count, column_count, row_stride), numbers).expect("a matrix inside its slice")
}

fn layout(row_count: usize, column_count: usize, row_stride: usize) -> StrideShape<Ix2> {
    match row_count.min(column_count) {
        // nothing is `row_stride` apart, and nothing need be there
        0 => (row_count, column_count).into(),
        _ => (row_count, column_count).strides((row_stride, 1)),
    }
}

/// factor · left · right, not yet computed.
#[derive(Clone)]
pub struct Product<'a, T> {
    left: ArrayView2<'a, T>,
    right: ArrayView2<'a, T>,
    factor: T,
    parallelism: Parallelism,
}

impl<'a, T: Real> Product<'a, T> {
    /// left · right, on the calling thread.
    ///
    /// # Panics
    /// If the inner sizes differ.
    pub fn of(left: ArrayView2<'a, T>, right: ArrayView2<'a, T>) -> Self {
        assert_eq!(left.ncols(), right.nrows(), "inner sizes differ");
        Self {
            left,
            right,
            factor: T::ONE,
            parallelism: Parallelism::None,
        }
    }

    pub fn scaled(self, factor: T) -> Self {
        Self { factor, ..self }
    }

    /// On all threads, as the kernel divides the work.
    pub fn in_parallel(self) -> Self {
        let parallelism = match rayon::current_num_threads() {
            1 => Parallelism::None,
            threads => Parallelism::Rayon(threads),
        };
        Self { parallelism, ..self }
    }

    /// (rows, columns) of the product.
    pub fn dim(&self) -> (usize, usize) {
        (self.left.nrows(), self.right.ncols())
    }

    /// The product, row by row.
    pub fn to_vec(&self) -> Vec<T> {
        let (row_count, column_count) = self.dim();
        let mut numbers = Vec::with_capacity(row_count * column_count);
        // SAFETY: the capacity is that of the product, which writes every number before the length says so.
        unsafe {
            self.run(false, numbers.as_mut_ptr(), column_count as isize, 1);
            numbers.set_len(row_count * column_count);
        }
        numbers
    }

    pub fn to_array(&self) -> Array2<T> {
        Array2::from_shape_vec(self.dim(), self.to_vec()).expect("as many numbers as the shape has")
    }

    /// As [`Product::to_array`], with the columns of `right` divided among tasks: for products of few rows. The division is that
    /// of the shape, so that the bits do not depend on the threads.
    pub fn to_array_by_columns(&self) -> Array2<T> {
        let (row_count, column_count) = self.dim();
        let strips: Vec<ArrayView2<'_, T>> = self.right.axis_chunks_iter(Axis(1), STRIP).collect();
        let strips: Vec<Vec<T>> = strips
            .into_par_iter()
            .map(|right| Product { right, ..self.clone() }.to_vec())
            .collect();
        let mut whole = Array2::from_elem((row_count, column_count), T::ZERO);
        for (mut place, strip) in whole.axis_chunks_iter_mut(Axis(1), STRIP).zip(&strips) {
            let strip = matrix(strip, row_count, place.ncols());
            place.assign(&strip);
        }
        whole
    }

    /// Overwrites `out` with the product.
    ///
    /// # Panics
    /// If `out` has another shape.
    pub fn fill(&self, out: ArrayViewMut2<'_, T>) {
        self.meet(false, out);
    }

    /// Adds the product to `out`.
    ///
    /// # Panics
    /// If `out` has another shape.
    pub fn add_to(&self, out: ArrayViewMut2<'_, T>) {
        self.meet(true, out);
    }

    fn meet(&self, add: bool, mut out: ArrayViewMut2<'_, T>) {
        assert_eq!(self.dim(), out.dim(), "the product does not fit its place");
        let (row_stride, column_stride) = (out.stride_of(Axis(0)), out.stride_of(Axis(1)));
        // SAFETY: the view is of the product's shape, initialised, and borrowed mutably.
        unsafe { self.run(add, out.as_mut_ptr(), row_stride, column_stride) };
    }

    /// Overwrites the beginning of `out` with the product, or adds it there.
    ///
    /// # Safety
    /// Nobody else touches those numbers meanwhile; with `add` they are initialised.
    ///
    /// # Panics
    /// If the product is larger.
    pub unsafe fn write(&self, add: bool, out: Target<T>) {
        let (row_count, column_count) = self.dim();
        let reach = row_count.saturating_sub(1) * out.row_stride + column_count;
        assert!(
            row_count == 0 || column_count == 0 || reach <= out.len,
            "the product does not fit its place"
        );
        // SAFETY: the place is there, by the assertion, and this call's alone, by the caller's promise.
        unsafe { self.run(add, out.pointer, out.row_stride as isize, 1) };
    }

    /// # Safety
    /// `out` has a place for every number of the product at these strides, which nobody else touches; with `add` they are
    /// initialised.
    unsafe fn run(&self, add: bool, out: *mut T, row_stride: isize, column_stride: isize) {
        let ((m, n), k) = (self.dim(), self.left.ncols());
        if m == 0 || n == 0 {
            return;
        }
        let strides = |view: &ArrayView2<'_, T>| (view.stride_of(Axis(0)), view.stride_of(Axis(1)));
        let (left, right) = (strides(&self.left), strides(&self.right));
        // SAFETY: the views hold (m, k) and (k, n) numbers at their strides, and `out` (m, n), by the caller's promise; f32 and f64
        // are types that the kernel supports.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out,
                column_stride,
                row_stride,
                add,
                self.left.as_ptr(),
                left.1,
                left.0,
                self.right.as_ptr(),
                right.1,
                right.0,
                T::ONE, // of out, where it is read
                self.factor,
                false,
                false,
                false,
                self.parallelism,
            );
        }
    }
}

/// Where products go that tasks write into one buffer side by side: rows `row_stride` apart, initialised or not.
#[derive(Clone, Copy)]
pub struct Target<T> {
    pub(crate) pointer: *mut T,
    len: usize,
    pub(crate) row_stride: usize,
}

// SAFETY: a target is only reached through `Product::write` and `Target::slice`, whose callers vouch that what they reach at the
// same time does not overlap.
unsafe impl<T: Send> Send for Target<T> {}
// SAFETY: sharing a target gives no access either without the same promise.
unsafe impl<T: Send> Sync for Target<T> {}

impl<T> Target<T> {
    pub fn new(numbers: &mut [T], row_stride: usize) -> Self {
        Self {
            pointer: numbers.as_mut_ptr(),
            len: numbers.len(),
            row_stride,
        }
    }

    pub fn uninitialised(numbers: &mut [MaybeUninit<T>], row_stride: usize) -> Self {
        Self {
            pointer: numbers.as_mut_ptr().cast(),
            len: numbers.len(),
            row_stride,
        }
    }

    /// The part that begins at `start`.
    pub fn at(self, start: usize) -> Self {
        assert!(start <= self.len);
        // SAFETY: inside the buffer, by the assertion.
        let pointer = unsafe { self.pointer.add(start) };
        Self {
            pointer,
            len: self.len - start,
            ..self
        }
    }

    /// `len` numbers from `start`, as a slice.
    ///
    /// # Safety
    /// They are initialised and nobody else touches them meanwhile.
    pub unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len);
        // SAFETY: in bounds by the assertion; initialised and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, step: f64) -> Vec<f64> {
        (0..count).map(|i| (i as f64 * step).sin()).collect()
    }

    fn close(found: ArrayView2<'_, f64>, exact: ArrayView2<'_, f64>) -> bool {
        found.dim() == exact.dim() && found.iter().zip(exact).all(|(x, y)| (x - y).abs() < 1e-13)
    }

    proptest! {
        /// Every way to receive a product, for every orientation of what is multiplied and of its place.
        #[test]
        fn a_product_is_that_of_three_loops((m, n, k) in (1_usize..9, 1_usize..9, 0_usize..9), turned in 0..8, padding in 0_usize..3) {
            let (a, b) = (numbers(m * k, 0.7), numbers(k * n, 1.3));
            let view = |numbers, rows, columns, turned| match turned {
                true => matrix(numbers, columns, rows).reversed_axes(),
                false => matrix(numbers, rows, columns),
            };
            let (left, right) = (view(&a, m, k, turned & 1 > 0), view(&b, k, n, turned & 2 > 0));
            let exact = Array2::from_shape_fn((m, n), |(i, j)| (0..k).map(|l| left[[i, l]] * right[[l, j]]).sum::<f64>());
            let product = Product::of(left, right);
            prop_assert!(close(product.to_array().view(), exact.view()));
            prop_assert!(close(product.clone().in_parallel().to_array_by_columns().view(), exact.view()));
            let mut place = vec![f64::NAN; m * (n + padding)];
            product.fill(strided_mut(&mut place, m, n, n + padding));
            prop_assert!(close(strided(&place, m, n, n + padding), exact.view()));
            prop_assert!(place.iter().filter(|x| x.is_nan()).count() == m * padding, "the padding of a row is not written");
            let mut sum = exact.mapv(|x| 3.0 * x);
            if turned & 4 > 0 {
                sum = sum.t().as_standard_layout().into_owned().reversed_axes();
            }
            product.scaled(-2.0).add_to(sum.view_mut());
            prop_assert!(close(sum.view(), exact.view()));
        }
    }

    #[test]
    fn columns_in_parallel_are_those_of_one_product() {
        let (m, n, k) = (3, 2 * STRIP + 5, 4);
        let (a, b) = (numbers(m * k, 0.7), numbers(k * n, 1.3));
        let product = Product::of(matrix(&a, m, k), matrix(&b, k, n));
        assert!(close(product.to_array_by_columns().view(), product.to_array().view()));
    }

    #[test]
    fn a_target_receives_columns_side_by_side() {
        let (a, b) = (numbers(6, 0.7), numbers(6, 1.3));
        let product = Product::of(matrix(&a, 2, 3), matrix(&b, 3, 2));
        let mut whole = vec![0.0; 8];
        let target = Target::new(&mut whole, 4);
        for at in [0, 2] {
            // SAFETY: nothing else touches these numbers, which are initialised.
            unsafe { product.write(at == 2, target.at(at)) };
        }
        let exact = product.to_array();
        assert!(close(strided(&whole, 2, 2, 4), exact.view()) && close(strided(&whole[2..], 2, 2, 4), exact.view()));
    }
}

//! Products of f32 or bf16 that are summed in f32, by whichever kernel the processor has for them.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::dense::{Product, Target};
use crate::kernels::{Operand, Place, by_rows, by_tiles, by_turned_rows, wide};
use crate::precision::How;
use crate::rows::{Right, Rows};

/// left · right + bias, on all threads, not yet computed.
#[derive(Clone, Copy)]
pub struct MixedProduct<'a, T> {
    left: ArrayView2<'a, T>,
    right: Right<'a, T>,
    bias: Option<&'a [f32]>,
    how: How,
}

impl<'a, T: Operand> MixedProduct<'a, T> {
    /// # Panics
    /// If the inner sizes differ.
    pub fn of(left: ArrayView2<'a, T>, right: ArrayView2<'a, T>, how: How) -> Self {
        Self::by(left, Right::Lies(right), how)
    }

    /// left · wᵀ, with the rows of w made as they are multiplied: to the bit what [`MixedProduct::of`] gives for the same numbers.
    ///
    /// # Panics
    /// If the inner sizes differ.
    pub fn of_rows(left: ArrayView2<'a, T>, w: &'a dyn Rows<T>, how: How) -> Self {
        Self::by(left, Right::Made(w), how)
    }

    fn by(left: ArrayView2<'a, T>, right: Right<'a, T>, how: How) -> Self {
        assert_eq!(left.ncols(), right.dim().0, "inner sizes differ");
        Self {
            left,
            right,
            bias: None,
            how,
        }
    }

    /// Adds `bias`, a number for each column, to every row.
    ///
    /// # Panics
    /// If they are not as many as the columns.
    pub fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        assert!(
            bias.is_none_or(|bias| bias.len() == self.right.dim().1),
            "a bias for each column"
        );
        Self { bias, ..self }
    }

    /// (rows, columns) of the product.
    pub fn dim(&self) -> (usize, usize) {
        (self.left.nrows(), self.right.dim().1)
    }

    /// The product row by row, rounded to the type that is multiplied.
    pub fn to_vec(&self) -> Vec<T> {
        self.by_tiles().unwrap_or_else(|| T::rounded(self.by_other_kernels()))
    }

    /// The product row by row, as it was summed.
    pub fn to_f32(&self) -> Vec<f32> {
        self.by_tiles().unwrap_or_else(|| self.by_other_kernels())
    }

    /// Overwrites `out` with the product, or adds it there.
    ///
    /// # Panics
    /// If `out` has another shape, or gaps.
    pub fn write(&self, add: bool, mut out: ArrayViewMut2<'_, f32>) {
        assert_eq!(self.dim(), out.dim(), "the product does not fit its place");
        let column_count = out.ncols();
        let numbers = out.as_slice_mut().expect("a place without gaps");
        // SAFETY: the place is of the product's shape, initialised, and borrowed mutably.
        if unsafe { self.run_tiles(Target::new(numbers, column_count), add) } {
            return;
        }
        // SAFETY: as above.
        if !unsafe { by_turned_rows(self.left, self.right, Target::new(numbers, column_count), add) } {
            let (left, right) = (T::wide(self.left), wide(self.right));
            let product = Product::of(left.view(), right.view()).in_parallel();
            match add {
                true => product.add_to(out.view_mut()),
                false => product.fill(out.view_mut()),
            }
        }
        if let Some(bias) = self.bias {
            out += &ArrayView1::from(bias);
        }
    }

    fn by_tiles<O: Operand>(&self) -> Option<Vec<O>> {
        // SAFETY: where the tiles run they write every number.
        unsafe { self.filled(|target| self.run_tiles(target, false)) }
    }

    /// A new buffer of the product's size, if `fill` fills it.
    ///
    /// # Safety
    /// `fill` says false, or has written every number.
    unsafe fn filled<O>(&self, fill: impl FnOnce(Target<O>) -> bool) -> Option<Vec<O>> {
        let (row_count, column_count) = self.dim();
        let len = row_count * column_count;
        let mut numbers = Vec::with_capacity(len);
        if !fill(Target::uninitialised(
            &mut numbers.spare_capacity_mut()[..len],
            column_count,
        )) {
            return None;
        }
        // SAFETY: they are written, by the caller's promise.
        unsafe { numbers.set_len(len) };
        Some(numbers)
    }

    /// # Safety
    /// Nobody else touches the target, which is as large as the product; with `add` it is initialised.
    unsafe fn run_tiles<O: Operand>(&self, target: Target<O>, add: bool) -> bool {
        let bias = self.bias;
        // SAFETY: passed on.
        unsafe { by_tiles(self.left, self.right, self.how, Place { target, bias, add }) }
    }

    fn by_other_kernels(&self) -> Vec<f32> {
        // SAFETY: the buffer is new, and the product fills it.
        let turned = |target| unsafe { by_turned_rows(self.left, self.right, target, false) };
        // SAFETY: likewise.
        let own = unsafe { self.filled(turned) }.or_else(|| by_rows(self.left, self.right, self.how.steady));
        let mut sums = own.unwrap_or_else(|| {
            let (left, right) = (T::wide(self.left), wide(self.right));
            Product::of(left.view(), right.view()).in_parallel().to_vec()
        });
        if let Some(bias) = self.bias.filter(|bias| !bias.is_empty()) {
            sums.par_chunks_exact_mut(bias.len())
                .for_each(|sums| sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias));
        }
        sums
    }
}

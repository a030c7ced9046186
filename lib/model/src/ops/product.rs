//! The matrix product on slices, with strides, choosing a kernel by shape.
//!
//! Large products go to the `gemm` crate. With few rows (decoding) the time is that of reading the weight once, which the
//! kernels here do without packing.

use std::mem::MaybeUninit;

use gemm::Parallelism;
use rayon::prelude::*;

use super::simd;

/// At most this many rows take the path that streams the weight.
pub(super) const SKINNY_ROWS: usize = 8;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows `row_stride` apart, contiguous within.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= values.len());
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Where a product goes: a matrix of rows `row_stride` apart, behind a pointer so that tasks may write disjoint columns of
/// one buffer, and so that the buffer may be uninitialised.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pointer: *mut f32,
    len: usize,
    row_stride: usize,
}

// SAFETY: a target is only written by `multiply`, whose callers vouch that concurrent targets do not overlap.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub fn new(values: &mut [f32], row_stride: usize) -> Self {
        Self {
            pointer: values.as_mut_ptr(),
            len: values.len(),
            row_stride,
        }
    }

    pub fn uninitialised(values: &mut [MaybeUninit<f32>], row_stride: usize) -> Self {
        Self {
            pointer: values.as_mut_ptr().cast(),
            len: values.len(),
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

    /// `len` elements from `start`, as a slice.
    ///
    /// # Safety
    /// They are initialised and nobody else touches them meanwhile.
    pub unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len);
        // SAFETY: in bounds by the assertion; initialised and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

/// `target = factor · a · b`, or `target += factor · a · b` when `add`.
///
/// # Safety
/// Nobody else touches the target's (a.rows, b.columns) elements meanwhile; with `add` they are initialised.
pub(super) unsafe fn multiply(target: Target, add: bool, factor: f32, a: Matrix, b: Matrix, parallel: bool) {
    assert_eq!(a.columns, b.rows);
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * target.row_stride + n <= target.len);
    let parallelism = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads if parallel => Parallelism::Rayon(threads),
        _ => Parallelism::None,
    };
    // SAFETY: both operands lie inside their slices (asserted when the matrices were made), the target holds m rows of n
    // (asserted above), and the caller vouches that it is not aliased and, when read, initialised.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.pointer,
            1,
            target.row_stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x · wᵀ` for few rows; x (rows, k), w (n, k), both contiguous → (rows, n).
pub(super) fn skinny(x: &[f32], w: &[f32], rows: usize, n: usize, k: usize) -> Vec<f32> {
    debug_assert!(rows <= SKINNY_ROWS);
    let mut y = vec![0.0; rows * n];
    // columns of the result per task: 64 rows of the weight
    const BLOCK: usize = 64;
    let target = Target::new(&mut y, n);
    w.par_chunks(BLOCK * k).enumerate().for_each(|(block, w)| {
        simd::on_wide_registers(|| match rows {
            1 => stream::<1>(target, block * BLOCK, x, w, k),
            2 => stream::<2>(target, block * BLOCK, x, w, k),
            3 => stream::<3>(target, block * BLOCK, x, w, k),
            4 => stream::<4>(target, block * BLOCK, x, w, k),
            5 => stream::<5>(target, block * BLOCK, x, w, k),
            6 => stream::<6>(target, block * BLOCK, x, w, k),
            7 => stream::<7>(target, block * BLOCK, x, w, k),
            8 => stream::<8>(target, block * BLOCK, x, w, k),
            _ => {}
        });
    });
    y
}

/// One task of `skinny`: every row of `w` is read once and met with all rows of `x`.
#[inline(always)]
fn stream<const ROWS: usize>(target: Target, first: usize, x: &[f32], w: &[f32], k: usize) {
    const LANES: usize = 16;
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * k..(row + 1) * k]);
    let whole = k / LANES * LANES;
    for (column, w) in w.chunks_exact(k).enumerate() {
        let mut sums = [[0.0f32; LANES]; ROWS];
        let mut start = 0;
        while start < whole {
            let w: &[f32; LANES] = w[start..start + LANES].try_into().expect("a whole block");
            for (sums, x) in sums.iter_mut().zip(&x) {
                let x: &[f32; LANES] = x[start..start + LANES].try_into().expect("a whole block");
                for lane in 0..LANES {
                    sums[lane] += x[lane] * w[lane];
                }
            }
            start += LANES;
        }
        for (row, (sums, x)) in sums.iter().zip(&x).enumerate() {
            let rest: f32 = x[whole..].iter().zip(&w[whole..]).map(|(x, w)| x * w).sum();
            // SAFETY: each (row, column) belongs to one task, and the buffer began as zeros.
            unsafe { target.slice(row * target.row_stride + first + column, 1)[0] = simd::sum(sums) + rest };
        }
    }
}

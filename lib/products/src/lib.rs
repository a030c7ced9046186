//! Matrix products, and loops on the widest registers the processor has: what more than one library multiplies with.
//!
//! [`Product`] is the general one, of matrices in any orientation. [`MixedProduct`] is `x · wᵀ` by kernels of our own, where the
//! processor has one; one more kernel is a file in `kernels/` and a line in its list. Its `w` may be [`Rows`] that are made while they
//! are multiplied; `blocks` is for those that AVX2 makes in registers. [`wide!`] compiles an ordinary loop for each instruction set.
//! Which of them runs is decided when the program runs, by the processor alone: no environment variable is read, and [`family`] names
//! the choice.

mod dense;
mod kernels;
mod mixed;
mod precision;
mod registers;
mod rounding;
mod rows;

pub use dense::{Product, Real, Target, matrix, strided, strided_mut};
#[cfg(target_arch = "x86_64")]
pub use kernels::blocks;
pub use kernels::{Operand, STEADY_ROWS, Unit, family};
pub use mixed::MixedProduct;
pub use precision::{How, Precision};
pub use registers::{Lanes, sum_of};
pub use rounding::{narrow, narrowed, widen, widened};
pub use rows::Rows;

pub use ndarray::ArrayView2;
#[doc(hidden)]
pub use pulp;
#[doc(hidden)]
pub use registers::Loops;

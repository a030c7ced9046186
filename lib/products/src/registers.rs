//! Ordinary loops, compiled once for each instruction set and picked when the program runs.
//!
//! Only loops whose order of summation is written out go through here: wider registers then change their speed and no bit.

use pulp::{Simd, WithSimd};

/// Runs a block on the widest registers the processor has. What it calls must be inlined to be compiled along.
#[macro_export]
macro_rules! wide {
    ($work:block) => {
        $crate::pulp::Arch::new().dispatch($crate::Loops(
            #[inline(always)]
            || $work,
        ))
    };
}

/// Called through `FnMut`, a closure's body itself is inlined; through `FnOnce` it would be a shim, which may not be.
pub struct Loops<F>(pub F);

impl<R, F: FnMut() -> R> WithSimd for Loops<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Σ term(x, y), summed over sixteen lanes in a fixed order. The lanes are the block's own, so that they stay in registers.
#[inline(always)]
pub fn sum_of<T: Copy>(x: &[T], y: &[T], term: impl Fn(T, T) -> f64) -> f64 {
    let ((x_chunks, x_rest), (y_chunks, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    wide!({
        let mut lanes = [0.0_f64; 16];
        for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
            *lane += term(*x, *y);
        }
        for (x, y) in x_chunks.iter().zip(y_chunks) {
            for at in 0..16 {
                lanes[at] += term(x[at], y[at]);
            }
        }
        lanes.iter().sum()
    })
}

/// A number type as the lanes of a register. Where the processor cannot fuse a multiplication with an addition, they are two.
pub trait Lanes: Copy + Sized + 'static {
    type Vector<S: Simd>: Copy;

    fn lane_count<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// x · y + sum.
    fn multiply_add<S: Simd>(simd: S, x: Self::Vector<S>, y: Self::Vector<S>, sum: Self::Vector<S>) -> Self::Vector<S>;
    /// The whole registers that the numbers fill.
    fn vectors<S: Simd>(numbers: &[Self]) -> &[Self::Vector<S>];
    fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [Self::Vector<S>];
}

macro_rules! lanes {
    ($number:ty, $vector:ident, $splat:ident, $multiply_add:ident, $vectors:ident, $vectors_mut:ident) => {
        impl Lanes for $number {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, x: S::$vector, y: S::$vector, sum: S::$vector) -> S::$vector {
                simd.$multiply_add(x, y, sum)
            }
            #[inline(always)]
            fn vectors<S: Simd>(numbers: &[Self]) -> &[S::$vector] {
                S::$vectors(numbers).0
            }
            #[inline(always)]
            fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [S::$vector] {
                S::$vectors_mut(numbers).0
            }
        }
    };
}

lanes!(f32, f32s, splat_f32s, mul_add_e_f32s, as_simd_f32s, as_mut_simd_f32s);
lanes!(f64, f64s, splat_f64s, mul_add_e_f64s, as_simd_f64s, as_mut_simd_f64s);

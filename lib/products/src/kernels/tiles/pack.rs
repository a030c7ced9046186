//! Matrices → tiles, in whichever direction their numbers lie; numbers of f32 are split into two of bf16 on the way.
//!
//! A unit is two neighbours along k. A left tile holds 16 lines of 16 units, a right tile 16 units of 16 lines: the same tile,
//! transposed. What reaches beyond the matrix is zero.

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;
use ndarray::{ArrayView2, Axis, s};

use super::super::transpose::transpose;
use super::unit::{BLOCK, LeftTiles, Line, SIDE, STEP};
use crate::dense::matrix;

/// Which operand of the unit's instruction a matrix is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    Left,
    Right,
}

/// A matrix (lines, k), of which neighbours along one of the two directions are neighbours in memory.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a, T> {
    view: ArrayView2<'a, T>,
    line_stride: usize,
    k_stride: usize,
}

impl<'a, T: Number> Lines<'a, T> {
    /// `None` where neighbours in neither direction are neighbours in memory.
    pub fn new(view: ArrayView2<'a, T>) -> Option<Self> {
        let stride = |axis: usize| match view.len_of(Axis(axis)) {
            1 => Some(1),
            _ => usize::try_from(view.stride_of(Axis(axis))).ok(),
        };
        let (line_stride, k_stride) = (stride(0)?, stride(1)?);
        (line_stride == 1 || k_stride == 1).then_some(Self {
            view,
            line_stride,
            k_stride,
        })
    }

    /// Lines of k numbers, one after the other.
    pub fn of(numbers: &'a [T], k: usize) -> Self {
        Self {
            view: matrix(numbers, numbers.len() / k, k),
            line_stride: k,
            k_stride: 1,
        }
    }

    /// Some of the lines.
    pub fn part<'r>(self, lines: Range<usize>) -> Lines<'r, T>
    where
        'a: 'r,
    {
        Lines {
            view: self.view.slice_move(s![lines, ..]).reborrow(),
            line_stride: self.line_stride,
            k_stride: self.k_stride,
        }
    }

    pub fn count(&self) -> usize {
        self.view.nrows()
    }

    pub fn k(&self) -> usize {
        self.view.ncols()
    }

    pub fn steps(&self) -> usize {
        self.k().div_ceil(STEP)
    }

    /// Lines of packed tiles that a block takes.
    pub fn block_len(&self) -> usize {
        self.steps() * T::PARTS * 2 * SIDE
    }

    /// The 32 lines of a block as the unit's left operand takes them from where they lie: numbers of one part that are neighbours
    /// along k, in whole steps. `None` where they do not lie so, or are fewer.
    pub fn loadable(&self, block: usize) -> Option<LeftTiles> {
        let lies_so = T::PARTS == 1 && self.k_stride == 1 && self.k().is_multiple_of(STEP);
        let first = block * BLOCK;
        (lies_so && first + BLOCK <= self.count()).then(|| {
            let line = |at: usize| self.view.as_ptr().wrapping_add(at * self.line_stride).cast();
            LeftTiles {
                halves: [line(first), line(first + SIDE)],
                stride: self.line_stride * size_of::<T>(),
                step: STEP * size_of::<T>(),
            }
        })
    }

    /// Packs the 32 lines of a block: for each step two tiles of each part.
    ///
    /// # Safety
    /// The tile unit is permitted, `block` lies among the lines and `tiles` has room for [`Lines::block_len`].
    pub unsafe fn pack(&self, block: usize, operand: Operand, tiles: *mut Line) {
        for step in 0..self.steps() {
            for half in 0..2 {
                // SAFETY: the processor has what the unit's processors have; the tiles of a step follow those of the one before.
                unsafe {
                    let tiles = tiles.add((step * T::PARTS * 2 + half) * SIDE);
                    self.pack_tile(block * BLOCK + half * SIDE, step * STEP, operand, tiles);
                }
            }
        }
    }

    /// Packs 16 lines by 32 numbers into a tile of each part, two tiles apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pack_tile(&self, line: usize, start: usize, operand: Operand, tiles: *mut Line) {
        let (lines, numbers) = (
            self.count().saturating_sub(line).min(SIDE),
            (self.k() - start).min(STEP),
        );
        // wrapping: a block may begin behind the last line, and then nothing is read
        let at = |line: usize, i: usize| {
            let offset = line
                .wrapping_mul(self.line_stride)
                .wrapping_add(i.wrapping_mul(self.k_stride));
            self.view.as_ptr().wrapping_add(offset)
        };
        for part in 0..T::PARTS {
            let mut rows = [_mm512_setzero_si512(); SIDE];
            // SAFETY: only numbers of the matrix are read: `lines` by `numbers`.
            unsafe {
                if self.k_stride == 1 {
                    for (i, row) in rows[..lines].iter_mut().enumerate() {
                        *row = T::neighbours(at(line + i, start), numbers, part);
                    }
                } else {
                    for (i, row) in rows[..numbers.div_ceil(2)].iter_mut().enumerate() {
                        let (first, second) = (start + 2 * i, start + 2 * i + 1);
                        let second_count = if 2 * i + 1 < numbers { lines } else { 0 };
                        *row = T::interleaved((at(line, first), lines), (at(line, second), second_count), part);
                    }
                }
            }
            let lies_as_wanted = (self.k_stride == 1) == (operand == Operand::Left);
            let rows = if lies_as_wanted { rows } else { transpose(rows) };
            for (i, row) in rows.into_iter().enumerate() {
                // SAFETY: the tile has 16 aligned lines, by the caller's promise.
                unsafe { _mm512_store_si512(tiles.add(part * 2 * SIDE + i).cast(), row) };
            }
        }
    }
}

/// A number type that is multiplied in one part of bf16 or in two.
pub trait Number: bytemuck::Pod + Send + Sync {
    const PARTS: usize;

    /// A part of up to 32 neighbours along k, as 16 units.
    ///
    /// # Safety
    /// So many are there, and the processor has the instructions.
    unsafe fn neighbours(at: *const Self, count: usize, part: usize) -> __m512i;

    /// A part of up to 16 numbers and of those that follow each of them along k, as 16 units.
    ///
    /// # Safety
    /// So many are there, and the processor has the instructions.
    unsafe fn interleaved(first: (*const Self, usize), second: (*const Self, usize), part: usize) -> __m512i;
}

impl Number for bf16 {
    const PARTS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn neighbours(at: *const Self, count: usize, _: usize) -> __m512i {
        // SAFETY: the mask keeps to what is there.
        unsafe { _mm512_maskz_loadu_epi16(((1u64 << count) - 1) as __mmask32, at.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn interleaved(first: (*const Self, usize), second: (*const Self, usize), _: usize) -> __m512i {
        // SAFETY: the masks keep to what is there.
        let [first, second] =
            [first, second].map(|(at, count)| unsafe { _mm256_maskz_loadu_epi16(mask16(count), at.cast()) });
        pairs(first, second)
    }
}

impl Number for f32 {
    const PARTS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn neighbours(at: *const Self, count: usize, part: usize) -> __m512i {
        let counts = [count.min(16), count.saturating_sub(16)];
        // SAFETY: the masks keep to what is there.
        let [first, second] = [0, 1].map(|half| unsafe {
            split(
                _mm512_maskz_loadu_ps(mask16(counts[half]), at.wrapping_add(16 * half)),
                part,
            )
        });
        // of two neighbours the first lies in the lower half of the unit: 16 narrow numbers beside 16 more are 16 units
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn interleaved(first: (*const Self, usize), second: (*const Self, usize), part: usize) -> __m512i {
        // SAFETY: the masks keep to what is there.
        let [first, second] =
            [first, second].map(|(at, count)| unsafe { split(_mm512_maskz_loadu_ps(mask16(count), at), part) });
        pairs(first, second)
    }
}

fn mask16(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// The units of sixteen numbers of bf16 and those that follow each of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(first: __m256i, second: __m256i) -> __m512i {
    let second = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(second));
    _mm512_or_si512(_mm512_cvtepu16_epi32(first), second)
}

/// A part of sixteen numbers, in bf16: the two together are the number to 16 bits. What is not finite has no second part, for
/// infinity less infinity would be no number.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn split(x: __m512, part: usize) -> __m256i {
    let high = narrow(x);
    if part == 0 {
        return high;
    }
    let wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high)));
    let finite = _mm512_cmplt_ps_mask(_mm512_abs_ps(wide), _mm512_set1_ps(f32::INFINITY));
    narrow(_mm512_maskz_sub_ps(finite, x, wide))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn narrow(x: __m512) -> __m256i {
    // SAFETY: sixteen bf16 are 256 bits either way.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
}

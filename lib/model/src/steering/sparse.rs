//! Rows of which only some numbers are read: what activation sparsity does to the input of a matrix.

use candle_core::{Device, Result, Tensor};

use super::{placed, without};
use crate::error;
use crate::taps;

/// Which numbers of a row are kept, by their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    /// Those above a threshold.
    Above(f64),
    /// So many of the largest, and what equals the last of them.
    Largest(usize),
}

/// Scores and what is kept, with its vectors on the device.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    factors: Option<Tensor>, // (1, width)
    kept: Kept,
    remainder: Vec<Tensor>, // each (1, width)
}

impl Placed {
    pub fn new(
        factors: Option<Vec<f64>>,
        kept: Kept,
        remainder: &[Vec<f64>],
        (width, device): (usize, &Device),
    ) -> error::Result<Self> {
        let put = |vector: &[f64]| placed(vector, width, device);
        Ok(Self {
            factors: factors.map(|factors| put(&factors)).transpose()?,
            kept,
            remainder: remainder
                .iter()
                .map(|vector| put(vector))
                .collect::<error::Result<_>>()?,
        })
    }

    /// What is left out of x (rows, width): W(x − it) is what the matrix gives instead of Wx.
    pub fn left_out(&self, x: &Tensor) -> Result<Tensor> {
        let scores = match &self.factors {
            Some(factors) => x.abs()?.broadcast_mul(&factors.to_dtype(x.dtype())?)?,
            None => x.abs()?,
        };
        let kept = match self.kept {
            Kept::Above(threshold) => scores.gt(threshold)?,
            Kept::Largest(count) => scores.broadcast_ge(&least_of_largest(&scores, count)?)?,
        };
        let left_out = kept.where_cond(&x.zeros_like()?, x)?;
        let remainder = self.remainder.iter().map(|vector| vector.to_dtype(x.dtype()));
        without(&left_out, &remainder.collect::<Result<Vec<_>>>()?)
    }
}

/// (rows, 1): the smallest of the `count` largest of each row.
fn least_of_largest(scores: &Tensor, count: usize) -> Result<Tensor> {
    let (row_count, width) = scores.dims2()?;
    let least = |row: &[f32]| match count {
        0 => f32::INFINITY,
        _ => {
            let mut row = row.to_vec();
            let at = count.min(width) - 1;
            *row.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
        }
    };
    let least: Vec<f32> = taps::read(scores, |numbers| numbers.chunks_exact(width).map(least).collect())?;
    Tensor::from_vec(least, (row_count, 1), scores.device())?.to_dtype(scores.dtype())
}

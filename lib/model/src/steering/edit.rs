//! What is done to a row.

use candle_core::{Device, Result, Tensor};

use super::sparse::{self, Kept};
use super::{along, length, placed};
use crate::error;
use crate::faults::Faults;
use crate::taps::{self, Point};

/// What is done to a row x. Bases are orthonormal; `share` is how much of the change is made, 1 being the whole of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// x + v
    Add(Vec<f64>),
    /// x − share · (the projection of x on the span)
    Ablate { basis: Vec<Vec<f64>>, share: f64 },
    /// The projection of x on a plane is turned, from the first vector towards the second.
    Rotate {
        plane: [Vec<f64>; 2],
        degrees: f64,
        turn: Turn,
        share: f64,
    },
    /// Dimension i times 1 + γ_i
    Scale(Vec<f64>),
    /// x − v, with the length that x had
    Redirect(Vec<f64>),
    /// The projection on a direction is kept within a bound.
    Clip {
        direction: Vec<f64>,
        bound: Bound,
        share: f64,
    },
    /// Every number is kept within ± a limit, or ± that of its dimension; what is no number becomes zero.
    Clamp { limits: Limits, share: f64 },
    /// Numbers have one of their leading bits flipped, those of an f32.
    Flip { faults: Faults, bits: u32 },
    /// Numbers whose score |x_i|·factor_i is small are left out, but for their projection on the span of a remainder. Without
    /// factors the score is |x_i|.
    Sparsify {
        factors: Option<Vec<f64>>,
        kept: Kept,
        remainder: Vec<Vec<f64>>,
        share: f64,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Limits {
    One(f64),
    Each(Vec<f64>),
}

/// How an angle is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The projection comes to lie at the angle, whatever it was.
    Absolute,
    /// So do those that have a positive part along the first vector; others stay.
    Positive,
    /// The projection is turned by the angle.
    Relative,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Edit {
    /// Whether it leaves every row as it is.
    pub fn is_identity(&self) -> bool {
        match self {
            Self::Add(vector) | Self::Scale(vector) | Self::Redirect(vector) => vector.iter().all(|&x| x == 0.0),
            Self::Ablate { share, .. }
            | Self::Rotate { share, .. }
            | Self::Clip { share, .. }
            | Self::Clamp { share, .. }
            | Self::Sparsify { share, .. } => *share == 0.0,
            Self::Flip { faults, .. } => faults.rate == 0.0,
        }
    }

    pub(super) fn place(self, point: Point, width: usize, device: &Device) -> error::Result<Placed> {
        let put = |vector: &[f64]| placed(vector, width, device);
        let inside = |basis: &[Vec<f64>], inside, share| -> error::Result<Placed> {
            let basis = basis.iter().map(|vector| put(vector)).collect::<error::Result<_>>()?;
            Ok(Placed::Inside { basis, inside, share })
        };
        match self {
            Self::Add(vector) => Ok(Placed::Add(put(&vector)?)),
            Self::Ablate { basis, share } => inside(&basis, Inside::Nothing, share),
            Self::Rotate {
                plane,
                degrees,
                turn,
                share,
            } => inside(&plane, Inside::Turned(degrees.to_radians(), turn), share),
            Self::Scale(vector) => Ok(Placed::Scale((put(&vector)? + 1.0)?)),
            Self::Redirect(vector) => Ok(Placed::Redirect(put(&vector)?)),
            Self::Clip {
                direction,
                bound,
                share,
            } => inside(&[direction], Inside::Bounded(bound), share),
            Self::Clamp { limits, share } => Ok(Placed::Clamp {
                limits: match limits {
                    Limits::One(limit) => put(&vec![limit; width])?,
                    Limits::Each(limits) => put(&limits)?,
                },
                share,
            }),
            Self::Flip { faults, bits } => Ok(Placed::Flip {
                faults,
                bits,
                place: point.to_string(),
            }),
            Self::Sparsify {
                factors,
                kept,
                remainder,
                share,
            } => Ok(Placed::Sparsify {
                sparse: sparse::Placed::new(factors, kept, &remainder, (width, device))?,
                share,
            }),
        }
    }
}

/// An edit with its vectors on the device, each (1, width).
#[derive(Clone, Debug)]
pub(super) enum Placed {
    Add(Tensor),
    /// The coordinates in a subspace are replaced.
    Inside {
        basis: Vec<Tensor>,
        inside: Inside,
        share: f64,
    },
    Scale(Tensor),
    Redirect(Tensor),
    Clamp {
        limits: Tensor,
        share: f64,
    },
    Flip {
        faults: Faults,
        bits: u32,
        place: String,
    },
    Sparsify {
        sparse: sparse::Placed,
        share: f64,
    },
}

/// What becomes of the coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside {
    Nothing,
    Turned(f64, Turn),
    Bounded(Bound),
}

impl Placed {
    /// (rows, width), in f32 or f64.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let of = |vector: &Tensor| vector.to_dtype(x.dtype());
        match self {
            Self::Add(vector) => x.broadcast_add(&of(vector)?),
            Self::Inside { basis, inside, share } => {
                let basis = basis.iter().map(of).collect::<Result<Vec<_>>>()?;
                moved(x, &basis, *inside, *share)
            }
            Self::Scale(factors) => x.broadcast_mul(&of(factors)?),
            Self::Redirect(vector) => redirected(x, &of(vector)?),
            Self::Clamp { limits, share } => clamped(x, &of(limits)?, *share),
            Self::Flip { faults, bits, place } => flipped(x, faults, *bits, place),
            Self::Sparsify { sparse, share } => x - (sparse.left_out(x)? * *share)?,
        }
    }
}

fn moved(x: &Tensor, basis: &[Tensor], inside: Inside, share: f64) -> Result<Tensor> {
    let coordinates = basis
        .iter()
        .map(|vector| along(x, vector))
        .collect::<Result<Vec<_>>>()?;
    let changes = inside.changes(&coordinates)?;
    let mut moved = x.clone();
    for (change, vector) in changes.iter().zip(basis) {
        moved = (moved + (change * share)?.broadcast_mul(vector)?)?;
    }
    Ok(moved)
}

impl Inside {
    /// What is added to each coordinate (rows, 1).
    fn changes(self, coordinates: &[Tensor]) -> Result<Vec<Tensor>> {
        match (self, coordinates) {
            (Self::Nothing, all) => all.iter().map(Tensor::neg).collect(),
            (Self::Turned(angle, turn), [a, b]) => turned(a, b, angle, turn),
            (Self::Bounded(bound), [a]) => Ok(vec![
                (match bound {
                    Bound::AtMost(limit) => a.minimum(limit),
                    Bound::AtLeast(limit) => a.maximum(limit),
                }? - a)?,
            ]),
            (_, other) => candle_core::bail!("{self:?} of {} coordinates", other.len()),
        }
    }
}

fn turned(a: &Tensor, b: &Tensor, angle: f64, turn: Turn) -> Result<Vec<Tensor>> {
    let (sin, cos) = angle.sin_cos();
    if turn == Turn::Relative {
        let new_a = ((a * cos)? - (b * sin)?)?;
        let new_b = ((a * sin)? + (b * cos)?)?;
        return Ok(vec![(new_a - a)?, (new_b - b)?]);
    }
    let radius = (a.sqr()? + b.sqr()?)?.sqrt()?;
    let changes = [((&radius * cos)? - a)?, ((&radius * sin)? - b)?];
    if turn == Turn::Absolute {
        return Ok(changes.into());
    }
    let positive = a.gt(0.0)?;
    let where_positive = |change: &Tensor| positive.where_cond(change, &change.zeros_like()?);
    changes.iter().map(where_positive).collect()
}

/// At the whole share the change itself would be infinite where a number is.
fn clamped(x: &Tensor, limits: &Tensor, share: f64) -> Result<Tensor> {
    let numbers = x.eq(x)?.where_cond(x, &x.zeros_like()?)?;
    let within = numbers.broadcast_minimum(limits)?.broadcast_maximum(&limits.neg()?)?;
    match share == 1.0 {
        true => Ok(within),
        false => x + ((within - x)? * share)?,
    }
}

fn flipped(x: &Tensor, faults: &Faults, bits: u32, place: &str) -> Result<Tensor> {
    let width = x.dim(1)?;
    let mut values = taps::read(x, <[f32]>::to_vec)?;
    for row in values.chunks_exact_mut(width) {
        faults.flip_row(place, row, bits);
    }
    Tensor::from_vec(values, x.shape(), x.device())?.to_dtype(x.dtype())
}

/// A row that equals the vector has no direction left, and becomes zero.
fn redirected(x: &Tensor, vector: &Tensor) -> Result<Tensor> {
    let other = x.broadcast_sub(vector)?;
    let reached = length(&other)?;
    let ratio = (length(x)? / &reached)?;
    let ratio = reached.gt(0.0)?.where_cond(&ratio, &reached.zeros_like()?)?;
    other.broadcast_mul(&ratio)
}

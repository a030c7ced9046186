//! Which rows an edit is done to, by what they are.

use candle_core::{Device, Result, Tensor};

use super::{along, length, placed};
use crate::error;

/// A row passes where it lies towards a direction, of unit length.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// Its cosine with the direction is at least this.
    Cosine { direction: Vec<f64>, at_least: f64 },
    /// Its projection on the direction is at least this.
    Projection { direction: Vec<f64>, at_least: f64 },
}

#[derive(Clone, Debug)]
pub(super) struct Placed {
    direction: Tensor, // (1, width)
    at_least: f64,
    of_length: bool,
}

impl Gate {
    pub(super) fn place(self, width: usize, device: &Device) -> error::Result<Placed> {
        let (direction, at_least, of_length) = match self {
            Self::Cosine { direction, at_least } => (direction, at_least, true),
            Self::Projection { direction, at_least } => (direction, at_least, false),
        };
        Ok(Placed {
            direction: placed(&direction, width, device)?,
            at_least,
            of_length,
        })
    }
}

impl Placed {
    /// (rows, 1): 1 where a row passes. A row of zeros has no cosine, and passes no gate of it.
    pub fn passing(&self, rows: &Tensor) -> Result<Tensor> {
        let along = along(rows, &self.direction.to_dtype(rows.dtype())?)?;
        match self.of_length {
            true => (along / length(rows)?)?.ge(self.at_least),
            false => along.ge(self.at_least),
        }
    }
}

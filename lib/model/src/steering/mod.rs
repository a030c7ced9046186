//! Interventions: what is done to the residual stream, or to what a sublayer adds to it, while the model runs.
//!
//! ```no_run
//! # use model::*;
//! # use model::steering::*;
//! # fn run(decoder: &Decoder, batch: &Batch, direction: Vec<f64>) -> model::Result<()> {
//! let mut steering = Steering::new(decoder.config(), decoder.device());
//! let edit = Edit::Ablate { basis: vec![direction], share: 1.0 }; // (hidden), of unit length
//! steering.push(Point::new(Site::ResidPost, 3), Step::everywhere(edit))?;
//! decoder.forward(&Tape::off(), batch, &mut steering.probe(), None)?; // `(steering.probe(), taps)` shows what steering made of it
//! # Ok(()) }
//! ```

mod edit;
mod gate;
mod sparse;

use std::ops::RangeInclusive;

use candle_core::{DType, Device, Tensor};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::taps::{Point, Probe, ProbeResult, Site};

pub use edit::{Bound, Edit, Limits, Turn};
pub use gate::Gate;
pub use sparse::Kept;

/// An edit, and to which rows it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub edit: Edit,
    /// Only rows that pass.
    pub gate: Option<Gate>,
    /// Only tokens that stand here in their sequence, counted from 0.
    pub positions: RangeInclusive<u32>,
}

impl Step {
    /// Every row.
    pub fn everywhere(edit: Edit) -> Self {
        Self {
            edit,
            gate: None,
            positions: 0..=u32::MAX,
        }
    }
}

/// A step with its vectors on the device.
#[derive(Clone, Debug)]
struct Placed {
    edit: edit::Placed,
    gate: Option<gate::Placed>,
    positions: RangeInclusive<u32>,
}

/// Edits at points, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct Steering {
    steps: Vec<(Point, Placed)>,
    config: Config,
    device: Device,
}

impl Steering {
    /// Does nothing yet.
    pub fn new(config: &Config, device: &Device) -> Self {
        Self {
            steps: Vec::new(),
            config: config.clone(),
            device: device.clone(),
        }
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds a step behind those that are there. One that changes nothing (a share or a vector of zero) is left out, so that
    /// it cannot even touch the sign of a zero.
    pub fn push(&mut self, point: Point, step: Step) -> Result<()> {
        self.check(point)?;
        if step.edit.is_identity() {
            return Ok(());
        }
        let width = point.site.width(&self.config);
        let placed = Placed {
            edit: step.edit.place(point, width, &self.device)?,
            gate: step.gate.map(|gate| gate.place(width, &self.device)).transpose()?,
            positions: step.positions,
        };
        self.steps.push((point, placed));
        Ok(())
    }

    /// Takes a unit direction out of the residual stream before, within and after a block.
    pub fn ablate(&mut self, layer: usize, direction: &[f64]) -> Result<()> {
        for site in [Site::ResidPre, Site::ResidMid, Site::ResidPost] {
            if site.exists(&self.config) {
                let basis = vec![direction.to_vec()];
                let step = Step::everywhere(Edit::Ablate { basis, share: 1.0 });
                self.push(Point::new(site, layer), step)?;
            }
        }
        Ok(())
    }

    /// What a pass is run with.
    pub fn probe(&self) -> Steered<'_> {
        Steered {
            steering: self,
            positions: Vec::new(),
        }
    }

    fn check(&self, point: Point) -> Result<()> {
        let refuse = |cause: String| Err(Error::Site(cause));
        if !point.site.layered() {
            return refuse(format!("{point} lies in no block, and steering acts in blocks"));
        }
        match point.site {
            Site::ExpertChoice => return refuse(format!("{point} is a choice, no vector")),
            Site::AttnLogitMax => return refuse(format!("{point} can only be looked at")),
            _ => {}
        }
        if let Some(absence) = point.site.absence(&self.config) {
            let family = self.config.family;
            return refuse(format!(
                "{point}: {family} blocks of this model {absence} and have none"
            ));
        }
        match point.layer < self.config.layer_count() {
            true => Ok(()),
            false => refuse(format!("{point}: the model has {} layers", self.config.layer_count())),
        }
    }
}

/// Steering in one pass.
#[derive(Clone, Debug)]
pub struct Steered<'s> {
    steering: &'s Steering,
    /// Where each row stands in its sequence.
    positions: Vec<u32>,
}

impl Probe for Steered<'_> {
    fn begin(&mut self, positions: &[u32]) {
        self.positions = positions.to_vec();
    }

    fn wants(&self, point: Point) -> bool {
        self.steering.steps.iter().any(|(at, _)| *at == point)
    }

    fn visit(&mut self, point: Point, value: &Tensor) -> ProbeResult {
        let mut x = value.clone(); // (rows, width)
        for (_, step) in self.steering.steps.iter().filter(|(at, _)| *at == point) {
            x = step.apply(&x, &self.positions)?;
        }
        Ok(Some(x))
    }
}

impl Placed {
    /// Computed in f32, or in f64 where the rows are; a row does not depend on its neighbours.
    fn apply(&self, x: &Tensor, positions: &[u32]) -> candle_core::Result<Tensor> {
        let within: Vec<u8> = positions
            .iter()
            .map(|position| u8::from(self.positions.contains(position)))
            .collect();
        if within.iter().all(|&is_within| is_within == 0) {
            return Ok(x.clone());
        }
        let dtype = match x.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let rows = x.to_dtype(dtype)?;
        let edited = self.edit.apply(&rows)?;
        let chosen = match within.contains(&0) {
            true => Some(Tensor::new(within, x.device())?.unsqueeze(1)?), // (rows, 1)
            false => None,
        };
        let passing = self.gate.as_ref().map(|gate| gate.passing(&rows)).transpose()?;
        let mask = match (chosen, passing) {
            (Some(chosen), Some(passing)) => Some((chosen * passing)?),
            (chosen, passing) => chosen.or(passing),
        };
        let edited = match mask {
            Some(mask) => mask.broadcast_as(rows.shape())?.where_cond(&edited, &rows)?,
            None => edited,
        };
        edited.to_dtype(x.dtype())
    }
}

/// (rows, 1): what is summed along each row, in a fixed order.
fn along(rows: &Tensor, vector: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_mul(vector)?.sum_keepdim(1)
}

/// What lies outside the span of orthonormal vectors.
fn without(rows: &Tensor, basis: &[Tensor]) -> candle_core::Result<Tensor> {
    let mut rest = rows.clone();
    for vector in basis {
        rest = (rest - along(rows, vector)?.broadcast_mul(vector)?)?;
    }
    Ok(rest)
}

/// (rows, 1): the length of each row.
fn length(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.sqr()?.sum_keepdim(1)?.sqrt()
}

/// (1, width), in f64 as it was made; the width is that of the site.
fn placed(vector: &[f64], width: usize, device: &Device) -> Result<Tensor> {
    match vector.len() == width {
        true => Ok(Tensor::new(vector, device)?.unsqueeze(0)?),
        false => Err(Error::Site(format!(
            "of width {width}, and a vector of {}",
            vector.len()
        ))),
    }
}

#[cfg(test)]
mod tests;

//! Interventions: what is done to the residual stream, or to another site, while the model runs.
//!
//! ```no_run
//! # use model::*;
//! # fn run(decoder: &Decoder, batch: &Batch, direction: Vec<f32>) -> model::Result<()> {
//! let mut steering = Steering::new(decoder.config(), decoder.device());
//! steering.ablate(3, direction.clone())?; // (hidden), of unit length
//! steering.add(4, direction, 2.5)?;
//! decoder.forward(&Tape::off(), batch, &mut &steering, None)?; // `(&steering, taps)` shows what steering made of it
//! # Ok(()) }
//! ```

use candle_core::{Device, Tensor};

use crate::config::Config;
use crate::error::Result;
use crate::taps::{Point, Probe, ProbeResult, Site};

/// What is done to every row of a point.
#[derive(Clone, Debug)]
enum Operation {
    /// x − r̂ (r̂·x)
    Ablate(Tensor), // (1, hidden)
    /// x + scale · r̂
    Add(Tensor, f64), // (1, hidden)
}

impl Operation {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Ablate(direction) => {
                let direction = direction.to_dtype(x.dtype())?;
                // a sum along each row, so that no row depends on its neighbours
                let along = x.broadcast_mul(&direction)?.sum_keepdim(1)?; // (rows, 1)
                x - along.broadcast_mul(&direction)?
            }
            Self::Add(direction, scale) => x.broadcast_add(&(direction.to_dtype(x.dtype())? * *scale)?),
        }
    }
}

/// Operations at points, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct Steering {
    steps: Vec<(Point, Operation)>,
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

    /// Takes a unit direction out of the residual stream before, within and after a block.
    pub fn ablate(&mut self, layer: usize, direction: Vec<f32>) -> Result<()> {
        let operation = Operation::Ablate(self.row(direction)?);
        for site in [Site::ResidPre, Site::ResidMid, Site::ResidPost] {
            if site.exists(&self.config) {
                self.steps.push((Point::new(site, layer), operation.clone()));
            }
        }
        Ok(())
    }

    /// Adds `scale` times a unit direction to the residual stream after a block.
    pub fn add(&mut self, layer: usize, direction: Vec<f32>, scale: f64) -> Result<()> {
        let operation = Operation::Add(self.row(direction)?, scale);
        self.steps.push((Point::new(Site::ResidPost, layer), operation));
        Ok(())
    }

    fn row(&self, values: Vec<f32>) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, (1, self.config.hidden_size), &self.device)?)
    }
}

impl Probe for &Steering {
    fn wants(&self, point: Point) -> bool {
        self.steps.iter().any(|(at, _)| *at == point)
    }

    fn visit(&mut self, point: Point, value: &Tensor) -> ProbeResult {
        let mut x = value.clone(); // (rows, hidden)
        for (_, operation) in self.steps.iter().filter(|(at, _)| *at == point) {
            x = operation.apply(&x)?;
        }
        Ok(Some(x))
    }
}

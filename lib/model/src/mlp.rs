//! An MLP, with a gate or without.

use candle_core::{Result, Tensor};

use crate::config::Config;
use crate::error;
use crate::loader::{Linear, Loader};
use crate::names::Hidden;
use crate::ops::{self, Activation, Tape};
use crate::taps::{Point, Probe, Site, visit};

#[derive(Debug)]
pub(crate) struct Mlp {
    layer: usize,
    hidden: Hidden<Linear>,
    down: Linear,
    activation: Activation,
    size: usize,
}

impl Mlp {
    /// `prefix` stands before the names of its matrices in the block.
    pub fn load(loader: &mut Loader, layer: usize, config: &Config, prefix: &str, size: usize) -> error::Result<Self> {
        let (d, bias) = (config.hidden_size, config.mlp_bias);
        let at = |part: &str| config.names.in_block(layer, &format!("{prefix}{part}"));
        let hidden = match config.names.hidden {
            Hidden::Gated { gate, up } => Hidden::Gated {
                gate: loader.linear(&at(gate), (size, d), bias)?,
                up: loader.linear(&at(up), (size, d), bias)?,
            },
            Hidden::Stacked(both) => Hidden::Stacked(loader.linear(&at(both), (2 * size, d), bias)?),
            Hidden::Plain(up) => Hidden::Plain(loader.linear(&at(up), (size, d), bias)?),
        };
        Ok(Self {
            layer,
            hidden,
            down: loader.linear(&at(config.names.mlp_out), (d, size), bias)?,
            activation: config.activation,
            size,
        })
    }

    /// What may learn.
    pub fn tensors(&self) -> Vec<&Tensor> {
        let hidden = match &self.hidden {
            Hidden::Gated { gate, up } => vec![gate, up],
            Hidden::Stacked(all) | Hidden::Plain(all) => vec![all],
        };
        let all = hidden.into_iter().chain([&self.down]);
        all.flat_map(Linear::tensors).collect()
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let at = |site| Point::new(site, self.layer);
        let hidden = match &self.hidden {
            Hidden::Gated { gate, up } => {
                let gate = visit(probe, at(Site::MlpGate), gate.forward(tape, x)?)?;
                self.gated(tape, &gate, up.forward(tape, x)?, probe)?
            }
            Hidden::Stacked(both) => {
                let both = both.forward(tape, x)?;
                let gate = visit(probe, at(Site::MlpGate), ops::narrow(tape, &both, 1, 0, self.size)?)?;
                self.gated(tape, &gate, ops::narrow(tape, &both, 1, self.size, self.size)?, probe)?
            }
            Hidden::Plain(up) => {
                let hidden = visit(probe, at(Site::MlpGate), up.forward(tape, x)?)?;
                visit(probe, at(Site::MlpAct), ops::activate(tape, &hidden, self.activation)?)?
            }
        };
        let hidden = visit(probe, at(Site::MlpIn), hidden)?;
        self.down.forward(tape, &hidden)
    }

    /// `activation(gate) · up` in one step, unless a probe puts something in the place of the activated gate.
    fn gated(&self, tape: &Tape, gate: &Tensor, up: Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let up = visit(probe, Point::new(Site::MlpUp, self.layer), up)?;
        let at = Point::new(Site::MlpAct, self.layer);
        if probe.wants(at) {
            let activated = ops::activate(tape, gate, self.activation)?;
            let seen = visit(probe, at, activated.clone())?;
            if seen.id() != activated.id() {
                return seen * up;
            }
        }
        ops::gated(tape, gate, &up, self.activation)
    }
}

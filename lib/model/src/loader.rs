//! The decoder's learnable parts: how they come out of a source of weights, and what they are called there.

use candle_core::{Result, Tensor};

use crate::config::{self, Config};
use crate::error;
use crate::ops::{self, Tape};
use crate::weights::Source;

/// A learnable tensor of the decoder, as it is used, and how its file spells it.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name in a checkpoint.
    pub name: String,
    pub tensor: Tensor,
    /// GPT-2 stores its matrices (in, out); the decoder holds them (out, in).
    pub transposed: bool,
}

impl Parameter {
    /// The shape in a checkpoint.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.tensor.dims().to_vec();
        if self.transposed {
            shape.reverse();
        }
        shape
    }
}

/// Loads tensors and notes every one that it gave out.
pub(crate) struct Loader<'a> {
    source: &'a dyn Source,
    config: &'a Config,
    pub parameters: Vec<Parameter>,
}

impl<'a> Loader<'a> {
    pub fn new(source: &'a dyn Source, config: &'a Config) -> Self {
        Self {
            source,
            config,
            parameters: Vec::new(),
        }
    }

    pub fn get(&mut self, name: String, shape: &[usize]) -> error::Result<Tensor> {
        let tensor = self.source.tensor(&name, shape)?;
        self.parameters.push(Parameter {
            name,
            tensor: tensor.clone(),
            transposed: false,
        });
        Ok(tensor)
    }

    /// The matrix of a linear layer, which some families store (in, out).
    fn matrix(&mut self, name: String, (output, input): (usize, usize)) -> error::Result<Tensor> {
        if !self.config.names.transposed {
            return self.get(name, &[output, input]);
        }
        let stored = self.source.tensor(&name, &[input, output])?;
        let mut tensor = stored.t()?;
        if stored.is_contiguous() {
            // a source that only tells shapes gives a view of one number, which stays one
            tensor = tensor.contiguous()?;
        }
        self.parameters.push(Parameter {
            name,
            tensor: tensor.clone(),
            transposed: true,
        });
        Ok(tensor)
    }

    pub fn linear(&mut self, name: &str, (output, input): (usize, usize), bias: bool) -> error::Result<Linear> {
        Ok(Linear {
            weight: self.matrix(format!("{name}.weight"), (output, input))?,
            bias: bias.then(|| self.get(format!("{name}.bias"), &[output])).transpose()?,
        })
    }

    pub fn norm(&mut self, name: &str, width: usize) -> error::Result<Norm> {
        let kind = self.config.norm;
        let (weighted, biased) = match kind {
            config::Norm::Rms { .. } => (true, false),
            config::Norm::Layer => (true, true),
            config::Norm::Bare => (false, false),
        };
        let mut part = |there: bool, part| there.then(|| self.get(format!("{name}.{part}"), &[width])).transpose();
        Ok(Norm {
            kind,
            weight: part(weighted, "weight")?,
            bias: part(biased, "bias")?,
            eps: self.config.norm_eps,
        })
    }
}

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor, // (out, in)
    bias: Option<Tensor>,
}

impl Linear {
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        ops::linear(tape, x, &self.weight, self.bias.as_ref())
    }
}

#[derive(Debug)]
pub(crate) struct Norm {
    kind: config::Norm,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        match (self.kind, &self.weight) {
            (config::Norm::Rms { offset }, Some(weight)) => ops::rms_norm(tape, x, weight, self.eps, offset),
            _ => ops::layer_norm(tape, x, self.weight.as_ref(), self.bias.as_ref(), self.eps),
        }
    }
}

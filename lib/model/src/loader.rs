//! The decoder's learnable parts: how they come out of a source of weights, and what they are called there.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Error, Result, Tensor};

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
    /// Matrices that are multiplied as they are stored, which are no parameters.
    pub kept: Vec<String>,
}

impl<'a> Loader<'a> {
    pub fn new(source: &'a dyn Source, config: &'a Config) -> Self {
        Self {
            source,
            config,
            parameters: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The names of everything that was asked for.
    pub fn asked(&self) -> Vec<&str> {
        let parameters = self.parameters.iter().map(|parameter| &parameter.name);
        parameters.chain(&self.kept).map(String::as_str).collect()
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

    fn weight(&mut self, name: String, shape: (usize, usize)) -> error::Result<Weight> {
        match self.source.blocks(&name, shape.into())? {
            None => self.matrix(name, shape).map(Weight::Numbers),
            Some(blocks) => {
                self.kept.push(name);
                Ok(Weight::Blocks(blocks))
            }
        }
    }

    pub fn linear(&mut self, name: &str, (output, input): (usize, usize), bias: bool) -> error::Result<Linear> {
        Ok(Linear {
            weight: self.weight(format!("{name}.weight"), (output, input))?,
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

/// A matrix (out, in).
#[derive(Debug)]
enum Weight {
    Numbers(Tensor),
    /// As a file stores it; it does not learn.
    Blocks(Arc<QTensor>),
}

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    /// What may learn.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let weight = match &self.weight {
            Weight::Numbers(weight) => Some(weight),
            Weight::Blocks(_) => None,
        };
        weight.into_iter().chain(&self.bias)
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Numbers(weight) => ops::linear(tape, x, weight, self.bias.as_ref()),
            Weight::Blocks(_) if tape.is_recording() => {
                Err(Error::Msg("blocks as they are stored have no gradient".into()))
            }
            Weight::Blocks(blocks) => {
                let product = x.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(&**blocks)?;
                let product = match &self.bias {
                    None => product,
                    Some(bias) => product.broadcast_add(&bias.to_dtype(DType::F32)?)?,
                };
                product.to_dtype(x.dtype())
            }
        }
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

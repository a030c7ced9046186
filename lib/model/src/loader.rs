//! The decoder's learnable parts: how they come out of a source of weights, and what they are called there.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use crate::config::{self, Config};
use crate::error;
use crate::ops::{self, Tape};
use crate::weights::{Matrix, Source};

/// A learnable tensor of the decoder, as it is used, and how its file spells it.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name in a checkpoint.
    pub name: String,
    pub tensor: Tensor,
    /// GPT-2 stores its matrices (in, out), others so those of experts; the decoder holds them (out, in).
    pub transposed: bool,
}

impl Parameter {
    /// The shape in a checkpoint.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.tensor.dims().to_vec();
        if let ([.., output, input], true) = (&mut shape[..], self.transposed) {
            std::mem::swap(output, input);
        }
        shape
    }
}

/// Loads tensors and notes every one that it gave out.
pub(crate) struct Loader<'a> {
    source: &'a dyn Source,
    config: &'a Config,
    pub parameters: Vec<Parameter>,
    /// Matrices that stay as they are stored, which are no parameters.
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
        self.turned(name, &[input, output])
    }

    /// The matrices (count, out, in) of as many linear layers, which are stored (count, in, out) together.
    pub fn stack(&mut self, name: String, [count, output, input]: [usize; 3]) -> error::Result<Tensor> {
        self.turned(name, &[count, input, output])
    }

    /// A tensor whose last two dimensions are stored the other way round.
    fn turned(&mut self, name: String, stored_shape: &[usize]) -> error::Result<Tensor> {
        let stored = self.source.tensor(&name, stored_shape)?;
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
        match self.stored(&name, shape)? {
            None => self.matrix(name, shape).map(Weight::Numbers),
            Some(stored) => Ok(stored),
        }
    }

    /// A matrix with a row for each token.
    pub fn table(&mut self, name: &str, shape: (usize, usize)) -> error::Result<Weight> {
        let name = format!("{name}.weight");
        match self.stored(&name, shape)? {
            None => self.get(name, &[shape.0, shape.1]).map(Weight::Numbers),
            Some(stored) => Ok(stored),
        }
    }

    fn stored(&mut self, name: &str, shape: (usize, usize)) -> error::Result<Option<Weight>> {
        let matrix = self.source.matrix(name, shape.into())?;
        if matrix.is_some() {
            self.kept.push(name.to_owned());
        }
        Ok(matrix.map(Weight::Stored))
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
#[derive(Clone, Debug)]
pub(crate) enum Weight {
    Numbers(Tensor),
    Stored(Arc<dyn Matrix>),
}

impl Weight {
    /// What may learn.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Numbers(weight) => Some(weight),
            Self::Stored(_) => None,
        }
    }

    /// `x · weightᵀ + bias`.
    pub fn multiply(&self, tape: &Tape, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Numbers(weight) => ops::linear(tape, x, weight, bias),
            Self::Stored(weight) => ops::linear_stored(tape, x, &**weight, bias),
        }
    }

    /// The rows of ids.
    pub fn rows(&self, tape: &Tape, ids: &[u32], dtype: DType) -> Result<Tensor> {
        match self {
            Self::Numbers(weight) => ops::embedding(tape, weight, ids),
            Self::Stored(weight) => ops::embedding_stored(&**weight, ids, dtype),
        }
    }
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
        self.weight.tensor().into_iter().chain(&self.bias)
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        self.weight.multiply(tape, x, self.bias.as_ref())
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
    /// By the root mean square, without a weight.
    pub fn bare_rms(eps: f64) -> Self {
        Self {
            kind: config::Norm::Rms { offset: 0.0 },
            weight: None,
            bias: None,
            eps,
        }
    }

    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        match self.kind {
            config::Norm::Rms { offset } => ops::rms_norm(tape, x, self.weight.as_ref(), self.eps, offset),
            _ => ops::layer_norm(tape, x, self.weight.as_ref(), self.bias.as_ref(), self.eps),
        }
    }
}

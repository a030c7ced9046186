//! The element-wise non-linearities of an MLP, alone and gated.

use candle_core::{Result, Tensor};

use super::{Tape, composed};

/// The elementwise non-linearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// The exact form, through erf.
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    Relu,
}

impl Activation {
    fn of(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Relu => x.relu(),
        }
    }
}

/// `activation(gate) · up`, elementwise.
pub fn gated(tape: &Tape, gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    composed(tape, "gated", &[gate, up], move |inputs| {
        activation.of(&inputs[0])? * &inputs[1]
    })
}

/// The activation alone, elementwise.
pub fn activate(tape: &Tape, x: &Tensor, activation: Activation) -> Result<Tensor> {
    composed(tape, "activate", &[x], move |inputs| activation.of(&inputs[0]))
}

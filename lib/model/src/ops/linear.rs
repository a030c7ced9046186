//! The matrix product with a weight, frozen or learning, with or without a low-rank adapter.

use candle_core::{Result, Tensor};

use super::{Tape, composed};

/// `x · wᵀ + bias`; x (rows, in), w (out, in), bias (out) → (rows, out). An adapter that the tape holds for `w` is added.
pub fn linear(tape: &Tape, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let biased = bias.is_some();
    let inputs: Vec<&Tensor> = [Some(x), Some(w), bias].into_iter().flatten().collect();
    let y = composed(tape, "linear", &inputs, move |inputs| {
        let y = inputs[0].matmul(&inputs[1].t()?)?;
        if biased { y.broadcast_add(&inputs[2]) } else { Ok(y) }
    })?;
    match tape.adapter(w).cloned() {
        None => Ok(y),
        Some(adapter) => {
            let low = linear(tape, x, &adapter.down, None)?;
            let low = super::scale(tape, &low, adapter.scale)?;
            super::add(tape, &y, &linear(tape, &low, &adapter.up, None)?)
        }
    }
}

//! The product with one of several weights that are one tensor: the experts of a mixture.

use candle_core::{DType, Result, Tensor};
use products::How;

use super::linear::{self, Side};
use super::tape::Place;
use super::{Gradients, Tape, cpu};

/// `x · stack[index]ᵀ + biases[index]`; x (rows, in), stack (count, out, in), biases (count, out) → (rows, out).
pub fn linear_of(tape: &Tape, x: &Tensor, stack: &Tensor, biases: Option<&Tensor>, index: usize) -> Result<Tensor> {
    let output = forward(tape, x, stack, biases, index)?;
    let inputs: Vec<&Tensor> = [x, stack].into_iter().chain(biases).collect();
    if tape.tracks_any(&inputs) {
        // the input's values are kept only for the weight's gradient
        let kept = tape.learns(stack).then(|| x.clone());
        let (x, stack, biases, how) = (Place::of(x), stack.clone(), biases.cloned(), tape.how());
        tape.record("linear_of", &output, move |gradient, backward| {
            if let Some(biases) = biases.filter(|biases| backward.learns(biases)) {
                let sum = gradient.to_dtype(DType::F32)?.sum(0)?;
                backward.gradients.add_to_part(&biases, index, &sum)?;
            }
            if let Some(x) = kept {
                weight_gradient(backward.gradients, &stack, index, &gradient, &x, how)?;
            }
            if backward.wants(&x) {
                let w = stack.get(index)?;
                let product = match cpu::is_host(&w) {
                    true => linear::multiply(&gradient, Side::AsItLies(&w), None, how)?,
                    false => gradient.matmul(&w)?,
                };
                backward.send(&x, product)?;
            }
            Ok(())
        });
    }
    Ok(output)
}

fn forward(tape: &Tape, x: &Tensor, stack: &Tensor, biases: Option<&Tensor>, index: usize) -> Result<Tensor> {
    let bias = biases.map(|biases| biases.get(index)).transpose()?;
    linear::forward(tape, x, &stack.get(index)?, bias.as_ref())
}

/// Adds gradientᵀ (out, rows) · x (rows, in) to the gradient of one weight of the stack.
fn weight_gradient(
    gradients: &mut Gradients,
    stack: &Tensor,
    index: usize,
    gradient: &Tensor,
    x: &Tensor,
    how: How,
) -> Result<()> {
    if !cpu::is_host(stack) {
        return gradients.add_to_part(stack, index, &gradient.t()?.matmul(x)?);
    }
    linear::add_product(gradients.sum_of_part(stack, index)?, true, gradient, x, how)
}

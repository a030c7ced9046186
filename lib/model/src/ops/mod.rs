//! The decoder's operations on packed rows, each with its gradient.
//!
//! Sequences are packed without padding: a batch is one matrix of rows, and `offsets` says where each sequence starts
//! (`offsets[i]..offsets[i + 1]` are the rows of sequence `i`, the last entry is the row count). Shapes are written
//! (rows, heads, head_dim). Nothing here knows a model family.
//!
//! Every operation takes a [`Tape`] first. `Tape::off()` only computes; a recording tape also notes how to send a gradient
//! back, and is the **only** way a gradient flows: whatever lies between the input and the loss must be an operation of
//! this module (`add`, `scale`, `reshape`, `narrow` are here for that), and `Tape::backward` refuses a graph with a hole.
//! ```ignore
//! let x = ops::embedding(tape, &table, &token_ids)?;                      // (rows, hidden)
//! let x = tape.checkpoint(&x, move |tape, x| block.forward(tape, x))?;    // one block; recomputed when checkpointing
//! ```
//! On the CPU each operation is a fused loop over f32 (other types are widened); elsewhere it is composed of candle's operations.

mod activation;
mod attention;
mod cpu;
mod elementwise;
mod experts;
mod gradients;
mod linear;
mod loss;
mod norm;
mod rope;
mod simd;
mod stack;
mod tape;
#[cfg(test)]
mod tests;

pub use activation::{Activation, activate, clamped_gated, gated};
pub use attention::{Attention, Window, attention, attention_cached, largest_scores};
#[doc(hidden)]
pub use cpu::through_candle;
pub(crate) use cpu::{is_host, update as update_in_place};
pub(crate) use elementwise::embedding_stored;
pub use elementwise::{add, clamp, embedding, interleave, narrow, reshape, scale, scale_rows};
pub use experts::{ExpertWeights, Weighed, expert_weights, experts, largest};
pub use gradients::{Gradient, Gradients};
pub(crate) use linear::linear_stored;
pub use linear::{STEADY_ROWS, linear};
pub use loss::{CrossEntropy, Head, Targets, cross_entropy};
pub use norm::{layer_norm, rms_norm};
pub use rope::{RopePairs, rope};
pub use stack::linear_of;
pub use tape::{Adapter, Backward, Learning, Tape};

use candle_core::{Result, Tensor, Var};

/// An operation made of candle's own differentiable operations: computed plainly, and computed again on candle's graph on
/// the way back. `inputs` are all the tensors a gradient may flow to.
fn composed<'m>(
    tape: &Tape<'m>,
    name: &'static str,
    inputs: &[&Tensor],
    compute: impl Fn(&[Tensor]) -> Result<Tensor> + 'm,
) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    let output = compute(&inputs)?.detach();
    if !inputs.iter().any(|input| tape.tracks(input)) {
        return Ok(output);
    }
    tape.record(name, &output, move |gradient, backward| {
        let mut leaves = Vec::with_capacity(inputs.len());
        for input in &inputs {
            leaves.push(if backward.wants(input) {
                Var::from_tensor(input)?.into_inner()
            } else {
                input.detach()
            });
        }
        let grads = compute(&leaves)?.apply_op1(cpu::Seed(gradient))?.backward()?;
        for (input, leaf) in inputs.iter().zip(&leaves).filter(|(_, leaf)| leaf.is_variable()) {
            let gradient = grads
                .get(leaf)
                .ok_or_else(|| candle_core::Error::Msg(format!("`{name}` cut a gradient")))?;
            backward.share(input, gradient)?;
        }
        Ok(())
    });
    Ok(output)
}

/// Overwrites a tensor in its storage with the values of another of its shape, in its own type: every holder of the tensor
/// sees them.
pub fn change(tensor: &Tensor, values: &Tensor) -> Result<()> {
    tensor.slice_set(
        &values
            .to_device(tensor.device())?
            .to_dtype(tensor.dtype())?
            .force_contiguous()?,
        0,
        0,
    )
}

/// Overwrites values of a tensor in its storage, from the one numbered `start` on, with those of a row.
pub fn change_row(tensor: &Tensor, start: usize, values: &Tensor) -> Result<()> {
    let values = values.to_device(tensor.device())?.to_dtype(tensor.dtype())?;
    tensor.flatten_all()?.slice_set(&values.force_contiguous()?, 0, start)
}

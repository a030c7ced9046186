//! Cross-entropy of chosen rows, fused with the vocabulary product.

use candle_core::{DType, Error, Result, Tensor};

use super::{Gradients, Tape, linear};

/// What `cross_entropy` found.
#[derive(Debug)]
pub struct CrossEntropy {
    /// Negative log-likelihood of each chosen row's target, in nats.
    pub row_nats: Vec<f32>,
    /// The logarithm of the sum of exponentials of each chosen row's logits.
    pub row_lse: Vec<f32>,
    /// The gradient of `weight · Σ row_nats` with respect to `hidden`; present when a gradient was asked for.
    pub hidden_gradient: Option<Tensor>,
}

/// Cross-entropy of `hidden[rows] · headᵀ` (+ bias, softcap) against `targets`; hidden (n, d) is the final norm's output,
/// head (vocabulary, d). With `gradients`, the backward pass runs at once, chunk by chunk, so that the logits of all rows
/// never exist together: the head's gradient of `weight · Σ row_nats` is added there, and the result's `hidden_gradient`
/// is the seed for `Tape::backward`.
pub fn cross_entropy(
    tape: &Tape,
    hidden: &Tensor,
    head: &Tensor,
    softcap: Option<f64>,
    rows: &[u32],
    targets: &[u32],
    weight: f64,
    gradients: Option<&mut Gradients>,
) -> Result<CrossEntropy> {
    let _ = (
        tape,
        hidden,
        head,
        softcap,
        rows,
        targets,
        weight,
        gradients,
        DType::F32,
        linear,
    );
    Err(Error::Msg("cross_entropy is not written yet".into()))
}

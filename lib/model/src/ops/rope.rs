//! Rotary position embedding.

use candle_core::{Result, Tensor};

use super::{Tape, composed};

/// Which dimensions turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Dimension i with i + half: Llama in its Hugging Face layout, NeoX, Qwen, Gemma.
    Half,
    /// Dimension 2i with 2i + 1: GPT-J.
    Interleaved,
}

/// Rotates the first `2 · half` dimensions of each head by its row's angles, the rest passes unchanged.
/// x (rows, heads, head_dim); cos and sin (rows, half), f32, already chosen per row.
pub fn rope(tape: &Tape, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RopePairs) -> Result<Tensor> {
    let (cos, sin) = (cos.clone(), sin.clone());
    composed(tape, "rope", &[x], move |inputs| {
        let x = &inputs[0];
        let (rows, heads, head_dim) = x.dims3()?;
        let half = cos.dim(1)?;
        let (cos, sin) = (
            cos.to_dtype(x.dtype())?.unsqueeze(1)?,
            sin.to_dtype(x.dtype())?.unsqueeze(1)?,
        ); // (rows, 1, half)
        let turned = x.narrow(2, 0, 2 * half)?;
        let (low, high) = match pairs {
            RopePairs::Half => (turned.narrow(2, 0, half)?, turned.narrow(2, half, half)?),
            RopePairs::Interleaved => {
                let turned = turned.contiguous()?.reshape((rows, heads, half, 2))?;
                (turned.narrow(3, 0, 1)?.squeeze(3)?, turned.narrow(3, 1, 1)?.squeeze(3)?)
            }
        };
        let new_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
        let new_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
        let mut parts = match pairs {
            RopePairs::Half => vec![new_low, new_high],
            RopePairs::Interleaved => {
                vec![Tensor::stack(&[new_low, new_high], 3)?.reshape((rows, heads, 2 * half))?]
            }
        };
        if 2 * half < head_dim {
            parts.push(x.narrow(2, 2 * half, head_dim - 2 * half)?);
        }
        Tensor::cat(&parts, 2)
    })
}

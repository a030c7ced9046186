//! Rotary position embedding.

use candle_core::{Result, Tensor};
use products::wide;
use rayon::prelude::*;

use super::tape::Place;
use super::{Tape, composed, cpu};

/// Which dimensions turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Dimension i with i + half: Llama in its Hugging Face layout, NeoX, Qwen, Gemma.
    Half,
    /// Dimension 2i with 2i + 1: GPT-J.
    Interleaved,
}

/// Rows per parallel task.
const ROWS: usize = 32;

/// Rotates the first `2 · half` dimensions of each head by its row's angles, the rest passes unchanged.
/// x (rows, heads, head_dim); cos and sin (rows, half), f32, already chosen per row.
pub fn rope(tape: &Tape, x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RopePairs) -> Result<Tensor> {
    if !cpu::is_host(x) {
        let (cos, sin) = (cos.clone(), sin.clone());
        return composed(tape, "rope", &[x], move |inputs| {
            turned_by_candle(&inputs[0], &cos, &sin, pairs)
        });
    }
    let output = turned(x, cos, sin, pairs, 1.0)?;
    if tape.tracks(x) {
        let (x, cos, sin) = (Place::of(x), cos.clone(), sin.clone());
        // the inverse of a rotation is its transpose
        tape.record("rope", &output, move |gradient, backward| {
            backward.send(&x, turned(&gradient, &cos, &sin, pairs, -1.0)?)
        });
    }
    Ok(output)
}

/// `direction` is 1, or -1 to turn back.
fn turned(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RopePairs, direction: f32) -> Result<Tensor> {
    let (rows, heads, head_dim) = x.dims3()?;
    let (angle_rows, half) = cos.dims2()?;
    if angle_rows != rows || sin.dims2()? != (rows, half) || 2 * half > head_dim {
        return Err(candle_core::Error::Msg(format!(
            "rope of {:?} by angles {:?}",
            x.shape(),
            cos.shape()
        )));
    }
    let (wide, cos, sin) = (cpu::wide(x)?, cpu::wide(cos)?, cpu::wide(sin)?);
    let (values, cos, sin) = (cpu::view(&wide)?, cpu::view(&cos)?, cpu::view(&sin)?);
    let (row_len, chunk) = (heads * head_dim, ROWS * heads * head_dim);
    // SAFETY: each head's turned dimensions and its rest are written, for every head of every row.
    let output = unsafe {
        cpu::fresh(values.len(), |out| {
            out.par_chunks_mut(chunk)
                .zip(values.par_chunks(chunk))
                .enumerate()
                .for_each(|(index, (out, x))| {
                    wide!({
                        for (row, (out, x)) in out.chunks_exact_mut(row_len).zip(x.chunks_exact(row_len)).enumerate() {
                            let angles = (index * ROWS + row) * half..(index * ROWS + row + 1) * half;
                            let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
                            for (out, x) in out.chunks_exact_mut(head_dim).zip(x.chunks_exact(head_dim)) {
                                match pairs {
                                    RopePairs::Half => {
                                        let (low, high) = (&x[..half], &x[half..2 * half]);
                                        let (out_low, out_high) = out[..2 * half].split_at_mut(half);
                                        for i in 0..half {
                                            let s = direction * sin[i];
                                            out_low[i].write(low[i] * cos[i] - high[i] * s);
                                            out_high[i].write(high[i] * cos[i] + low[i] * s);
                                        }
                                    }
                                    RopePairs::Interleaved => {
                                        for i in 0..half {
                                            let (low, high, s) = (x[2 * i], x[2 * i + 1], direction * sin[i]);
                                            out[2 * i].write(low * cos[i] - high * s);
                                            out[2 * i + 1].write(high * cos[i] + low * s);
                                        }
                                    }
                                }
                                for (out, &x) in out[2 * half..].iter_mut().zip(&x[2 * half..]) {
                                    out.write(x);
                                }
                            }
                        }
                    });
                });
        })
    };
    cpu::tensor(output, x.shape(), x.dtype())
}

pub(super) fn turned_by_candle(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: RopePairs) -> Result<Tensor> {
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
        RopePairs::Interleaved => vec![Tensor::stack(&[new_low, new_high], 3)?.reshape((rows, heads, 2 * half))?],
    };
    if 2 * half < head_dim {
        parts.push(x.narrow(2, 2 * half, head_dim - 2 * half)?);
    }
    Tensor::cat(&parts, 2)
}

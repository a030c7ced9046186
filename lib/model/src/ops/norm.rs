//! Root-mean-square and layer normalisation over the last dimension.

use candle_core::{D, DType, Result, Tensor};

use super::{Tape, composed};

/// `x / sqrt(mean(x²) + eps) · (offset + weight)` over the last dimension, in f32 inside; x (.., d), weight (d).
/// `offset` is 0, or 1 for Gemma, which stores its weights around zero.
pub fn rms_norm(tape: &Tape, x: &Tensor, weight: &Tensor, eps: f64, offset: f64) -> Result<Tensor> {
    composed(tape, "rms_norm", &[x, weight], move |inputs| {
        let wide = inputs[0].to_dtype(DType::F32)?;
        let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = wide.broadcast_div(&(variance + eps)?.sqrt()?)?;
        let weight = inputs[1].to_dtype(DType::F32)?.affine(1.0, offset)?;
        normed.broadcast_mul(&weight)?.to_dtype(inputs[0].dtype())
    })
}

/// `(x - mean) / sqrt(var + eps) · weight + bias` over the last dimension, in f32 inside; weight and bias (d) or absent.
pub fn layer_norm(tape: &Tape, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let inputs: Vec<&Tensor> = [Some(x), weight, bias].into_iter().flatten().collect();
    let (weighted, biased) = (weight.is_some(), bias.is_some());
    composed(tape, "layer_norm", &inputs, move |inputs| {
        let wide = inputs[0].to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let mut y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
        if weighted {
            y = y.broadcast_mul(&inputs[1].to_dtype(DType::F32)?)?;
        }
        if biased {
            y = y.broadcast_add(&inputs[usize::from(weighted) + 1].to_dtype(DType::F32)?)?;
        }
        y.to_dtype(inputs[0].dtype())
    })
}

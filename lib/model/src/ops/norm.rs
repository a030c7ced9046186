//! Root-mean-square and layer normalisation over the last dimension.

use candle_core::{D, DType, Result, Tensor};
use products::wide;
use rayon::prelude::*;

use super::{Tape, composed, cpu, simd};

/// Rows per parallel task, and per partial sum of a weight's gradient.
const ROWS: usize = 64;

/// `x / sqrt(mean(x²) + eps) · (offset + weight)` over the last dimension, in f32 inside; x (.., d), weight (d).
/// `offset` is 0, or 1 for Gemma, which stores its weights around zero.
pub fn rms_norm(tape: &Tape, x: &Tensor, weight: &Tensor, eps: f64, offset: f64) -> Result<Tensor> {
    if !cpu::is_host(x) {
        return composed(tape, "rms_norm", &[x, weight], move |inputs| {
            let wide = inputs[0].to_dtype(DType::F32)?;
            let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
            let normed = wide.broadcast_div(&(variance + eps)?.sqrt()?)?;
            let weight = inputs[1].to_dtype(DType::F32)?.affine(1.0, offset)?;
            normed.broadcast_mul(&weight)?.to_dtype(inputs[0].dtype())
        });
    }
    normalise(
        tape,
        "rms_norm",
        x,
        Some(weight),
        None,
        Norm {
            eps: eps as f32,
            offset: offset as f32,
            centred: false,
        },
    )
}

/// `(x - mean) / sqrt(var + eps) · weight + bias` over the last dimension, in f32 inside; weight and bias (d) or absent.
pub fn layer_norm(tape: &Tape, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    if !cpu::is_host(x) {
        let inputs: Vec<&Tensor> = [Some(x), weight, bias].into_iter().flatten().collect();
        let (weighted, biased) = (weight.is_some(), bias.is_some());
        return composed(tape, "layer_norm", &inputs, move |inputs| {
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
        });
    }
    normalise(
        tape,
        "layer_norm",
        x,
        weight,
        bias,
        Norm {
            eps: eps as f32,
            offset: 0.0,
            centred: true,
        },
    )
}

#[derive(Clone, Copy)]
struct Norm {
    eps: f32,
    offset: f32,
    centred: bool,
}

impl Norm {
    /// The mean to subtract and the factor to multiply by.
    #[inline(always)]
    fn moments(self, x: &[f32]) -> (f32, f32) {
        let d = x.len() as f32;
        if !self.centred {
            return (0.0, 1.0 / (simd::dot(x, x) / d + self.eps).sqrt());
        }
        let mean = simd::sum(x) / d;
        let variance = simd::squared_distance(x, mean) / d;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

fn normalise(
    tape: &Tape,
    name: &'static str,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    norm: Norm,
) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    // the factor and the shift that are applied, whatever is stored
    let scale = match weight {
        Some(weight) => cpu::map(&cpu::view(&*cpu::wide(weight)?)?, |w| w + norm.offset),
        None => vec![1.0; width],
    };
    let shift = match bias {
        Some(bias) => cpu::view(&*cpu::wide(bias)?)?.to_vec(),
        None => vec![0.0; width],
    };
    if scale.len() != width || shift.len() != width {
        return Err(candle_core::Error::Msg(format!(
            "{name} of width {width} with a weight of {}",
            scale.len()
        )));
    }
    let wide = cpu::wide(x)?;
    let values = cpu::view(&wide)?;
    // SAFETY: every row of every chunk is written whole.
    let output = unsafe {
        cpu::fresh(values.len(), |out| {
            out.par_chunks_mut(ROWS * width)
                .zip(values.par_chunks(ROWS * width))
                .for_each(|(out, x)| {
                    wide!({
                        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                            let (mean, factor) = norm.moments(x);
                            for i in 0..width {
                                out[i].write((x[i] - mean) * factor * scale[i] + shift[i]);
                            }
                        }
                    });
                });
        })
    };
    let output = cpu::tensor(output, x.shape(), x.dtype())?;
    let learning: Vec<&Tensor> = [Some(x), weight, bias].into_iter().flatten().collect();
    if tape.tracks_any(&learning) {
        drop(values);
        let (x, weight, bias) = (x.clone(), weight.cloned(), bias.cloned());
        tape.record(name, &output, move |gradient, backward| {
            let weight = weight.filter(|weight| backward.learns(weight));
            let bias = bias.filter(|bias| backward.learns(bias));
            let wide = cpu::wide(&x)?;
            let gradient = cpu::wide(&gradient)?;
            let (values, g) = (cpu::view(&wide)?, cpu::view(&gradient)?);
            let chunk = ROWS * width;
            if backward.wants(&x) {
                // the residual's gradient usually waits here already: added in the same pass
                let pending = backward.take(&x);
                let pending = pending.as_ref().map(cpu::wide).transpose()?;
                let pending = pending.as_deref().map(cpu::view).transpose()?;
                // SAFETY: every row of every chunk is written whole.
                let dx = unsafe {
                    cpu::fresh(values.len(), |dx| {
                        dx.par_chunks_mut(chunk)
                            .zip(values.par_chunks(chunk))
                            .zip(g.par_chunks(chunk))
                            .enumerate()
                            .for_each(|(index, ((dx, x), g))| {
                                let pending = pending.as_ref().map(|pending| &pending[index * chunk..][..x.len()]);
                                wide!({
                                    for row in 0..x.len() / width {
                                        let range = row * width..(row + 1) * width;
                                        let (dx, x, g) = (&mut dx[range.clone()], &x[range.clone()], &g[range.clone()]);
                                        let (mean, factor) = norm.moments(x);
                                        // with x̂ = (x - mean)·factor and u = g·scale: dx = factor·(u - [mean u] - x̂·mean(u·x̂))
                                        let along = simd::dot3_centred(g, &scale, x, mean) * factor / width as f32;
                                        let level = if norm.centred {
                                            simd::dot(g, &scale) / width as f32
                                        } else {
                                            0.0
                                        };
                                        match pending {
                                            None => {
                                                for i in 0..width {
                                                    let normed = (x[i] - mean) * factor;
                                                    dx[i].write(factor * (g[i] * scale[i] - level - normed * along));
                                                }
                                            }
                                            Some(pending) => {
                                                let pending = &pending[range];
                                                for i in 0..width {
                                                    let normed = (x[i] - mean) * factor;
                                                    let own = factor * (g[i] * scale[i] - level - normed * along);
                                                    dx[i].write(own + pending[i]);
                                                }
                                            }
                                        }
                                    }
                                });
                            });
                    })
                };
                backward.send(&x, cpu::tensor(dx, x.shape(), x.dtype())?)?;
            }
            if weight.is_none() && bias.is_none() {
                return Ok(());
            }
            // one partial sum per chunk, added in their order
            let partials: Vec<(Vec<f32>, Vec<f32>)> = values
                .par_chunks(chunk)
                .zip(g.par_chunks(chunk))
                .map(|(x, g)| {
                    let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
                    wide!({
                        for (x, g) in x.chunks_exact(width).zip(g.chunks_exact(width)) {
                            let (mean, factor) = norm.moments(x);
                            for i in 0..width {
                                of_weight[i] += g[i] * (x[i] - mean) * factor;
                                of_bias[i] += g[i];
                            }
                        }
                    });
                    (of_weight, of_bias)
                })
                .collect();
            for (parameter, second) in [(weight, false), (bias, true)] {
                if let Some(parameter) = parameter {
                    let into = backward.gradients.sum(&parameter);
                    for (of_weight, of_bias) in &partials {
                        cpu::add_into(into, if second { of_bias } else { of_weight });
                    }
                }
            }
            Ok(())
        });
    }
    Ok(output)
}

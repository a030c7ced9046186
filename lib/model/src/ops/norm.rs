//! Root-mean-square and layer normalisation over the last dimension.

use std::mem::MaybeUninit;

use candle_core::{D, DType, Result, Tensor};
use products::wide;
use rayon::prelude::*;

use super::{Tape, composed, cpu, simd};

/// Rows per parallel task, and per partial sum of a weight's gradient.
const ROWS: usize = 64;

/// `x / sqrt(mean(x²) + eps) · (offset + weight)` over the last dimension, in f32 inside; x (.., d), weight (d) or absent.
/// `offset` is 0, or 1 for Gemma, which stores its weights around zero.
pub fn rms_norm(tape: &Tape, x: &Tensor, weight: Option<&Tensor>, eps: f64, offset: f64) -> Result<Tensor> {
    if !cpu::is_host(x) {
        let inputs: Vec<&Tensor> = [x].into_iter().chain(weight).collect();
        return composed(tape, "rms_norm", &inputs, move |inputs| {
            let wide = inputs[0].to_dtype(DType::F32)?;
            let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
            let mut normed = wide.broadcast_div(&(variance + eps)?.sqrt()?)?;
            if let Some(weight) = inputs.get(1) {
                normed = normed.broadcast_mul(&weight.to_dtype(DType::F32)?.affine(1.0, offset)?)?;
            }
            normed.to_dtype(inputs[0].dtype())
        });
    }
    normalise(
        tape,
        "rms_norm",
        x,
        weight,
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
    let rows = Rows::new(name, x.dim(D::Minus1)?, weight, bias, norm)?;
    let output = {
        let wide = cpu::wide(x)?;
        cpu::tensor(rows.forward(&cpu::view(&wide)?), x.shape(), x.dtype())?
    };
    let learning: Vec<&Tensor> = [Some(x), weight, bias].into_iter().flatten().collect();
    if tape.tracks_any(&learning) {
        let (x, weight, bias) = (x.clone(), weight.cloned(), bias.cloned());
        tape.record(name, &output, move |gradient, backward| {
            let wide = cpu::wide(&x)?;
            let gradient = cpu::wide(&gradient)?;
            let (values, g) = (cpu::view(&wide)?, cpu::view(&gradient)?);
            if backward.wants(&x) {
                // the residual's gradient usually waits here already: added in the same pass
                let pending = backward.take(&x);
                let pending = pending.as_ref().map(cpu::wide).transpose()?;
                let pending = pending.as_deref().map(cpu::view).transpose()?;
                let dx = rows.gradient(&values, &g, pending.as_deref());
                backward.send(&x, cpu::tensor(dx, x.shape(), x.dtype())?)?;
            }
            let weight = weight.filter(|weight| backward.learns(weight));
            let bias = bias.filter(|bias| backward.learns(bias));
            if weight.is_none() && bias.is_none() {
                return Ok(());
            }
            for (of_weight, of_bias) in rows.parameter_gradients(&values, &g) {
                for (parameter, part) in [(&weight, of_weight), (&bias, of_bias)] {
                    if let Some(parameter) = parameter {
                        cpu::add_into(backward.gradients.sum(parameter), &part);
                    }
                }
            }
            Ok(())
        });
    }
    Ok(output)
}

/// Rows of one width, normalised, and what that does to gradients.
struct Rows {
    width: usize,
    norm: Norm,
    /// The factor and the shift that are applied, whatever is stored.
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Rows {
    fn new(name: &str, width: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, norm: Norm) -> Result<Rows> {
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
        Ok(Rows {
            width,
            norm,
            scale,
            shift,
        })
    }

    fn forward(&self, values: &[f32]) -> Vec<f32> {
        let Rows {
            width,
            norm,
            scale,
            shift,
        } = self;
        let (width, chunk) = (*width, ROWS * width);
        // SAFETY: every row of every chunk is written whole.
        unsafe {
            cpu::fresh(values.len(), |out| {
                out.par_chunks_mut(chunk)
                    .zip(values.par_chunks(chunk))
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
        }
    }

    /// The gradient of x from that of the output, g; `pending` is added to it.
    fn gradient(&self, values: &[f32], g: &[f32], pending: Option<&[f32]>) -> Vec<f32> {
        let (width, chunk) = (self.width, ROWS * self.width);
        // SAFETY: every row of every chunk is written whole.
        unsafe {
            cpu::fresh(values.len(), |dx| {
                dx.par_chunks_mut(chunk)
                    .zip(values.par_chunks(chunk))
                    .zip(g.par_chunks(chunk))
                    .enumerate()
                    .for_each(|(index, ((dx, x), g))| {
                        let pending = pending.map(|pending| &pending[index * chunk..][..x.len()]);
                        wide!({
                            for row in 0..x.len() / width {
                                let range = row * width..(row + 1) * width;
                                let pending = pending.map(|pending| &pending[range.clone()]);
                                self.row_gradient(&mut dx[range.clone()], &x[range.clone()], &g[range], pending);
                            }
                        });
                    });
            })
        }
    }

    /// With x̂ = (x - mean)·factor and u = g·scale: dx = factor·(u - [mean u] - x̂·mean(u·x̂)).
    #[inline(always)]
    fn row_gradient(&self, dx: &mut [MaybeUninit<f32>], x: &[f32], g: &[f32], pending: Option<&[f32]>) {
        let (width, scale) = (self.width, &self.scale);
        let (mean, factor) = self.norm.moments(x);
        let along = simd::dot3_centred(g, scale, x, mean) * factor / width as f32;
        let level = if self.norm.centred {
            simd::dot(g, scale) / width as f32
        } else {
            0.0
        };
        let own = |i: usize| {
            let normed = (x[i] - mean) * factor;
            factor * (g[i] * scale[i] - level - normed * along)
        };
        match pending {
            None => {
                for (i, dx) in dx.iter_mut().enumerate() {
                    dx.write(own(i));
                }
            }
            Some(pending) => {
                for (i, (dx, pending)) in dx.iter_mut().zip(pending).enumerate() {
                    dx.write(own(i) + pending);
                }
            }
        }
    }

    /// Gradients of weight and bias: a partial sum for each chunk, to be added in their order.
    fn parameter_gradients(&self, values: &[f32], g: &[f32]) -> Vec<(Vec<f32>, Vec<f32>)> {
        let (width, norm, chunk) = (self.width, self.norm, ROWS * self.width);
        values
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
            .collect()
    }
}

//! The element-wise non-linearities of an MLP, alone and gated.

use candle_core::{Result, Tensor};
use products::wide;
use rayon::prelude::*;

use super::{Tape, composed, cpu, simd};

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

/// sqrt(2/π), of the tanh approximation.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;

impl Activation {
    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Relu => x.relu(),
        }
    }

    /// The value and the derivative.
    #[inline(always)]
    fn both(self, x: f32) -> (f32, f32) {
        match self {
            Activation::Silu => {
                let s = simd::sigmoid(x);
                (x * s, s * (1.0 + x * (1.0 - s)))
            }
            Activation::Gelu => {
                // erf through libm in f64, the exact form's whole point
                let wide = f64::from(x);
                let cdf = 0.5 * (1.0 + candle_core::cpu::erf::erf_f64(wide / std::f64::consts::SQRT_2));
                let pdf = (-0.5 * wide * wide).exp() / (2.0 * std::f64::consts::PI).sqrt();
                ((wide * cdf) as f32, (cdf + wide * pdf) as f32)
            }
            Activation::GeluTanh => {
                let t = simd::tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x));
                let inner = TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x);
                (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
            }
            Activation::Relu => (if x > 0.0 { x } else { x * 0.0 }, if x > 0.0 { 1.0 } else { 0.0 }),
        }
    }
}

/// `activation(gate) · up`, elementwise.
pub fn gated(tape: &Tape, gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    if !cpu::is_host(gate) {
        return composed(tape, "gated", &[gate, up], move |inputs| {
            activation.composed(&inputs[0])? * &inputs[1]
        });
    }
    let plain = |x| (x, 1.0);
    match activation {
        Activation::Silu => product_of(tape, gate, up, |x| Activation::Silu.both(x), plain),
        Activation::Gelu => product_of(tape, gate, up, |x| Activation::Gelu.both(x), plain),
        Activation::GeluTanh => product_of(tape, gate, up, |x| Activation::GeluTanh.both(x), plain),
        Activation::Relu => product_of(tape, gate, up, |x| Activation::Relu.both(x), plain),
    }
}

/// `x · sigmoid(alpha · x) · (up + 1)`, elementwise, where x is `gate` up to `limit` and `up` lies within ±limit (gpt-oss).
pub fn clamped_gated(tape: &Tape, gate: &Tensor, up: &Tensor, alpha: f32, limit: f32) -> Result<Tensor> {
    if !cpu::is_host(gate) {
        return composed(tape, "clamped_gated", &[gate, up], move |inputs| {
            clamped_by_candle(&inputs[0], &inputs[1], f64::from(alpha), f64::from(limit))
        });
    }
    let swish = move |gate: f32| {
        let x = if gate > limit { limit } else { gate };
        let s = simd::sigmoid(alpha * x);
        let slope = s * (1.0 + alpha * x * (1.0 - s));
        (x * s, if gate > limit { 0.0 } else { slope })
    };
    let shifted = move |up: f32| {
        let is_inside = up.abs() <= limit;
        (up.clamp(-limit, limit) + 1.0, if is_inside { 1.0 } else { 0.0 })
    };
    product_of(tape, gate, up, swish, shifted)
}

pub(super) fn clamped_by_candle(gate: &Tensor, up: &Tensor, alpha: f64, limit: f64) -> Result<Tensor> {
    let swish = ((gate.minimum(limit)? * alpha)?.silu()? / alpha)?;
    swish * (up.clamp(-limit, limit)? + 1.0)?
}

/// `f(gate) · g(up)`, of which `f` and `g` give value and derivative.
fn product_of(
    tape: &Tape,
    gate: &Tensor,
    up: &Tensor,
    f: impl Fn(f32) -> (f32, f32) + Copy + Sync + 'static,
    g: impl Fn(f32) -> (f32, f32) + Copy + Sync + 'static,
) -> Result<Tensor> {
    let output = multiplied(gate, up, |x| f(x).0, |x| g(x).0)?;
    if tape.tracks_any(&[gate, up]) {
        let (gate, up) = (gate.clone(), up.clone());
        tape.record("gated", &output, move |gradient, backward| {
            let (of_gate, of_up) = pulled(&gate, &up, &gradient, f, g)?;
            backward.send(&gate, of_gate)?;
            backward.send(&up, of_up)
        });
    }
    Ok(output)
}

/// The activation alone, elementwise.
pub fn activate(tape: &Tape, x: &Tensor, activation: Activation) -> Result<Tensor> {
    if !cpu::is_host(x) {
        return composed(tape, "activate", &[x], move |inputs| activation.composed(&inputs[0]));
    }
    let wide = cpu::wide(x)?;
    let output = cpu::map(&cpu::view(&wide)?, |x| activation.both(x).0);
    let output = cpu::tensor(output, x.shape(), x.dtype())?;
    if tape.tracks(x) {
        let x = x.clone();
        tape.record("activate", &output, move |gradient, backward| {
            let (wide, gradient) = (cpu::wide(&x)?, cpu::wide(&gradient)?);
            let values = cpu::zip(&cpu::view(&wide)?, &cpu::view(&gradient)?, |x, g| {
                activation.both(x).1 * g
            });
            backward.send(&x, cpu::tensor(values, x.shape(), x.dtype())?)
        });
    }
    Ok(output)
}

/// `f(gate) · g(up)`; monomorphic in both, so that it is vectorised.
fn multiplied(
    gate: &Tensor,
    up: &Tensor,
    f: impl Fn(f32) -> f32 + Sync,
    g: impl Fn(f32) -> f32 + Sync,
) -> Result<Tensor> {
    let (wide_gate, wide_up) = (cpu::wide(gate)?, cpu::wide(up)?);
    let (gates, ups) = (cpu::view(&wide_gate)?, cpu::view(&wide_up)?);
    let values = cpu::zip(&gates, &ups, |gate, up| f(gate) * g(up));
    cpu::tensor(values, gate.shape(), gate.dtype())
}

/// The gradients of `f(gate) · g(up)` with respect to both, in one pass.
fn pulled(
    gate: &Tensor,
    up: &Tensor,
    gradient: &Tensor,
    f: impl Fn(f32) -> (f32, f32) + Sync,
    g: impl Fn(f32) -> (f32, f32) + Sync,
) -> Result<(Tensor, Tensor)> {
    let (wide_gate, wide_up, wide_gradient) = (cpu::wide(gate)?, cpu::wide(up)?, cpu::wide(gradient)?);
    let (x, u, slopes) = (cpu::view(&wide_gate)?, cpu::view(&wide_up)?, cpu::view(&wide_gradient)?);
    let mut of_gate = Vec::new();
    // SAFETY: the zips of equally cut, equally long chunks cover every element of both buffers.
    let of_up = unsafe {
        cpu::fresh(x.len(), |of_up| {
            of_gate = cpu::fresh(x.len(), |of_gate| {
                of_gate
                    .par_chunks_mut(cpu::CHUNK)
                    .zip(of_up.par_chunks_mut(cpu::CHUNK))
                    .zip(
                        x.par_chunks(cpu::CHUNK)
                            .zip(u.par_chunks(cpu::CHUNK))
                            .zip(slopes.par_chunks(cpu::CHUNK)),
                    )
                    .for_each(|((of_gate, of_up), ((x, u), slopes))| {
                        wide!({
                            let len = x.len();
                            let (of_gate, of_up) = (&mut of_gate[..len], &mut of_up[..len]);
                            let (u, slopes) = (&u[..len], &slopes[..len]);
                            for i in 0..len {
                                let ((gate, of_f), (up, of_g)) = (f(x[i]), g(u[i]));
                                of_gate[i].write(slopes[i] * up * of_f);
                                of_up[i].write(slopes[i] * gate * of_g);
                            }
                        });
                    });
            });
        })
    };
    let tensor = |values, like: &Tensor| cpu::tensor(values, like.shape(), like.dtype());
    Ok((tensor(of_gate, gate)?, tensor(of_up, up)?))
}

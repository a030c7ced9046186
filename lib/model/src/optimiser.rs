//! AdamW with decoupled weight decay, fused into one parallel pass over memory, and with its state in the open.
//!
//! Moments are f32 always. A parameter that is f32 on the CPU is changed in place; one in half precision, or on a device,
//! keeps an f32 master copy, of which the parameter is the rounding.

use candle_core::{DType, Device, Error, Result, Tensor};
use products::wide;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ops::{Gradient, Gradients, change, is_host, update_in_place};

/// Elements per task, and per partial sum of a norm: fixed, so that bits do not depend on the number of threads.
const CHUNK: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Applied to matrices only; norms and biases do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The two moments of one parameter, and its master copy where the parameter itself is rounded.
#[derive(Debug)]
pub enum Moments {
    Host {
        first: Vec<f32>,
        second: Vec<f32>,
        /// None where the parameter is f32 itself.
        master: Option<Vec<f32>>,
    },
    Device {
        first: Tensor,
        second: Tensor,
        master: Tensor,
    },
}

impl Moments {
    /// The parameter as it is learned, and both moments, in f32: what a run that goes on later needs.
    pub fn parts(&self, parameter: &Tensor) -> Result<[Tensor; 3]> {
        let own = |values: &[f32]| Tensor::from_slice(values, parameter.shape(), &Device::Cpu);
        match self {
            Self::Host { first, second, master } => {
                let learned = match master {
                    Some(master) => own(master)?,
                    None => parameter.copy()?,
                };
                Ok([learned, own(first)?, own(second)?])
            }
            Self::Device { first, second, master } => Ok([master.copy()?, first.copy()?, second.copy()?]),
        }
    }

    /// Goes on from such parts.
    pub fn restore(&mut self, parameter: &Tensor, [learned, first, second]: &[Tensor; 3]) -> Result<()> {
        let own = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        match self {
            Self::Host {
                first: own_first,
                second: own_second,
                master,
            } => {
                (*own_first, *own_second) = (own(first)?, own(second)?);
                if let Some(master) = master {
                    *master = own(learned)?;
                }
            }
            Self::Device {
                first: own_first,
                second: own_second,
                master,
            } => {
                *own_first = first.to_device(parameter.device())?;
                *own_second = second.to_device(parameter.device())?;
                *master = learned.to_device(parameter.device())?;
            }
        }
        change(parameter, learned)
    }
}

/// The optimiser over a fixed list of parameters, which every call gives again in the same order.
#[derive(Debug)]
pub struct AdamW {
    pub options: AdamWOptions,
    /// Updates done.
    pub step: u64,
    pub moments: Vec<Moments>,
}

impl AdamW {
    pub fn new(parameters: &[Tensor], options: AdamWOptions) -> Result<Self> {
        let moments = parameters
            .iter()
            .map(|parameter| {
                let count = parameter.elem_count();
                if is_host(parameter) {
                    let copy = || parameter.to_dtype(DType::F32)?.flatten_all()?.to_vec1();
                    return Ok(Moments::Host {
                        first: vec![0.0; count],
                        second: vec![0.0; count],
                        master: (parameter.dtype() != DType::F32).then(copy).transpose()?,
                    });
                }
                let zeros = || Tensor::zeros(parameter.shape(), DType::F32, parameter.device());
                Ok(Moments::Device {
                    first: zeros()?,
                    second: zeros()?,
                    master: parameter.to_dtype(DType::F32)?.copy()?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            options,
            step: 0,
            moments,
        })
    }

    /// One update with the gradients times `factor` (1, or less to clip). Each parameter must have a gradient.
    pub fn update(&mut self, parameters: &[Tensor], gradients: &Gradients, lr: f64, factor: f64) -> Result<()> {
        self.step += 1;
        let AdamWOptions {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = self.options;
        let correction1 = 1.0 - beta1.powf(self.step as f64);
        let correction2 = 1.0 - beta2.powf(self.step as f64);
        for (parameter, moments) in parameters.iter().zip(&mut self.moments) {
            let decay = if parameter.rank() >= 2 {
                1.0 - lr * weight_decay
            } else {
                1.0
            };
            let missing = || Error::Msg(format!("a parameter of shape {:?} has no gradient", parameter.shape()));
            match (moments, gradients.get(parameter).ok_or_else(missing)?) {
                (Moments::Host { first, second, master }, Gradient::Host(gradient)) => {
                    let rule = Rule {
                        beta1: beta1 as f32,
                        beta2: beta2 as f32,
                        eps: eps as f32,
                        decay: decay as f32,
                        rate: (lr / correction1) as f32,
                        root_correction2: correction2.sqrt() as f32,
                        factor: factor as f32,
                    };
                    match master {
                        None => update_in_place(parameter, |values| rule.apply(values, gradient, first, second))?,
                        Some(master) => {
                            rule.apply(master, gradient, first, second);
                            change(parameter, &rounded(master, parameter)?)?;
                        }
                    }
                }
                (Moments::Device { first, second, master }, gradient) => {
                    let gradient = match gradient {
                        Gradient::Device(gradient) => gradient.clone(),
                        Gradient::Host(values) => Tensor::from_slice(values, parameter.shape(), parameter.device())?,
                    };
                    let gradient = (gradient * factor)?;
                    *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
                    *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                    let denominator = ((second.sqrt()? / correction2.sqrt())? + eps)?;
                    *master = ((&*master * decay)? - ((&*first / denominator)? * (lr / correction1))?)?;
                    change(parameter, master)?;
                }
                (Moments::Host { .. }, Gradient::Device(_)) => {
                    return Err(Error::Msg("a host parameter with a device gradient".into()));
                }
            }
        }
        Ok(())
    }

    /// Bytes of state per parameter element, beside the parameter itself.
    pub fn bytes_per_element(dtype: DType) -> u64 {
        if dtype == DType::F32 { 8 } else { 12 }
    }
}

/// A master copy as its parameter holds it.
fn rounded(master: &[f32], parameter: &Tensor) -> Result<Tensor> {
    match parameter.dtype() {
        DType::BF16 => Tensor::from_vec(products::narrow(master), parameter.shape(), parameter.device()),
        dtype => Tensor::from_slice(master, parameter.shape(), parameter.device())?.to_dtype(dtype),
    }
}

/// The Euclidean norm over all gradients of `parameters`, in a fixed order of summation.
pub fn gradient_norm(parameters: &[Tensor], gradients: &Gradients) -> Result<f64> {
    let mut total = 0.0;
    for parameter in parameters {
        total += match gradients.get(parameter) {
            None => 0.0,
            Some(Gradient::Host(values)) => sum_of_squares(values),
            Some(Gradient::Device(tensor)) => f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?),
        };
    }
    Ok(total.sqrt())
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let partials: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            wide!({
                let mut lanes = [0.0f64; 16];
                let mut whole = chunk.chunks_exact(16);
                for part in &mut whole {
                    for (lane, &value) in lanes.iter_mut().zip(part) {
                        *lane += f64::from(value) * f64::from(value);
                    }
                }
                let rest: f64 = whole
                    .remainder()
                    .iter()
                    .map(|&value| f64::from(value) * f64::from(value))
                    .sum();
                lanes.iter().sum::<f64>() + rest
            })
        })
        .collect();
    partials.iter().sum()
}

struct Rule {
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    rate: f32,
    root_correction2: f32,
    factor: f32,
}

impl Rule {
    fn apply(&self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let chunks = values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)));
        chunks.for_each(|((values, gradient), (first, second))| {
            wide!({
                let len = values.len();
                let (gradient, first, second) = (&gradient[..len], &mut first[..len], &mut second[..len]);
                for i in 0..len {
                    let g = gradient[i] * self.factor;
                    first[i] = self.beta1 * first[i] + (1.0 - self.beta1) * g;
                    second[i] = self.beta2 * second[i] + (1.0 - self.beta2) * g * g;
                    let denominator = second[i].sqrt() / self.root_correction2 + self.eps;
                    values[i] = values[i] * self.decay - self.rate * first[i] / denominator;
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::{Learning, Tape, linear};

    #[test]
    fn three_updates_equal_the_formula_in_f64() {
        let x = Tensor::new(&[[1.0f32, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap();
        let w = Tensor::new(&[[0.3f32, -0.1]], &Device::Cpu).unwrap();
        let options = AdamWOptions {
            weight_decay: 0.1,
            ..AdamWOptions::default()
        };
        let mut optimiser = AdamW::new(std::slice::from_ref(&w), options).unwrap();
        let (mut exact, mut m, mut v) = ([0.3f64, -0.1], [0.0; 2], [0.0; 2]);
        for step in 1..=3 {
            let tape = Tape::recording(Learning::of([&w]).into());
            let y = linear(&tape, &x, &w, None).unwrap();
            let mut gradients = Gradients::default();
            tape.backward(vec![(y.clone(), y)], &mut gradients).unwrap();
            let norm = gradient_norm(std::slice::from_ref(&w), &gradients).unwrap();
            // the gradient of ½‖x·wᵀ‖² is xᵀx·w
            let y = [exact[0] - 2.0 * exact[1], 0.5 * exact[0] + 3.0 * exact[1]];
            let g = [y[0] + 0.5 * y[1], -2.0 * y[0] + 3.0 * y[1]];
            assert!((norm - g[0].hypot(g[1])).abs() < 1e-5);
            optimiser
                .update(std::slice::from_ref(&w), &gradients, 0.01, 0.5)
                .unwrap();
            for i in 0..2 {
                let g = g[i] * 0.5;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (m, v) = (m[i] / (1.0 - 0.9f64.powi(step)), v[i] / (1.0 - 0.999f64.powi(step)));
                exact[i] = exact[i] * (1.0 - 0.01 * 0.1) - 0.01 * m / (v.sqrt() + 1e-8);
            }
            let got = w.to_vec2::<f32>().unwrap();
            for i in 0..2 {
                assert!((f64::from(got[0][i]) - exact[i]).abs() < 1e-6, "{got:?} {exact:?}");
            }
        }
    }

    #[test]
    fn a_half_precision_parameter_keeps_a_master_copy() {
        let w = Tensor::new(&[[1.0f32]], &Device::Cpu)
            .unwrap()
            .to_dtype(DType::BF16)
            .unwrap();
        let mut optimiser = AdamW::new(std::slice::from_ref(&w), AdamWOptions::default()).unwrap();
        let mut gradients = Gradients::default();
        let tape = Tape::recording(Learning::of([&w]).into());
        let x = Tensor::new(&[[1.0f32]], &Device::Cpu)
            .unwrap()
            .to_dtype(DType::BF16)
            .unwrap();
        let y = linear(&tape, &x, &w, None).unwrap();
        tape.backward(vec![(y.clone(), y)], &mut gradients).unwrap();
        // each update is below the resolution of bf16 at 1, their sum is not
        for _ in 0..10 {
            optimiser
                .update(std::slice::from_ref(&w), &gradients, 0.001, 1.0)
                .unwrap();
        }
        let value = w.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()[0][0];
        assert!((value - 0.99).abs() < 3e-3 && value < 1.0, "{value}");
    }
}

//! AdamW with decoupled weight decay, fused into one parallel pass over memory, and with its state in the open.
//!
//! Moments are f32 always. A parameter that is f32 on the CPU is changed in place; one in half precision, or on a device,
//! keeps an f32 master copy, of which the parameter is the rounding.

use std::ops::Range;

use candle_core::{DType, Device, Error, Result, Tensor};
use products::wide;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ops::{Gradient, Gradients, change, change_row, is_host, update_in_place};

/// Elements per task, and per partial sum of a norm: fixed, so that bits do not depend on the number of threads or of ranks.
pub const CHUNK: usize = 64 * 1024;

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

/// What is known of one parameter beside itself, or of that range of it which this optimiser owns: two moments, and a master copy where the
/// parameter is rounded.
#[derive(Debug)]
pub struct Moments {
    range: Range<usize>,
    /// Whether the parameter is a matrix, or several.
    decays: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Host {
        first: Vec<f32>,
        second: Vec<f32>,
        /// None where the parameter is f32 itself.
        master: Option<Vec<f32>>,
    },
    /// In a row.
    Device {
        first: Tensor,
        second: Tensor,
        master: Tensor,
    },
}

/// What a run that goes on later needs of each parameter, in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The parameter as it is learned.
    Weight,
    FirstMoment,
    SecondMoment,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Weight, Self::FirstMoment, Self::SecondMoment];
}

impl Moments {
    fn new(parameter: &Tensor, range: Range<usize>) -> Result<Self> {
        let state = match is_host(parameter) {
            true => State::Host {
                first: vec![0.0; range.len()],
                second: vec![0.0; range.len()],
                master: match parameter.dtype() {
                    DType::F32 => None,
                    _ => Some(row(parameter, &range)?.to_dtype(DType::F32)?.to_vec1()?),
                },
            },
            false => {
                let zeros = || Tensor::zeros(range.len(), DType::F32, parameter.device());
                State::Device {
                    first: zeros()?,
                    second: zeros()?,
                    master: row(parameter, &range)?.to_dtype(DType::F32)?.copy()?,
                }
            }
        };
        let decays = parameter.rank() > 1;
        Ok(Self { range, decays, state })
    }

    /// Which values of the parameter are owned.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// One part of what is owned.
    pub fn part(&self, parameter: &Tensor, part: Part) -> Result<Vec<f32>> {
        match (&self.state, part) {
            (State::Host { master: None, .. }, Part::Weight) => row(parameter, &self.range)?.to_vec1(),
            (
                State::Host {
                    master: Some(values), ..
                },
                Part::Weight,
            )
            | (State::Host { first: values, .. }, Part::FirstMoment)
            | (State::Host { second: values, .. }, Part::SecondMoment) => Ok(values.clone()),
            (State::Device { master: tensor, .. }, Part::Weight)
            | (State::Device { first: tensor, .. }, Part::FirstMoment)
            | (State::Device { second: tensor, .. }, Part::SecondMoment) => tensor.to_vec1(),
        }
    }

    /// All parts of a parameter that is owned as a whole, in its shape.
    pub fn parts(&self, parameter: &Tensor) -> Result<[Tensor; 3]> {
        let [weight, first, second] =
            Part::ALL.map(|part| Tensor::from_vec(self.part(parameter, part)?, parameter.shape(), &Device::Cpu));
        Ok([weight?, first?, second?])
    }

    /// Goes on from the parts of the whole parameter, of which it takes what it owns.
    pub fn restore(&mut self, parameter: &Tensor, [learned, first, second]: &[Tensor; 3]) -> Result<()> {
        let range = &self.range;
        let own = |tensor: &Tensor| row(tensor, range)?.to_vec1::<f32>();
        match &mut self.state {
            State::Host {
                first: own_first,
                second: own_second,
                master,
            } => {
                (*own_first, *own_second) = (own(first)?, own(second)?);
                if let Some(master) = master {
                    *master = own(learned)?;
                }
            }
            State::Device {
                first: own_first,
                second: own_second,
                master,
            } => {
                let there = |tensor: &Tensor| row(tensor, range)?.copy()?.to_device(parameter.device());
                (*own_first, *own_second, *master) = (there(first)?, there(second)?, there(learned)?);
            }
        }
        change(parameter, learned)
    }
}

/// A range of a tensor in its own memory, as a row.
fn row(tensor: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    tensor.flatten_all()?.narrow(0, range.start, range.len())
}

/// The optimiser over a fixed list of parameters, which every call gives again in the same order.
#[derive(Debug)]
pub struct AdamW {
    pub options: AdamWOptions,
    /// Updates done.
    pub step: u64,
    pub moments: Vec<Moments>,
}

/// What every parameter's update of a step has in common.
struct Update {
    options: AdamWOptions,
    correction1: f64,
    correction2: f64,
    lr: f64,
    factor: f64,
}

impl AdamW {
    pub fn new(parameters: &[Tensor], options: AdamWOptions) -> Result<Self> {
        let whole = parameters.iter().map(|parameter| 0..parameter.elem_count());
        Self::of_ranges(parameters, whole, options)
    }

    /// Over a range of each parameter; other ranks own the rest. Ranges start and end where chunks do.
    pub fn of_ranges(
        parameters: &[Tensor],
        ranges: impl IntoIterator<Item = Range<usize>>,
        options: AdamWOptions,
    ) -> Result<Self> {
        let owned = parameters.iter().zip(ranges);
        Ok(Self {
            options,
            step: 0,
            moments: owned
                .map(|(parameter, range)| Moments::new(parameter, range))
                .collect::<Result<_>>()?,
        })
    }

    /// The parameters of these numbers do not decay, whatever their shape: the biases of several matrices that are one tensor.
    pub fn sparing(mut self, is_spared: impl Fn(usize) -> bool) -> Self {
        for (index, moments) in self.moments.iter_mut().enumerate() {
            moments.decays &= !is_spared(index);
        }
        self
    }

    /// One update of what is owned with the gradients times `factor` (1, or less to clip). Each parameter must have a gradient.
    pub fn update(&mut self, parameters: &[Tensor], gradients: &Gradients, lr: f64, factor: f64) -> Result<()> {
        self.step += 1;
        let options = self.options;
        let update = Update {
            options,
            correction1: 1.0 - options.beta1.powf(self.step as f64),
            correction2: 1.0 - options.beta2.powf(self.step as f64),
            lr,
            factor,
        };
        for (parameter, moments) in parameters.iter().zip(&mut self.moments) {
            let missing = || Error::Msg(format!("a parameter of shape {:?} has no gradient", parameter.shape()));
            update.apply(parameter, gradients.get(parameter).ok_or_else(missing)?, moments)?;
        }
        Ok(())
    }

    /// Bytes of state per parameter element, beside the parameter itself.
    pub fn bytes_per_element(dtype: DType) -> u64 {
        if dtype == DType::F32 { 8 } else { 12 }
    }
}

impl Update {
    fn apply(&self, parameter: &Tensor, gradient: &Gradient, moments: &mut Moments) -> Result<()> {
        let range = &moments.range;
        if range.is_empty() {
            return Ok(());
        }
        let decay = self.decay(moments.decays);
        match (&mut moments.state, gradient) {
            (State::Host { first, second, master }, Gradient::Host(gradient)) => {
                let (rule, gradient) = (self.rule(decay), &gradient[range.clone()]);
                match master {
                    None => update_in_place(parameter, |values| {
                        rule.apply(&mut values[range.clone()], gradient, first, second);
                    }),
                    Some(master) => {
                        rule.apply(master, gradient, first, second);
                        change_row(parameter, range.start, &rounded(master, parameter)?)
                    }
                }
            }
            (State::Device { first, second, master }, gradient) => {
                let AdamWOptions { beta1, beta2, eps, .. } = self.options;
                let gradient = match gradient {
                    Gradient::Device(gradient) => row(gradient, range)?,
                    Gradient::Host(values) => {
                        Tensor::from_slice(&values[range.clone()], range.len(), parameter.device())?
                    }
                };
                let gradient = (gradient * self.factor)?;
                *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
                *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let denominator = ((second.sqrt()? / self.correction2.sqrt())? + eps)?;
                let rate = self.lr / self.correction1;
                *master = ((&*master * decay)? - ((&*first / denominator)? * rate)?)?;
                change_row(parameter, range.start, master)
            }
            (State::Host { .. }, Gradient::Device(_)) => {
                Err(Error::Msg("a host parameter with a device gradient".into()))
            }
        }
    }

    /// Norms and biases do not decay.
    fn decay(&self, decays: bool) -> f64 {
        match decays {
            false => 1.0,
            true => 1.0 - self.lr * self.options.weight_decay,
        }
    }

    fn rule(&self, decay: f64) -> Rule {
        Rule {
            beta1: self.options.beta1 as f32,
            beta2: self.options.beta2 as f32,
            eps: self.options.eps as f32,
            decay: decay as f32,
            rate: (self.lr / self.correction1) as f32,
            root_correction2: self.correction2.sqrt() as f32,
            factor: self.factor as f32,
        }
    }
}

/// A master copy as its parameter holds it, in a row.
fn rounded(master: &[f32], parameter: &Tensor) -> Result<Tensor> {
    match parameter.dtype() {
        DType::BF16 => Tensor::from_vec(products::narrow(master), master.len(), parameter.device()),
        dtype => Tensor::from_slice(master, master.len(), parameter.device())?.to_dtype(dtype),
    }
}

/// The Euclidean norm over all gradients of `parameters`, in a fixed order of summation.
pub fn gradient_norm(parameters: &[Tensor], gradients: &Gradients) -> Result<f64> {
    let mut partials = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        partials.push(squares(parameter, gradients, 0..parameter.elem_count())?);
    }
    Ok(norm(&partials))
}

/// The norm whose partial sums, chunk by chunk, are these for each parameter.
pub fn norm(partials: &[Vec<f64>]) -> f64 {
    let of_parameter = |chunks: &Vec<f64>| chunks.iter().sum::<f64>();
    partials
        .iter()
        .fold(0.0, |total, chunks| total + of_parameter(chunks))
        .sqrt()
}

/// The sums of squares of a parameter's gradient, one for each chunk of `range`; a missing gradient is zero.
pub fn squares(parameter: &Tensor, gradients: &Gradients, range: Range<usize>) -> Result<Vec<f64>> {
    match gradients.get(parameter) {
        _ if range.is_empty() => Ok(Vec::new()),
        None => Ok(vec![0.0; range.len().div_ceil(CHUNK)]),
        Some(Gradient::Host(values)) => Ok(values[range].par_chunks(CHUNK).map(sum_of_squares).collect()),
        Some(Gradient::Device(tensor)) => {
            let squares = row(tensor, &range)?.sqr()?;
            let whole = range.len() / CHUNK;
            let mut sums: Vec<f32> = match whole {
                0 => Vec::new(),
                _ => squares
                    .narrow(0, 0, whole * CHUNK)?
                    .reshape((whole, CHUNK))?
                    .sum(1)?
                    .to_vec1()?,
            };
            if !range.len().is_multiple_of(CHUNK) {
                let rest = squares.narrow(0, whole * CHUNK, range.len() - whole * CHUNK)?;
                sums.push(rest.sum_all()?.to_scalar()?);
            }
            Ok(sums.into_iter().map(f64::from).collect())
        }
    }
}

fn sum_of_squares(chunk: &[f32]) -> f64 {
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
    fn matrices_decay_and_rows_and_spared_ones_do_not() {
        let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let parameters = [ones(&[2, 3]), ones(&[2, 3, 3]), ones(&[3]), ones(&[2, 3])];
        let options = AdamWOptions {
            weight_decay: 0.5,
            ..AdamWOptions::default()
        };
        let mut optimiser = AdamW::new(&parameters, options).unwrap().sparing(|index| index == 3);
        let mut gradients = Gradients::default();
        let tape = Tape::recording(Learning::of(&parameters).into());
        let still = parameters.iter().map(|x| (x.clone(), x.zeros_like().unwrap()));
        tape.backward(still.collect(), &mut gradients).unwrap();
        optimiser.update(&parameters, &gradients, 0.1, 1.0).unwrap();
        let least = parameters.map(|x| x.flatten_all().unwrap().min(0).unwrap().to_scalar::<f32>().unwrap());
        assert_eq!(least, [0.95, 0.95, 1.0, 1.0]);
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

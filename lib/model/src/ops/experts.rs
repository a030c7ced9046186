//! A mixture of experts: which experts a row chooses, with which weights, and what they make of it together.

use candle_core::{D, DType, Device, Error, Result, Tensor};
use rayon::prelude::*;

use super::tape::Place;
use super::{Gradients, Tape, cpu};

/// The `count` experts with the largest logits of each row of (rows, experts), the largest first: (rows, count), u32.
pub fn largest(logits: &Tensor, count: usize) -> Result<Tensor> {
    let (rows, experts) = logits.dims2()?;
    let values = host(logits)?;
    let choices = values.par_chunks_exact(experts).flat_map_iter(|logits| {
        let mut order: Vec<u32> = (0..experts as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        order.truncate(count);
        order
    });
    Tensor::from_vec(choices.collect::<Vec<u32>>(), (rows, count), logits.device())
}

/// How much each of its experts counts for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertWeights {
    /// Its share of the softmax over all logits.
    Share,
    /// Its share of the softmax over the logits of the chosen.
    ShareOfChosen,
    /// The sigmoid of its logit.
    Sigmoid,
}

/// What the weights multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighed {
    Outputs,
    Inputs,
}

/// The weight of each of a row's `choices` (rows, count), from its logits (rows, experts).
pub fn expert_weights(tape: &Tape, logits: &Tensor, choices: &Tensor, how: ExpertWeights) -> Result<Tensor> {
    match how {
        ExpertWeights::Share => shares(tape, logits, choices, false),
        ExpertWeights::ShareOfChosen => shares(tape, logits, choices, true),
        ExpertWeights::Sigmoid => sigmoids(tape, logits, choices),
    }
}

/// The sigmoid of the logit of each choice.
fn sigmoids(tape: &Tape, logits: &Tensor, choices: &Tensor) -> Result<Tensor> {
    let (rows, experts) = logits.dims2()?;
    let count = choices.dim(1)?;
    let (values, chosen) = (host(logits)?, chosen(choices, experts)?);
    let place = move |at: usize, expert: u32| at / count * experts + expert as usize;
    let sigmoid = |(at, &expert): (usize, &u32)| 1.0 / (1.0 + (-values[place(at, expert)]).exp());
    let weights: Vec<f32> = chosen.iter().enumerate().map(sigmoid).collect();
    let output = Tensor::from_slice(&weights, (rows, count), &Device::Cpu)?;
    let output = output.to_dtype(logits.dtype())?.to_device(logits.device())?;
    if tape.tracks(logits) {
        let (logits, dtype, device) = (Place::of(logits), logits.dtype(), logits.device().clone());
        tape.record("expert_weights", &output, move |gradient, backward| {
            let mut slopes = vec![0f32; rows * experts];
            for (at, gradient) in host(&gradient)?.into_iter().enumerate() {
                slopes[place(at, chosen[at])] += gradient * weights[at] * (1.0 - weights[at]);
            }
            let slopes = Tensor::from_vec(slopes, (rows, experts), &Device::Cpu)?;
            backward.send(&logits, slopes.to_dtype(dtype)?.to_device(&device)?)
        });
    }
    Ok(output)
}

/// The share of each row's softmax over all its logits that falls to its choices; with `renormalise` they sum to 1.
fn shares(tape: &Tape, logits: &Tensor, choices: &Tensor, renormalise: bool) -> Result<Tensor> {
    let (rows, experts) = logits.dims2()?;
    let count = choices.dim(1)?;
    let shares = softmax(&logits.to_dtype(DType::F32)?)?;
    let (shares, chosen) = (host(&shares)?, chosen(choices, experts)?);
    let mut weights: Vec<f32> = (0..rows * count)
        .map(|at| shares[at / count * experts + chosen[at] as usize])
        .collect();
    if renormalise {
        for row in weights.chunks_exact_mut(count) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
    let output = Tensor::from_slice(&weights, (rows, count), &Device::Cpu)?;
    let output = output.to_dtype(logits.dtype())?.to_device(logits.device())?;
    if tape.tracks(logits) {
        let (logits, dtype, device) = (Place::of(logits), logits.dtype(), logits.device().clone());
        tape.record("expert_weights", &output, move |gradient, backward| {
            let gradient = host(&gradient)?;
            let mut slopes = vec![0f32; rows * experts];
            for row in 0..rows {
                let slopes = &mut slopes[row * experts..][..experts];
                let of_row = row * count..(row + 1) * count;
                let (weights, gradient) = (&weights[of_row.clone()], &gradient[of_row.clone()]);
                let mean: f32 = weights.iter().zip(gradient).map(|(weight, slope)| weight * slope).sum();
                if !renormalise {
                    let shares = &shares[row * experts..][..experts];
                    slopes
                        .iter_mut()
                        .zip(shares)
                        .for_each(|(slope, share)| *slope = -share * mean);
                }
                for (at, &expert) in chosen[of_row].iter().enumerate() {
                    let other = if renormalise { mean } else { 0.0 };
                    slopes[expert as usize] += weights[at] * (gradient[at] - other);
                }
            }
            let slopes = Tensor::from_vec(slopes, (rows, experts), &Device::Cpu)?;
            backward.send(&logits, slopes.to_dtype(dtype)?.to_device(&device)?)
        });
    }
    Ok(output)
}

/// Softmax of the last dimension; no gradient passes.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// One expert's part of a batch: where its rows stand in the batch, and in which place each of them chose it.
struct Part<'m> {
    rows: Vec<u32>,
    places: Vec<u32>,
    input: Tensor,
    output: Tensor,
    tape: Tape<'m>,
}

/// Each row of x (rows, hidden) through the experts in its row of `choices` (rows, count), whose inputs or outputs are multiplied
/// by `weights` (rows, count): their sum, by rising number of the expert. `run` is one expert on the rows that chose it, on the tape that it is given; `tensors`
/// are an expert's own. One that no row chose gets a gradient of zero, so that all of them have one.
pub fn experts<'m>(
    tape: &Tape<'m>,
    x: &Tensor,
    choices: &Tensor,
    (weights, weighed): (&Tensor, Weighed),
    tensors: &[Vec<&Tensor>],
    run: impl Fn(&Tape<'m>, usize, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let count = choices.dim(1)?;
    let mut assigned = vec![(Vec::new(), Vec::new()); tensors.len()];
    for (at, expert) in chosen(choices, tensors.len())?.into_iter().enumerate() {
        let (rows, places) = &mut assigned[expert as usize];
        rows.push((at / count) as u32);
        places.push(at as u32);
    }
    let mut idle = Vec::new();
    let mut parts = Vec::new();
    for (expert, (rows, places)) in assigned.into_iter().enumerate() {
        if rows.is_empty() {
            idle.extend(tensors[expert].iter().flat_map(|tensor| tape.learning_of(tensor)));
            continue;
        }
        let inner = tape.inner();
        let mut input = x.index_select(&index(&rows, x)?, 0)?;
        if weighed == Weighed::Inputs {
            input = input.broadcast_mul(&of_places(weights, &places)?)?;
        }
        let input = input.detach();
        if tape.tracks(x) || (weighed == Weighed::Inputs && tape.tracks(weights)) {
            inner.watch(&input);
        }
        let output = run(&inner, expert, &input)?;
        parts.push(Part {
            rows,
            places,
            input,
            output,
            tape: inner,
        });
    }
    let output = sum(x, weights, weighed, &parts)?;
    let learns = parts.iter().any(|part| part.tape.tracks(&part.output)) || !idle.is_empty();
    if learns || tape.tracks_any(&[x, weights]) {
        let (x, weights) = (x.clone(), weights.clone());
        tape.record("experts", &output, move |gradient, backward| {
            let mut of_x = Tensor::zeros(x.shape(), DType::F32, x.device())?;
            let mut of_weights = Tensor::zeros(weights.elem_count(), DType::F32, x.device())?;
            for part in parts {
                let (rows, places) = (part.rows.clone(), index(&part.places, &x)?);
                let (back, own) = part.pull(&gradient, &x, (&weights, weighed), backward.gradients)?;
                if let Some(own) = own {
                    of_weights = of_weights.index_add(&places, &own.to_dtype(DType::F32)?.sum(1)?, 0)?;
                }
                if let Some(back) = back {
                    of_x = add_rows(of_x, &rows, &back)?;
                }
            }
            for tensor in idle {
                backward.send(&tensor, tensor.zeros_like()?)?;
            }
            backward.send(&x, of_x.to_dtype(x.dtype())?)?;
            backward.send(
                &weights,
                of_weights.reshape(weights.shape())?.to_dtype(weights.dtype())?,
            )
        });
    }
    Ok(output)
}

impl Part<'_> {
    /// From the gradient of all rows the gradient of this part's rows of x, and what, summed over each row, is that of their weights.
    fn pull(
        self,
        gradient: &Tensor,
        x: &Tensor,
        (weights, weighed): (&Tensor, Weighed),
        gradients: &mut Gradients,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let rows = index(&self.rows, x)?;
        let gradient = gradient.index_select(&rows, 0)?;
        let weights = of_places(weights, &self.places)?;
        let is_tracked = self.tape.tracks(&self.output);
        let through = |seed: Tensor| match is_tracked {
            true => self
                .tape
                .backward_to(vec![(self.output.clone(), seed)], &self.input, gradients),
            false => Ok(None),
        };
        match weighed {
            Weighed::Outputs => {
                let own = (&gradient * &self.output)?;
                Ok((through(gradient.broadcast_mul(&weights)?)?, Some(own)))
            }
            Weighed::Inputs => match through(gradient)? {
                None => Ok((None, None)),
                Some(back) => {
                    let own = (&back * x.index_select(&rows, 0)?)?;
                    Ok((Some(back.broadcast_mul(&weights)?), Some(own)))
                }
            },
        }
    }
}

/// What the experts made of their rows, together.
fn sum(x: &Tensor, weights: &Tensor, weighed: Weighed, parts: &[Part]) -> Result<Tensor> {
    let weights = weights.to_dtype(DType::F32)?;
    let mut sum = Tensor::zeros(x.shape(), DType::F32, x.device())?;
    for part in parts {
        let mut output = part.output.to_dtype(DType::F32)?;
        if weighed == Weighed::Outputs {
            output = output.broadcast_mul(&of_places(&weights, &part.places)?)?;
        }
        sum = add_rows(sum, &part.rows, &output)?;
    }
    Ok(sum.to_dtype(x.dtype())?.detach())
}

/// The weights in these places, (places, 1).
fn of_places(weights: &Tensor, places: &[u32]) -> Result<Tensor> {
    weights
        .flatten_all()?
        .index_select(&index(places, weights)?, 0)?
        .unsqueeze(1)
}

/// Adds rows to those of an f32 matrix that `rows` names, on the CPU in place.
fn add_rows(into: Tensor, rows: &[u32], added: &Tensor) -> Result<Tensor> {
    if !cpu::is_host(&into) {
        return into.index_add(&index(rows, &into)?, &added.to_dtype(DType::F32)?, 0);
    }
    let width = into.dim(1)?;
    let added = cpu::wide(added)?;
    let added = cpu::view(&added)?;
    cpu::update(&into, |into| {
        for (&row, added) in rows.iter().zip(added.chunks_exact(width)) {
            let into = &mut into[row as usize * width..][..width];
            into.iter_mut().zip(added).for_each(|(into, added)| *into += added);
        }
    })?;
    Ok(into)
}

fn index(rows: &[u32], like: &Tensor) -> Result<Tensor> {
    Tensor::from_slice(rows, rows.len(), like.device())
}

fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The numbers of the experts that are chosen, row by row.
fn chosen(choices: &Tensor, experts: usize) -> Result<Vec<u32>> {
    let chosen: Vec<u32> = choices.flatten_all()?.to_vec1()?;
    match chosen.iter().find(|expert| **expert as usize >= experts) {
        None => Ok(chosen),
        Some(expert) => Err(Error::Msg(format!("expert {expert} of {experts} is chosen"))),
    }
}

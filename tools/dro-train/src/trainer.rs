//! One step of the soft prompt: the model is frozen, and gradients reach the soft prompt's rows alone.

use std::rc::Rc;

use model::ops::{Gradients, Learning};
use model::optimiser::{AdamW, AdamWOptions, gradient_norm};
use model::{Batch, Decoder, Tape, Tensor};
use numerics::rng::Rng;

use crate::objective::{Objective, Parts};
use crate::prompts::Kind;
use crate::states;

/// Longer gradients are shortened to this.
const GRADIENT_NORM_MAX: f64 = 1.0;

/// A question with the soft prompt in its system slot.
pub struct Query {
    pub ids: Vec<u32>,
    pub kind: Kind,
    /// The state with the written message.
    pub start: Vec<f64>,
}

/// What a step was.
pub struct Taken {
    pub parts: Parts,
    pub gradient_norm: f64,
}

pub struct Trainer<'m> {
    /// It has the soft prompt.
    pub decoder: &'m Decoder,
    /// (rows, hidden), changed in place.
    pub soft_prompt: Tensor,
    pub objective: Objective,
    pub optimiser: AdamW,
    pub lr: f64,
    pub batch_tokens: usize,
    gradients: Gradients,
}

impl<'m> Trainer<'m> {
    pub fn new(
        decoder: &'m Decoder,
        soft_prompt: Tensor,
        objective: Objective,
        (lr, weight_decay): (f64, f64),
        batch_tokens: usize,
    ) -> model::Result<Trainer<'m>> {
        let options = AdamWOptions {
            weight_decay,
            ..AdamWOptions::default()
        };
        Ok(Trainer {
            optimiser: AdamW::new(std::slice::from_ref(&soft_prompt), options)?,
            decoder,
            soft_prompt,
            objective,
            lr,
            batch_tokens,
            gradients: Gradients::default(),
        })
    }

    pub fn step(&mut self, queries: &[&Query]) -> model::Result<Taken> {
        let parts = self.accumulate(queries)?;
        let parameters = [self.soft_prompt.clone()];
        let norm = gradient_norm(&parameters, &self.gradients)?;
        let factor = (GRADIENT_NORM_MAX / (norm + 1e-6)).min(1.0);
        self.optimiser.update(&parameters, &self.gradients, self.lr, factor)?;
        Ok(Taken {
            parts,
            gradient_norm: norm,
        })
    }

    /// The mean loss over the queries; its gradient is then held.
    fn accumulate(&mut self, queries: &[&Query]) -> model::Result<Parts> {
        self.gradients.clear();
        let learning = Rc::new(Learning::of([&self.soft_prompt]));
        let prompts: Vec<&[u32]> = queries.iter().map(|query| query.ids.as_slice()).collect();
        let share = 1.0 / queries.len() as f64;
        let mut parts = Parts::default();
        for unit in states::units(&prompts, self.batch_tokens) {
            let batch = Batch::pack(&prompts[unit.clone()]);
            let tape = Tape::recording(learning.clone()).with_precision(self.decoder.precision());
            let tape = tape.steady();
            let (normed, states) = states::of_batch(&tape, self.decoder, &batch)?;
            let mut seed = vec![0f32; normed.elem_count()];
            let width = normed.dim(1)?;
            for ((query, state), row) in queries[unit].iter().zip(&states).zip(batch.last_rows()) {
                let (own, gradient) = self.objective.of(state, &query.start, query.kind);
                parts.add(&own, share);
                let seed = &mut seed[row as usize * width..][..width];
                seed.iter_mut()
                    .zip(gradient)
                    .for_each(|(seed, x)| *seed = (share * x) as f32);
            }
            let seed = Tensor::from_vec(seed, normed.shape(), normed.device())?.to_dtype(normed.dtype())?;
            tape.backward(vec![(normed, seed)], &mut self.gradients)?;
        }
        Ok(parts)
    }

    /// The mean loss, and its gradient with respect to the soft prompt.
    #[cfg(test)]
    pub fn gradient(&mut self, queries: &[&Query]) -> model::Result<(Parts, Vec<f32>)> {
        let parts = self.accumulate(queries)?;
        let gradient = self.gradients.tensor(&self.soft_prompt)?.expect("it learns");
        Ok((parts, gradient.flatten_all()?.to_vec1()?))
    }

    /// The soft prompt as it is learned, in f32, and its two moments.
    pub fn state(&self) -> model::Result<[Tensor; 3]> {
        Ok(self.optimiser.moments[0].parts(&self.soft_prompt)?)
    }

    /// Goes on from a state after so many steps.
    pub fn restore(&mut self, step: u64, state: &[Tensor; 3]) -> model::Result<()> {
        self.optimiser.step = step;
        Ok(self.optimiser.moments[0].restore(&self.soft_prompt, state)?)
    }

    #[cfg(test)]
    pub fn values(&self) -> model::Result<Vec<f32>> {
        Ok(self.state()?[0].flatten_all()?.to_vec1()?)
    }
}

/// The queries of each step, epoch by epoch in another order.
pub fn batches(count: usize, batch_size: usize, epochs: u64, seed: u64) -> Vec<Vec<usize>> {
    let rng = Rng::new(seed, "order of questions");
    let epoch = |epoch: u64| {
        let mut order: Vec<usize> = (0..count).collect();
        rng.shuffle(epoch, &mut order);
        order.chunks(batch_size).map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    (0..epochs).flat_map(epoch).collect()
}

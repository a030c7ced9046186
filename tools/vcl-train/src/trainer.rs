//! One optimiser step: every micro-batch forward and backward, the auxiliary losses over all of them, one update.

use std::time::Instant;

use model::Taps;
use model::ops::Gradients;
use model::optimiser::{AdamW, gradient_norm};
use serde::Serialize;

use crate::auxiliary::{Auxiliaries, Doubt, Settled};
use crate::learner::Learner;
use crate::micro::Micro;
use crate::objective::{Objective, Pass};
use crate::sample::Sample;

/// What learns, from what, and how.
pub struct Trainer {
    pub learner: Learner,
    pub objective: Box<dyn Objective>,
    pub auxiliaries: Auxiliaries,
    pub optimiser: AdamW,
    pub gradients: Gradients,
    /// Keep only the input of each block, and compute it again on the way back.
    pub recompute: bool,
    /// Largest norm of the gradients; 0 leaves them.
    pub clip: f64,
}

/// Where a step's time went, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Phases {
    pub forward: f64,
    /// The vocabulary product, there and back.
    pub loss: f64,
    pub backward: f64,
    /// The auxiliary losses: statistics and gradients, and the first pass that several micro-batches need.
    pub aux: f64,
    pub update: f64,
}

impl Phases {
    pub fn add(&mut self, other: Self) {
        self.forward += other.forward;
        self.loss += other.loss;
        self.backward += other.backward;
        self.aux += other.aux;
        self.update += other.update;
    }
}

/// Runs `work` and adds its time to `seconds`.
fn timed<R>(seconds: &mut f64, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}

/// What a step found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub phases: Phases,
    pub loss: f64,
    pub aux: Settled,
    pub loss_token_count: u64,
    pub token_count: u64,
    pub grad_norm: f64,
    pub attn_logit_max: Option<f64>,
    pub lse_mean: f64,
}

/// Why a step did not happen.
#[derive(Debug)]
pub enum Stop {
    /// A loss or gradient norm that is not a number; nothing was changed.
    NotFinite(String),
    /// An auxiliary loss cannot be computed.
    Doubt(Doubt),
    Failed(model::Error),
}

impl<E: Into<model::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Trainer {
    /// A whole step at the rate `lr`.
    pub fn step(&mut self, micros: &[Micro], step: u64, lr: f64) -> Result<Found, Stop> {
        let mut found = self.differentiate(micros, step)?;
        let factor = if self.clip > 0.0 && found.grad_norm > self.clip {
            self.clip / (found.grad_norm + 1e-6)
        } else {
            1.0
        };
        timed(&mut found.phases.update, || {
            self.optimiser
                .update(&self.learner.tensors(), &self.gradients, lr, factor)
        })?;
        Ok(found)
    }

    /// Leaves all gradients of a step in `gradients`.
    pub fn differentiate(&mut self, micros: &[Micro], step: u64) -> Result<Found, Stop> {
        self.gradients.clear();
        self.auxiliaries.begin(step);
        let mut found = Found::default();
        // with several micro-batches the statistics must be known before the first gradient
        let mut settled = match micros.len() > 1 && self.auxiliaries.is_active() {
            true => Some(timed(&mut found.phases.aux, || self.foresee(micros))?),
            false => None,
        };
        let unit_count: usize = micros.iter().map(|micro| self.objective.unit_count(micro)).sum();
        let weight = 1.0 / unit_count as f64;
        for (index, micro) in micros.iter().enumerate() {
            let is_last = index + 1 == micros.len();
            self.pass(micro, weight, is_last, &mut settled, &mut found)?;
        }
        found.aux = settled.unwrap_or_default();
        found.loss /= unit_count as f64;
        found.lse_mean /= found.loss_token_count as f64;
        found.grad_norm = gradient_norm(&self.learner.tensors(), &self.gradients)?;
        for (what, value) in [("auxiliary loss", found.aux.loss), ("gradient norm", found.grad_norm)] {
            if !value.is_finite() {
                return Err(Stop::NotFinite(format!("the {what} is {value}")));
            }
        }
        Ok(found)
    }

    /// One micro-batch there and back; adds to `found`, whose means are sums until the last one.
    fn pass(
        &mut self,
        micro: &Micro,
        weight: f64,
        is_last: bool,
        settled: &mut Option<Settled>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        let mut taps = self.auxiliaries.taps();
        let tape = self.learner.tape().with_checkpoints(self.recompute).observing(true);
        let decoder = &self.learner.decoder;
        let phases = &mut found.phases;
        let hidden = timed(&mut phases.forward, || {
            decoder.forward(&tape, &micro.batch, &mut taps, None)
        })?;
        if settled.is_none() {
            *settled = timed(&mut phases.aux, || {
                self.auxiliaries.observe(&taps, micro)?;
                is_last.then(|| settle(&mut self.auxiliaries)).transpose()
            })?;
        }
        let pass = Pass {
            decoder,
            tape: &tape,
            micro,
            hidden: &hidden,
        };
        let score = timed(&mut phases.loss, || {
            self.objective.score(&pass, weight, Some(&mut self.gradients))
        })?;
        if !score.loss_sum.is_finite() {
            return Err(Stop::NotFinite(format!("the loss is {}", score.loss_sum)));
        }
        found.loss += score.loss_sum;
        found.lse_mean += score.lse_sum;
        found.loss_token_count += micro.targets.len() as u64;
        found.token_count += micro.batch.row_count() as u64;
        let logit_max = tape.attention_logit_max().map(f64::from);
        found.attn_logit_max = logit_max.into_iter().chain(found.attn_logit_max).reduce(f64::max);
        let mut seeds: Vec<_> = score
            .hidden_gradient
            .map(|gradient| (hidden, gradient))
            .into_iter()
            .collect();
        seeds.extend(timed(&mut phases.aux, || {
            self.auxiliaries.gradients(&tape, &taps, micro)
        })?);
        drop(taps);
        timed(&mut phases.backward, || tape.backward(seeds, &mut self.gradients))?;
        Ok(())
    }

    /// What the auxiliary losses settle on, from a pass of its own that goes only as deep as they look.
    fn foresee(&mut self, micros: &[Micro]) -> Result<Settled, Stop> {
        let depth = self.auxiliaries.layers().last().map_or(0, |layer| layer + 1);
        for micro in micros {
            let mut taps: Taps = self.auxiliaries.taps();
            let tape = self.learner.plain_tape();
            let decoder = &self.learner.decoder;
            decoder.residual(&tape, &micro.batch, depth, &mut taps, None)?;
            self.auxiliaries.observe(&taps, micro)?;
        }
        settle(&mut self.auxiliaries)
    }

    /// The objective on samples, forward only: its sum, and over how many units.
    pub fn evaluate(&self, samples: &[Sample]) -> Result<(f64, u64), model::Error> {
        let micro = Micro::pack(samples.iter().collect());
        let tape = self.learner.plain_tape();
        let decoder = &self.learner.decoder;
        let pass = Pass {
            decoder,
            tape: &tape,
            micro: &micro,
            hidden: &decoder.forward(&tape, &micro.batch, &mut (), None)?,
        };
        let score = self.objective.score(&pass, 1.0, None)?;
        Ok((score.loss_sum, self.objective.unit_count(&micro) as u64))
    }
}

fn settle(auxiliaries: &mut Auxiliaries) -> Result<Settled, Stop> {
    let settled = auxiliaries.settle()?;
    match &settled.doubt {
        Some(doubt) if doubt.is_fatal => Err(Stop::Doubt(doubt.clone())),
        _ => Ok(settled),
    }
}

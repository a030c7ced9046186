//! One optimiser step: every micro-batch forward and backward, the auxiliary losses over all of them, one update.

use std::time::Instant;

use model::ops::Gradients;
use model::optimiser::AdamW;
use model::{Decoder, Taps};
use ranks::Counter;
use serde::Serialize;

use crate::auxiliary::{Auxiliaries, Doubt, Settled};
use crate::learner::Learner;
use crate::micro::Micro;
use crate::objective::{Objective, Pass};
use crate::sample::Sample;
use crate::share::Share;
use crate::tally::Tally;

/// What learns, from what, and how.
pub struct Trainer {
    pub learner: Learner,
    pub objective: Box<dyn Objective>,
    pub auxiliaries: Auxiliaries,
    pub optimiser: AdamW,
    /// This rank among all.
    pub share: Share,
    /// Of the whole batch after a step; of this rank's share where there are several ranks.
    pub gradients: Gradients,
    /// Memory for the gradients of more slots.
    pub spare: Vec<Gradients>,
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
    /// Of all these: with other ranks, waiting for them included.
    #[serde(skip_serializing_if = "is_zero")]
    pub exchange: f64,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

impl Phases {
    pub fn add(&mut self, other: Self) {
        self.forward += other.forward;
        self.loss += other.loss;
        self.backward += other.backward;
        self.aux += other.aux;
        self.update += other.update;
        self.exchange += other.exchange;
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
    /// A whole step at the rate `lr`, over the micro-batches of every slot.
    pub fn step(&mut self, slots: &[Vec<Micro>], step: u64, lr: f64) -> Result<Found, Stop> {
        let before = self.share.world.traffic().seconds;
        let mut found = self.differentiate(slots, step)?;
        let factor = if self.clip > 0.0 && found.grad_norm > self.clip {
            self.clip / (found.grad_norm + 1e-6)
        } else {
            1.0
        };
        let tensors = self.learner.tensors();
        timed(&mut found.phases.update, || {
            self.optimiser.update(&tensors, &self.gradients, lr, factor)?;
            self.share.gather(&tensors)
        })?;
        found.phases.exchange = self.share.world.traffic().seconds - before;
        Ok(found)
    }

    /// Leaves the gradients of a step in `gradients`.
    pub fn differentiate(&mut self, slots: &[Vec<Micro>], step: u64) -> Result<Found, Stop> {
        self.auxiliaries.begin(step);
        let mut found = Found::default();
        let own = &slots[self.share.world.own(slots.len())];
        let micros = || slots.iter().flatten();
        let unit_count: usize = micros().map(|micro| self.objective.unit_count(micro)).sum();
        found.loss_token_count = micros().map(|micro| micro.targets.len() as u64).sum();
        found.token_count = micros().map(|micro| micro.batch.row_count() as u64).sum();
        // with several micro-batches the statistics must be known before the first gradient
        let is_several = own.iter().flatten().count() > 1;
        let settled = match is_several && self.auxiliaries.is_active() {
            true => Some(timed(&mut found.phases.aux, || self.foresee(own))?),
            false => None,
        };
        let mut passes = Passes {
            weight: 1.0 / unit_count as f64,
            settled,
            tallies: Vec::new(),
            phases: found.phases,
        };
        self.passes(own, &mut passes)?;
        found.phases = passes.phases;
        found.aux = passes.settled.unwrap_or_default();
        self.add_up(&passes.tallies, &mut found)?;
        found.loss /= unit_count as f64;
        found.lse_mean /= found.loss_token_count as f64;
        for (what, value) in [("auxiliary loss", found.aux.loss), ("gradient norm", found.grad_norm)] {
            if !value.is_finite() {
                return Err(Stop::NotFinite(format!("the {what} is {value}")));
            }
        }
        Ok(found)
    }

    /// The passes of this rank's slots; the sum of their gradients is left in `gradients`.
    fn passes(&mut self, own: &[Vec<Micro>], passes: &mut Passes) -> Result<(), Stop> {
        self.spare.push(std::mem::take(&mut self.gradients));
        let mut sums = Counter::default();
        for (index, slot) in own.iter().enumerate() {
            let mut gradients = self.spare.pop().unwrap_or_default();
            gradients.clear();
            for (at, micro) in slot.iter().enumerate() {
                let ends_slot = at + 1 == slot.len();
                let ends = Ends {
                    slot: ends_slot,
                    all: ends_slot && index + 1 == own.len(),
                };
                self.pass(micro, ends, &mut gradients, passes)?;
            }
            let spare = &mut self.spare;
            sums.push(gradients, |mut left: Gradients, mut right: Gradients| {
                left.absorb(&mut right)?;
                spare.push(right);
                candle_core::Result::Ok(left)
            })?;
        }
        self.gradients = sums.take().unwrap_or_default();
        Ok(())
    }

    /// What all ranks found together, and their gradients' sum and norm.
    fn add_up(&mut self, own: &[Tally], found: &mut Found) -> Result<(), Stop> {
        let world = &self.share.world;
        let all = world.gather(&Tally::wire(own)).map_err(model::Error::from)?;
        for tally in all.iter().flat_map(|bytes| Tally::read(bytes)) {
            if !tally.loss_sum.is_finite() {
                return Err(Stop::NotFinite(format!("the loss is {}", tally.loss_sum)));
            }
            found.loss += tally.loss_sum;
            found.lse_mean += tally.lse_sum;
            found.attn_logit_max = tally
                .attn_logit_max
                .into_iter()
                .chain(found.attn_logit_max)
                .reduce(f64::max);
        }
        let tensors = self.learner.tensors();
        timed(&mut found.phases.update, || {
            self.share.add_up(&tensors, &mut self.gradients)?;
            found.grad_norm = self.share.norm(&tensors, &self.gradients)?;
            Ok(())
        })
    }

    /// One micro-batch there and back.
    fn pass(&mut self, micro: &Micro, ends: Ends, gradients: &mut Gradients, passes: &mut Passes) -> Result<(), Stop> {
        let Passes {
            weight,
            settled,
            tallies,
            phases,
        } = passes;
        let mut taps = self.auxiliaries.taps();
        let tape = self.learner.tape().with_checkpoints(self.recompute).observing(true);
        let decoder = &self.learner.decoder;
        let hidden = timed(&mut phases.forward, || {
            decoder.forward(&tape, &micro.batch, &mut taps, None)
        })?;
        if settled.is_none() {
            *settled = timed(&mut phases.aux, || {
                observe(&mut self.auxiliaries, &taps, micro, ends.slot)?;
                let settle = || settle(&mut self.auxiliaries, &self.share, decoder);
                ends.all.then(settle).transpose()
            })?;
        }
        let pass = Pass {
            decoder,
            tape: &tape,
            micro,
            hidden: &hidden,
        };
        let score = timed(&mut phases.loss, || {
            self.objective.score(&pass, *weight, Some(gradients))
        })?;
        tallies.push(Tally::new(&score, tape.attention_logit_max()));
        let mut seeds: Vec<_> = score
            .hidden_gradient
            .map(|gradient| (hidden, gradient))
            .into_iter()
            .collect();
        seeds.extend(timed(&mut phases.aux, || {
            self.auxiliaries.gradients(&tape, &taps, micro)
        })?);
        drop(taps);
        timed(&mut phases.backward, || tape.backward(seeds, gradients))?;
        Ok(())
    }

    /// What the auxiliary losses settle on, from a pass of its own that goes only as deep as they look.
    fn foresee(&mut self, own: &[Vec<Micro>]) -> Result<Settled, Stop> {
        let depth = self.auxiliaries.layers().last().map_or(0, |layer| layer + 1);
        let decoder = &self.learner.decoder;
        for slot in own {
            for (at, micro) in slot.iter().enumerate() {
                let mut taps: Taps = self.auxiliaries.taps();
                let tape = self.learner.plain_tape();
                decoder.residual(&tape, &micro.batch, depth, &mut taps, None)?;
                observe(&mut self.auxiliaries, &taps, micro, at + 1 == slot.len())?;
            }
        }
        settle(&mut self.auxiliaries, &self.share, decoder)
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

/// What the passes of a step have in common.
struct Passes {
    /// Of each unit of the objective.
    weight: f64,
    /// What the auxiliary losses settled on, once they have.
    settled: Option<Settled>,
    tallies: Vec<Tally>,
    phases: Phases,
}

/// Whether a micro-batch is the last of its slot, and of this rank.
#[derive(Clone, Copy)]
struct Ends {
    slot: bool,
    all: bool,
}

fn observe(auxiliaries: &mut Auxiliaries, taps: &Taps, micro: &Micro, ends_slot: bool) -> Result<(), model::Error> {
    auxiliaries.observe(taps, micro)?;
    if ends_slot {
        auxiliaries.end_slot()?;
    }
    Ok(())
}

fn settle(auxiliaries: &mut Auxiliaries, share: &Share, decoder: &Decoder) -> Result<Settled, Stop> {
    let settled = auxiliaries.settle(&share.world, decoder.device())?;
    match &settled.doubt {
        Some(doubt) if doubt.is_fatal => Err(Stop::Doubt(doubt.clone())),
        _ => Ok(settled),
    }
}

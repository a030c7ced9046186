//! One optimiser step: every micro-batch forward and backward, the auxiliary loss over all of them, one update.

use std::time::Instant;

use model::ops::{CrossEntropy, Gradients, Tape, Targets, cross_entropy};
use model::optimiser::{AdamW, gradient_norm};
use model::{Batch, DType, Point, Site, Taps, Tensor};
use serde::Serialize;

use crate::aux::{Auxiliary, Doubt, Rows};
use crate::data::Sample;
use crate::learner::Learner;

/// Some sequences packed without padding, with the rows that the losses look at.
pub struct Micro {
    pub batch: Batch,
    /// Rows that predict, and what.
    loss_rows: Vec<u32>,
    targets: Vec<u32>,
    aux_rows: Vec<u32>,
}

impl Micro {
    pub fn pack(samples: &[&Sample], rows: Rows) -> Self {
        let ids: Vec<&[u32]> = samples.iter().map(|sample| sample.token_ids.as_slice()).collect();
        let mut micro = Self {
            batch: Batch::pack(&ids),
            loss_rows: Vec::new(),
            targets: Vec::new(),
            aux_rows: Vec::new(),
        };
        let mut start = 0;
        for sample in samples {
            let length = sample.token_ids.len();
            for at in 0..length {
                let row = (start + at) as u32;
                if at > 0 && sample.learned[at] {
                    micro.loss_rows.push(row - 1);
                    micro.targets.push(sample.token_ids[at]);
                }
                let is_row = match rows {
                    Rows::All => true,
                    Rows::Last => at + 1 == length,
                    Rows::Completion => sample.learned[at],
                };
                if is_row {
                    micro.aux_rows.push(row);
                }
            }
            start += length;
        }
        micro
    }

    pub fn loss_token_count(&self) -> usize {
        self.targets.len()
    }

    #[cfg(test)]
    pub fn aux_row_count(&self) -> usize {
        self.aux_rows.len()
    }
}

/// Where a step's time went, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Phases {
    pub forward: f64,
    /// The vocabulary product, there and back.
    pub loss: f64,
    pub backward: f64,
    /// The auxiliary loss: statistics and gradients, and the first pass that several micro-batches need.
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
    pub aux_loss: f64,
    pub loss_token_count: u64,
    pub token_count: u64,
    pub grad_norm: f64,
    pub attn_logit_max: Option<f64>,
    pub lse_mean: f64,
    pub doubt: Option<Doubt>,
}

/// Why a step did not happen.
#[derive(Debug)]
pub enum Stop {
    /// A loss or gradient norm that is not a number; nothing was changed.
    NotFinite(String),
    /// The auxiliary loss cannot be computed.
    Doubt(Doubt),
    Failed(model::Error),
}

impl<E: Into<model::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Computes all gradients of a step, and leaves them in `gradients`.
pub fn gradients_of(
    learner: &Learner,
    aux: &mut dyn Auxiliary,
    micros: &[Micro],
    step: u64,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Found, Stop> {
    gradients.clear();
    aux.begin(step);
    let loss_token_count: usize = micros.iter().map(Micro::loss_token_count).sum();
    let mut found = Found {
        loss_token_count: loss_token_count as u64,
        token_count: micros.iter().map(|micro| micro.batch.row_count() as u64).sum(),
        ..Found::default()
    };
    let layers = aux.layers().to_vec();
    // with several micro-batches the statistics must be known before the first gradient
    let start = Instant::now();
    let twice = micros.len() > 1 && aux.is_active();
    if twice {
        let depth = layers.last().map_or(0, |layer| layer + 1);
        for micro in micros {
            let mut taps = taps(&layers);
            learner
                .decoder
                .residual(&learner.plain_tape(), &micro.batch, depth, &mut taps, None)?;
            observe(aux, &layers, &taps, micro)?;
        }
        settle(aux, &mut found)?;
    }
    found.phases.aux += start.elapsed().as_secs_f64();
    let (mut nats, mut lse) = (0.0, 0.0);
    let mut phases = found.phases;
    for micro in micros {
        let mut taps = taps(&layers);
        let tape = learner.tape().with_checkpoints(recompute).observing(true);
        let hidden = timed(&mut phases.forward, || {
            learner.decoder.forward(&tape, &micro.batch, &mut taps, None)
        })?;
        if let Some(max) = tape.attention_logit_max() {
            let max = f64::from(max);
            found.attn_logit_max = Some(found.attn_logit_max.map_or(max, |known: f64| known.max(max)));
        }
        let start = Instant::now();
        if !twice {
            observe(aux, &layers, &taps, micro)?;
            if micros.len() == 1 {
                settle(aux, &mut found)?;
            }
        }
        phases.aux += start.elapsed().as_secs_f64();
        let weight = 1.0 / loss_token_count as f64;
        let entropy = timed(&mut phases.loss, || {
            entropy(learner, &tape, &hidden, micro, weight, Some(&mut *gradients))
        })?;
        nats += sum(&entropy.row_nats);
        lse += sum(&entropy.row_lse);
        if !nats.is_finite() {
            return Err(Stop::NotFinite(format!("the loss is {nats}")));
        }
        let mut seeds = Vec::with_capacity(layers.len() + 1);
        seeds.extend(entropy.hidden_gradient.map(|gradient| (hidden, gradient)));
        let start = Instant::now();
        if aux.is_active() {
            for &layer in &layers {
                let Some(value) = taps.get(Point::new(Site::ResidPost, layer)) else {
                    continue;
                };
                if !tape.tracks(value) {
                    continue;
                }
                let index = Tensor::from_slice(&micro.aux_rows, micro.aux_rows.len(), value.device())?;
                let rows = value.to_dtype(DType::F32)?.index_select(&index, 0)?;
                if let Some(gradient) = aux.gradient(layer, &rows)? {
                    let zeros = Tensor::zeros(value.shape(), DType::F32, value.device())?;
                    let spread = zeros.index_add(&index, &gradient, 0)?.to_dtype(value.dtype())?;
                    seeds.push((value.clone(), spread));
                }
            }
        }
        phases.aux += start.elapsed().as_secs_f64();
        drop(taps);
        timed(&mut phases.backward, || tape.backward(seeds, gradients))?;
    }
    found.phases = phases;
    if micros.len() > 1 && !twice {
        settle(aux, &mut found)?;
    }
    found.loss = nats / loss_token_count as f64;
    found.lse_mean = lse / loss_token_count as f64;
    found.grad_norm = gradient_norm(&learner.tensors(), gradients)?;
    if !(found.grad_norm.is_finite() && found.aux_loss.is_finite()) {
        return Err(Stop::NotFinite(format!("the gradient norm is {}", found.grad_norm)));
    }
    Ok(found)
}

/// A whole step.
#[allow(clippy::too_many_arguments)]
pub fn advance(
    learner: &Learner,
    optimiser: &mut AdamW,
    aux: &mut dyn Auxiliary,
    micros: &[Micro],
    step: u64,
    lr: f64,
    clip: f64,
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<Found, Stop> {
    let mut found = gradients_of(learner, aux, micros, step, recompute, gradients)?;
    let factor = if clip > 0.0 && found.grad_norm > clip {
        clip / (found.grad_norm + 1e-6)
    } else {
        1.0
    };
    timed(&mut found.phases.update, || {
        optimiser.update(&learner.tensors(), gradients, lr, factor)
    })?;
    Ok(found)
}

/// The loss of samples, forward only: the sum of nats and the number of predictions.
pub fn evaluate(learner: &Learner, samples: &[&Sample]) -> Result<(f64, u64), model::Error> {
    let micro = Micro::pack(samples, Rows::Last);
    let tape = learner.plain_tape();
    let hidden = learner.decoder.forward(&tape, &micro.batch, &mut (), None)?;
    let entropy = entropy(learner, &tape, &hidden, &micro, 1.0, None)?;
    Ok((sum(&entropy.row_nats), micro.loss_token_count() as u64))
}

fn entropy(
    learner: &Learner,
    tape: &Tape,
    hidden: &Tensor,
    micro: &Micro,
    weight: f64,
    gradients: Option<&mut Gradients>,
) -> Result<CrossEntropy, model::Error> {
    let targets = Targets {
        rows: &micro.loss_rows,
        token_ids: &micro.targets,
        weight,
    };
    let softcap = learner.decoder.config().logit_softcap;
    Ok(cross_entropy(
        tape,
        hidden,
        learner.decoder.head(),
        softcap,
        targets,
        gradients,
    )?)
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum()
}

fn taps(layers: &[usize]) -> Taps {
    Taps::new(layers.iter().map(|&layer| Point::new(Site::ResidPost, layer)))
}

fn observe(aux: &mut dyn Auxiliary, layers: &[usize], taps: &Taps, micro: &Micro) -> Result<(), Stop> {
    for &layer in layers {
        if let Some(value) = taps.get(Point::new(Site::ResidPost, layer)) {
            let index = Tensor::from_slice(&micro.aux_rows, micro.aux_rows.len(), value.device())?;
            aux.observe(layer, &value.to_dtype(DType::F32)?.index_select(&index, 0)?)?;
        }
    }
    Ok(())
}

fn settle(aux: &mut dyn Auxiliary, found: &mut Found) -> Result<(), Stop> {
    found.aux_loss = aux.settle()?;
    found.doubt = aux.doubt();
    match &found.doubt {
        Some(doubt) if doubt.is_fatal => Err(Stop::Doubt(doubt.clone())),
        _ => Ok(()),
    }
}

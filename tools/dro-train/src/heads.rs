//! Linear heads on the leading components: trained on folds, and averaged.

use model::ops::{Gradients, Learning};
use model::optimiser::{AdamW, AdamWOptions};
use model::{Device, Tape, Tensor};
use numerics::rng::Rng;

use crate::space::{COMPONENT_COUNT, Place};

const FOLD_COUNT: usize = 10;
const EPOCH_COUNT_MAX: u64 = 10_000;
/// A fold stops when its held-out loss has not fallen by so much for so many epochs.
const FALL_MIN: f64 = 1e-4;
const PATIENCE: u64 = 3;
const WEIGHT_DECAY: f64 = 0.01;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Head {
    pub weights: Place,
    pub bias: f64,
}

/// How one fold went.
pub struct Fold {
    pub head: Head,
    pub epochs: u64,
    pub held_out_loss: f64,
}

impl Head {
    /// The logit at a place.
    pub fn logit(&self, place: &Place) -> f64 {
        self.slope(place) + self.bias
    }

    /// How far the logit moves with a difference of places.
    pub fn slope(&self, difference: &Place) -> f64 {
        self.weights.iter().zip(difference).map(|(w, x)| w * x).sum()
    }

    /// The mean over folds.
    pub fn mean(folds: &[Fold]) -> Head {
        let share = 1.0 / folds.len() as f64;
        let mut mean = Head::default();
        for fold in folds {
            mean.bias += share * fold.head.bias;
            let pairs = mean.weights.iter_mut().zip(fold.head.weights);
            pairs.for_each(|(mean, weight)| *mean += share * weight);
        }
        mean
    }
}

pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Binary cross-entropy of a logit, in nats.
pub fn bce(logit: f64, target: f64) -> f64 {
    logit.max(0.0) - logit * target + (-logit.abs()).exp().ln_1p()
}

/// The head that tells `targets` from places, fold by fold. `purpose` keeps the draws of two heads apart.
pub fn folds(places: &[Place], targets: &[f64], lr: f64, (seed, purpose): (u64, &str)) -> model::Result<Vec<Fold>> {
    let rng = Rng::new(seed, "folds of heads");
    let mut order: Vec<usize> = (0..places.len()).collect();
    rng.shuffle(0, &mut order);
    let count = FOLD_COUNT.min(places.len());
    let rows: Vec<(Place, f64)> = order.iter().map(|&at| (places[at], targets[at])).collect();
    (0..count)
        .map(|fold| {
            let part = |is_held_out: bool| -> Vec<(Place, f64)> {
                let rows = rows.iter().enumerate();
                rows.filter(|(at, _)| (at % count == fold) == is_held_out)
                    .map(|(_, row)| *row)
                    .collect()
            };
            train(&part(false), &part(true), lr, &start(seed, purpose, fold as u64))
        })
        .collect()
}

/// Uniform within ±1/√inputs, as linear layers commonly begin.
fn start(seed: u64, purpose: &str, fold: u64) -> Vec<f32> {
    let rng = Rng::new(seed, purpose);
    let bound = 1.0 / (COMPONENT_COUNT as f64).sqrt();
    (0..=COMPONENT_COUNT as u64)
        .map(|at| ((2.0 * rng.uniform(fold, at) - 1.0) * bound) as f32)
        .collect()
}

fn train(rows: &[(Place, f64)], held_out: &[(Place, f64)], lr: f64, start: &[f32]) -> model::Result<Fold> {
    // one matrix, so that the bias decays with the weights
    let parameter = Tensor::from_slice(start, (1, start.len()), &Device::Cpu)?;
    let options = AdamWOptions {
        weight_decay: WEIGHT_DECAY,
        ..AdamWOptions::default()
    };
    let parameters = [parameter.clone()];
    let mut optimiser = AdamW::new(&parameters, options)?;
    let mut gradients = Gradients::default();
    let (mut best, mut waited, mut epochs) = (f64::INFINITY, 0, 0);
    loop {
        let head = head_of(&parameter)?;
        let held_out_loss = loss(&head, held_out);
        match held_out_loss < best - FALL_MIN {
            true => (best, waited) = (held_out_loss, 0),
            false => waited += 1,
        }
        if waited == PATIENCE || epochs == EPOCH_COUNT_MAX {
            return Ok(Fold {
                head,
                epochs,
                held_out_loss,
            });
        }
        gradients.clear();
        let gradient = Tensor::from_slice(&gradient(&head, rows), (1, start.len()), &Device::Cpu)?;
        let tape = Tape::recording(std::rc::Rc::new(Learning::of([&parameter])));
        tape.backward(vec![(parameter.clone(), gradient)], &mut gradients)?;
        optimiser.update(&parameters, &gradients, lr, 1.0)?;
        epochs += 1;
    }
}

fn head_of(parameter: &Tensor) -> model::Result<Head> {
    let values: Vec<f32> = parameter.flatten_all()?.to_vec1()?;
    Ok(Head {
        weights: std::array::from_fn(|at| f64::from(values[at])),
        bias: f64::from(values[COMPONENT_COUNT]),
    })
}

fn loss(head: &Head, rows: &[(Place, f64)]) -> f64 {
    rows.iter()
        .map(|(place, target)| bce(head.logit(place), *target))
        .sum::<f64>()
        / rows.len() as f64
}

/// Of the mean loss: the weights', then the bias's.
fn gradient(head: &Head, rows: &[(Place, f64)]) -> Vec<f32> {
    let mut sums = [0.0; COMPONENT_COUNT + 1];
    for (place, target) in rows {
        let pull = sigmoid(head.logit(place)) - target;
        let inputs = place.iter().chain(std::iter::once(&1.0));
        sums.iter_mut().zip(inputs).for_each(|(sum, x)| *sum += pull * x);
    }
    sums.iter().map(|sum| (sum / rows.len() as f64) as f32).collect()
}

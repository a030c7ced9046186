//! What the soft prompt is trained for: where states go along both heads, and how little they move elsewhere.

use serde::Serialize;

use crate::heads::{Head, bce, sigmoid};
use crate::prompts::Kind;
use crate::space::{COMPONENT_COUNT, Place, Space};

/// What each part of the loss counts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Weights {
    pub refusal: f64,
    pub harmfulness: f64,
    pub distance: f64,
}

/// The parts of the loss, unweighted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    pub refusal: f64,
    pub harmfulness: f64,
    pub distance: f64,
}

impl Parts {
    pub fn total(&self, weights: &Weights) -> f64 {
        weights.refusal * self.refusal + weights.harmfulness * self.harmfulness + weights.distance * self.distance
    }

    pub fn add(&mut self, other: &Parts, share: f64) {
        self.refusal += share * other.refusal;
        self.harmfulness += share * other.harmfulness;
        self.distance += share * other.distance;
    }
}

pub struct Objective {
    pub space: Space,
    pub refusal: Head,
    pub harmfulness: Head,
    pub weights: Weights,
}

impl Objective {
    /// The loss of one state against the one with the written message, and its gradient. A head's bias and the mean cancel; of all other
    /// directions only the length counts, so that none need be named.
    pub fn of(&self, state: &[f64], start: &[f64], kind: Kind) -> (Parts, Vec<f64>) {
        let target = f64::from(kind == Kind::Harmless);
        let difference: Vec<f64> = state.iter().zip(start).map(|(now, then)| now - then).collect();
        let along = self.space.along(&difference);
        let (z_refusal, z_harmfulness) = (self.refusal.slope(&along), self.harmfulness.slope(&along));
        let inside = self.space.vector(&along);
        let outside: Vec<f64> = difference
            .iter()
            .zip(&inside)
            .map(|(all, inside)| all - inside)
            .collect();
        let others = (state.len() - COMPONENT_COUNT) as f64;
        let parts = Parts {
            refusal: bce(z_refusal, target),
            harmfulness: bce(z_harmfulness, target),
            distance: outside.iter().map(|x| x * x).sum::<f64>() / others,
        };
        let pull: Place = std::array::from_fn(|at| {
            self.weights.refusal * (sigmoid(z_refusal) - target) * self.refusal.weights[at]
                + self.weights.harmfulness * (sigmoid(z_harmfulness) - target) * self.harmfulness.weights[at]
        });
        let mut gradient = self.space.vector(&pull);
        for (gradient, outside) in gradient.iter_mut().zip(&outside) {
            *gradient += self.weights.distance * 2.0 * outside / others;
        }
        (parts, gradient)
    }
}

/// What the heads say of a state: the probability that it is refused, and that it is harmful.
pub struct Sides {
    pub refusal: f64,
    pub harmfulness: f64,
}

pub fn sides(objective: &Objective, state: &[f64]) -> Sides {
    let place = objective.space.place(state);
    Sides {
        refusal: 1.0 - sigmoid(objective.refusal.logit(&place)),
        harmfulness: 1.0 - sigmoid(objective.harmfulness.logit(&place)),
    }
}

//! What training lowers, beside the auxiliary losses: supervised now, and room for others.

use candle_core::Result;
use model::ops::{Gradients, Tape, Targets, cross_entropy};
use model::{Decoder, Tensor};

use crate::micro::Micro;

/// A loss of whole samples. One that compares sequences finds a sample's side by side in its micro-batch; one that needs a
/// reference's log-probabilities computes them when it is made, from the model before its first step, and keeps them by sample.
pub trait Objective {
    /// What the loss is a mean over: so many tokens, or samples.
    fn unit_count(&self, micro: &Micro) -> usize;

    /// The sum over the units of a micro-batch. With `gradients`, the way back of `weight` times that sum runs as far as the hidden
    /// state: what the vocabulary product learns is added there.
    fn score(&self, pass: &Pass<'_, '_>, weight: f64, gradients: Option<&mut Gradients>) -> Result<Score>;
}

/// A forward pass that was made.
pub struct Pass<'a, 'm> {
    pub decoder: &'a Decoder,
    pub tape: &'a Tape<'m>,
    pub micro: &'a Micro<'a>,
    /// After the final norm, (rows, d).
    pub hidden: &'a Tensor,
}

pub struct Score {
    pub loss_sum: f64,
    /// Of the log-sum-exp of every predicting row's logits.
    pub lse_sum: f64,
    /// With respect to the hidden state, when gradients were asked for.
    pub hidden_gradient: Option<Tensor>,
}

/// The negative log-likelihood of every learned token, in nats.
pub struct Supervised;

impl Objective for Supervised {
    fn unit_count(&self, micro: &Micro) -> usize {
        micro.targets.len()
    }

    fn score(&self, pass: &Pass<'_, '_>, weight: f64, gradients: Option<&mut Gradients>) -> Result<Score> {
        let targets = Targets {
            rows: &pass.micro.loss_rows,
            token_ids: &pass.micro.targets,
            weight,
        };
        let found = cross_entropy(pass.tape, pass.hidden, pass.decoder.head()?, targets, gradients)?;
        Ok(Score {
            loss_sum: sum(&found.row_nats),
            lse_sum: sum(&found.row_lse),
            hidden_gradient: found.hidden_gradient,
        })
    }
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum()
}

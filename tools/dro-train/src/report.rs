//! The rows that dro-train alone writes.

use serde::{Deserialize, Serialize};

use crate::anchors::Anchor;
use crate::heads::Fold;
use crate::objective::{Objective, sides};
use crate::prompts::Kind;
use crate::trainer::Taken;

/// A question under one system message, and the share of its answers that comply.
#[derive(Serialize)]
#[serde(tag = "type", rename = "anchor")]
pub struct AnchorRow<'a> {
    pub id: &'a str,
    pub bench: &'a str,
    pub label: &'static str,
    pub answer_count: usize,
    pub kept_count: usize,
    pub target: f64,
}

impl<'a> AnchorRow<'a> {
    pub fn of(anchor: &'a Anchor) -> Self {
        Self {
            id: &anchor.prompt.id,
            bench: anchor.prompt.bench.as_deref().unwrap_or_default(),
            label: anchor.kind.label(),
            answer_count: anchor.answer_count,
            kept_count: anchor.kept_count,
            target: anchor.target,
        }
    }
}

/// The components that carry the heads.
#[derive(Serialize)]
#[serde(tag = "type", rename = "anchor_space")]
pub struct SpaceRow {
    pub row_count: usize,
    /// Shares of the variance.
    pub evr: Vec<f64>,
}

/// A head on one fold.
#[derive(Serialize)]
#[serde(tag = "type", rename = "head")]
pub struct HeadRow {
    pub head: &'static str,
    pub fold: usize,
    pub epochs: u64,
    /// Cross-entropy, nats.
    pub held_out_loss: f64,
    pub weights: Vec<f64>,
    pub bias: f64,
}

impl HeadRow {
    pub fn of(head: &'static str, fold: usize, found: &Fold) -> Self {
        Self {
            head,
            fold,
            epochs: found.epochs,
            held_out_loss: found.held_out_loss,
            weights: found.head.weights.to_vec(),
            bias: found.head.bias,
        }
    }
}

/// A step of the soft prompt; its losses are those before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "dro_step")]
pub struct StepRow {
    /// From 1.
    pub step: u64,
    pub loss_total: f64,
    pub loss_refusal: f64,
    pub loss_harmfulness: f64,
    pub loss_distance: f64,
    pub grad_norm: f64,
}

impl StepRow {
    pub fn of(step: u64, taken: &Taken, objective: &Objective) -> Self {
        Self {
            step,
            loss_total: taken.parts.total(&objective.weights),
            loss_refusal: taken.parts.refusal,
            loss_harmfulness: taken.parts.harmfulness,
            loss_distance: taken.parts.distance,
            grad_norm: taken.gradient_norm,
        }
    }
}

/// What both heads say of the questions of a kind, with the written message and with the soft prompt: means of probabilities.
#[derive(Serialize)]
#[serde(tag = "type", rename = "shift")]
pub struct ShiftRow {
    pub label: &'static str,
    pub count: usize,
    pub refusal_before: f64,
    pub refusal_after: f64,
    pub harmfulness_before: f64,
    pub harmfulness_after: f64,
}

impl ShiftRow {
    /// Of pairs of states.
    pub fn of(kind: Kind, pairs: &[(&[f64], &[f64])], objective: &Objective) -> Self {
        let sides_of: Vec<_> = pairs
            .iter()
            .map(|(before, after)| [sides(objective, before), sides(objective, after)])
            .collect();
        let count = pairs.len() as f64;
        let refusal = |at: usize| sides_of.iter().map(|sides| sides[at].refusal).sum::<f64>() / count;
        let harmfulness = |at: usize| sides_of.iter().map(|sides| sides[at].harmfulness).sum::<f64>() / count;
        Self {
            label: kind.label(),
            count: pairs.len(),
            refusal_before: refusal(0),
            refusal_after: refusal(1),
            harmfulness_before: harmfulness(0),
            harmfulness_after: harmfulness(1),
        }
    }
}

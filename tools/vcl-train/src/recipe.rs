//! Published settings under a name, so that a run states what it follows.

use clap::ValueEnum;
use serde::Serialize;

use crate::schedule::ScheduleName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Recipe {
    /// Open-instruct's Tülu 3 fine-tuning, all weights: rate 5e-6 linear, warm-up 0.03, 2 epochs, batch 128, length 4096.
    #[value(name = "tulu3-1b")]
    #[serde(rename = "tulu3-1b")]
    Tulu3Small,
    /// The same schedule and batch on adapters of rank 64: what an 8 B model needs to fit one card.
    #[value(name = "tulu3-8b")]
    #[serde(rename = "tulu3-8b")]
    Tulu3Large,
}

/// Every setting that a recipe or a flag may decide.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    pub lora: Option<Lora>,
    pub batch_size: usize,
    pub micro_batch: usize,
    /// Neighbouring parts of the batch whose gradients are added as a balanced tree.
    #[serde(skip_serializing_if = "is_one")]
    pub slots: usize,
    pub epochs: f64,
    pub lr: f64,
    pub schedule: ScheduleName,
    pub warmup: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub clip: f64,
    pub max_length: usize,
}

fn is_one(slots: &usize) -> bool {
    *slots == 1
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lora {
    pub rank: usize,
    pub alpha: f64,
    /// None: every matrix of every block.
    pub targets: Option<Vec<String>>,
}

impl Settings {
    /// What a recipe says, or the defaults.
    pub fn of(recipe: Option<Recipe>) -> Self {
        match recipe {
            None => Self {
                epochs: 1.0,
                batch_size: 8,
                micro_batch: 8,
                max_length: 2048,
                lr: 2e-5,
                ..Self::tulu3()
            },
            Some(_) => Self::tulu3(),
        }
    }

    fn tulu3() -> Self {
        Self {
            lora: None,
            batch_size: 128,
            micro_batch: 128,
            slots: 1,
            epochs: 2.0,
            lr: 5e-6,
            schedule: ScheduleName::Linear,
            warmup: 0.03,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            clip: 1.0,
            max_length: 4096,
        }
    }
}

//! How much a run will do, and how much memory it will take.

use model::DType;
use model::config::Config;
use serde::Serialize;

use crate::learner::is_in_block;
use crate::order;
use crate::recipe::Settings;
use crate::sample::Sample;

#[derive(Clone, Debug, Serialize)]
pub struct Work {
    pub sample_count: usize,
    pub steps: u64,
    /// Over all steps.
    pub token_count: u64,
    pub loss_token_count: u64,
    pub aux_layers: Vec<usize>,
    pub trained_parameter_count: u64,
    /// On one rank.
    pub memory_bytes: u64,
    /// On each rank, for every number of ranks that the slots allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<OfRanks>,
}

impl Work {
    pub fn memory_bytes_on(&self, rank_count: usize) -> u64 {
        let of = self.ranks.iter().find(|of| of.rank_count == rank_count);
        of.map_or(self.memory_bytes, |of| of.memory_bytes)
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct OfRanks {
    pub rank_count: usize,
    pub memory_bytes: u64,
    /// By each rank in a step: gradients there, weights back.
    pub sent_bytes_per_step: u64,
}

/// The tokens of all steps.
#[derive(Default)]
pub struct Tokens {
    pub count: u64,
    pub loss_count: u64,
    pub micro_batch_max: u64,
}

impl Tokens {
    pub fn count(samples: &[Sample], settings: &Settings, seed: u64, steps: u64) -> Self {
        let mut tokens = Self::default();
        for step in 1..=steps {
            let batch = order::batch(seed, samples.len(), settings.batch_size, step);
            for micro in order::slots(&batch, settings.slots).flat_map(|slot| slot.chunks(settings.micro_batch)) {
                let of_micro = |count: fn(&Sample) -> usize| -> u64 {
                    micro.iter().map(|&index| count(&samples[index]) as u64).sum()
                };
                let count = of_micro(Sample::token_count);
                tokens.count += count;
                tokens.loss_count += of_micro(Sample::loss_token_count);
                tokens.micro_batch_max = tokens.micro_batch_max.max(count);
            }
        }
        tokens
    }
}

/// Parameters that learn: all, or the factors of the adapters.
pub fn trained_count(config: &Config, settings: &Settings) -> u64 {
    let Some(lora) = &settings.lora else {
        return config.parameter_count();
    };
    let is_target = |name: &str| {
        let module = name.trim_end_matches(".weight").rsplit('.').next().unwrap_or_default();
        let targets = lora.targets.as_ref();
        targets.is_none_or(|targets| targets.iter().any(|target| target == module))
    };
    let adapted = config.parameters().into_iter();
    let adapted = adapted.filter(|(name, shape)| shape.len() == 2 && is_in_block(name) && is_target(name));
    adapted
        .map(|(_, shape)| (lora.rank * (shape[0] + shape[1])) as u64)
        .sum()
}

impl OfRanks {
    /// For every number of ranks; none where there is one slot.
    pub fn all(settings: &Settings, memory: &Memory) -> Vec<Self> {
        let counts = (0..=settings.slots.ilog2()).map(|level| 1 << level);
        let of = |rank_count: usize| Self {
            rank_count,
            memory_bytes: memory.bytes(rank_count),
            sent_bytes_per_step: memory.sent_bytes(rank_count),
        };
        counts.map(of).filter(|_| settings.slots > 1).collect()
    }
}

/// What a rank needs at the peak.
pub struct Memory {
    /// Weights, activations of one micro-batch, one chunk of logits.
    fixed: u64,
    trained: u64,
    dtype: DType,
    slots: usize,
}

impl Memory {
    /// Where a micro-batch has at most `tokens`.
    pub fn new(config: &Config, settings: &Settings, dtype: DType, tokens: u64, recompute: bool) -> Self {
        Self {
            fixed: fixed_bytes(config, settings, dtype, tokens, recompute),
            trained: trained_count(config, settings),
            dtype,
            slots: settings.slots,
        }
    }

    /// On each of so many ranks: gradients of slots that wait to be added, and a share of the optimiser's state.
    pub fn bytes(&self, rank_count: usize) -> u64 {
        let gradients = 1 + u64::from((self.slots / rank_count).ilog2());
        let state = model::optimiser::AdamW::bytes_per_element(self.dtype);
        self.fixed + self.trained * 4 * gradients + self.trained * state / rank_count as u64
    }

    fn sent_bytes(&self, rank_count: usize) -> u64 {
        let width = 4 + self.dtype.size_in_bytes() as u64;
        self.trained * width * (rank_count as u64 - 1) / rank_count as u64
    }
}

fn fixed_bytes(config: &Config, settings: &Settings, dtype: DType, tokens: u64, recompute: bool) -> u64 {
    let width = dtype.size_in_bytes() as u64;
    let (d, heads) = (
        config.hidden_size as u64,
        (config.query_size() + 2 * config.kv_size()) as u64,
    );
    let mlp = config.hidden_width() as u64 * if config.gated() { 3 } else { 2 };
    // what one block keeps for its way back: input, norms, q k v before and after rope, attention, middle, MLP
    let block = tokens * width * (5 * d + 2 * heads + mlp);
    let layers = config.layer_count() as u64;
    let blocks = if recompute {
        layers * tokens * width * d + block
    } else {
        layers * block
    };
    let logits = 64 << 20;
    let factors = settings
        .lora
        .as_ref()
        .map_or(0, |_| trained_count(config, settings) * width);
    config.parameter_count() * width + factors + blocks + logits
}

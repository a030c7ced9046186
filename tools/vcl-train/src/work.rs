//! How much a run will do, and how much memory it will take.

use model::DType;
use model::config::Config;
use serde::Serialize;

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
    pub memory_bytes: u64,
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
            for micro in batch.chunks(settings.micro_batch) {
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
    let in_block = |name: &str| name.split('.').any(|part| part.parse::<u32>().is_ok());
    let is_target = |name: &str| {
        let module = name.trim_end_matches(".weight").rsplit('.').next().unwrap_or_default();
        let targets = lora.targets.as_ref();
        targets.is_none_or(|targets| targets.iter().any(|target| target == module))
    };
    let adapted = config.parameters().into_iter();
    let adapted = adapted.filter(|(name, shape)| shape.len() == 2 && in_block(name) && is_target(name));
    adapted
        .map(|(_, shape)| (lora.rank * (shape[0] + shape[1])) as u64)
        .sum()
}

/// Bytes needed at the peak: weights, gradients, moments, activations of one micro-batch of `tokens`, one chunk of logits.
pub fn memory_bytes(config: &Config, settings: &Settings, dtype: DType, tokens: u64, recompute: bool) -> u64 {
    let width = dtype.size_in_bytes() as u64;
    let trained = trained_count(config, settings);
    let state = trained * (4 + model::optimiser::AdamW::bytes_per_element(dtype));
    let (d, heads) = (
        config.hidden_size as u64,
        (config.query_size() + 2 * config.kv_size()) as u64,
    );
    let chosen = config.experts.map_or(1, |experts| experts.chosen as u64);
    let mlp = chosen * config.mlp_size as u64 * if config.gated() { 3 } else { 2 };
    // what one block keeps for its way back: input, norms, q k v before and after rope, attention, middle, MLP
    let block = tokens * width * (5 * d + 2 * heads + mlp);
    let layers = config.layer_count() as u64;
    let blocks = if recompute {
        layers * tokens * width * d + block
    } else {
        layers * block
    };
    let logits = 64 << 20;
    let factors = settings.lora.as_ref().map_or(0, |_| trained * width);
    config.parameter_count() * width + factors + state + blocks + logits
}

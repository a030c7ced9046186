//! One description of a decoder, in the same words for every family; `families` reads it from a config.json.

use crate::error::{Error, Result};
use crate::names::{Hidden, Names};
use crate::ops::{Activation, ExpertWeights, RopePairs, Weighed, Window};

/// BOUND: the numbers of a block's experts, which may be one tensor, are multiplied without overflow.
const EXPERTS_MAX: usize = 1 << 48;

/// How a normalisation is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square; `offset` is added to the stored weight (1 for Gemma).
    Rms { offset: f64 },
    /// Mean and variance, with weight and bias.
    Layer,
    /// Mean and variance, without parameters (OLMo).
    Bare,
}

/// What q and k are normalised over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Each head by itself, before rope (Qwen3, Gemma 3).
    Head,
    /// The whole projection, before rope (OLMo 2).
    Full,
    /// Each head by itself, after rope, without a weight; not where there is no rope (Llama 4).
    Turned,
}

/// Rotary positions: frequencies `theta^(-2i/dims)` for i < dims/2, then scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// How many of a head's dimensions rotate.
    pub dims: usize,
    pub scaling: RopeScaling,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_positions: usize,
    },
    /// Only the short factors are computed, so `position_count` is the pretrained length.
    LongRope {
        short_factor: Vec<f64>,
        attention_factor: f64,
    },
    /// Frequencies before `ramp.0` are kept, those after `ramp.1` are slowed by `factor`, those between mixed.
    Yarn {
        factor: f64,
        ramp: (f64, f64),
        attention_factor: f64,
    },
}

/// The MLPs of a block of which each row goes through a few.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    pub count: usize,
    /// How many a row goes through.
    pub chosen: usize,
    pub weights: ExpertWeights,
    pub weighed: Weighed,
    pub router_bias: bool,
    pub gate: Gate,
}

/// How an expert's hidden layer comes of its gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `activation(gate) · up`, as in any gated MLP.
    Plain,
    /// `gate · sigmoid(alpha · gate) · (up + 1)`, both kept within `limit` (gpt-oss).
    Clamped { alpha: f32, limit: f32 },
}

/// How queries grow with their position in layers without rope (Llama 4): by `1 + scale · ln(1 + ⌊(position + 1) / stretch⌋)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryGrowth {
    pub stretch: f32,
    pub scale: f32,
}

impl QueryGrowth {
    pub fn factor(&self, position: u32) -> f32 {
        let passed = ((position as f32 + 1.0) / self.stretch).floor();
        passed.ln_1p() * self.scale + 1.0
    }
}

/// What one block does that another may do otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What attention sees, where that is not everything before.
    pub window: Option<Window>,
    /// Which of the decoder's ropes turns q and k, where any does.
    pub rope: Option<usize>,
    /// The size of the block's one MLP, where others have experts.
    pub dense: Option<usize>,
}

/// One decoder, whatever its family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The `model_type` of config.json.
    pub family: &'static str,
    pub(crate) names: Names,
    pub hidden_size: usize,
    pub head_count: usize,
    pub kv_head_count: usize,
    pub head_dim: usize,
    /// Of one expert, where there are several.
    pub mlp_size: usize,
    pub experts: Option<Experts>,
    pub vocab_size: usize,
    /// The longest sequence.
    pub position_count: usize,
    /// How many rows of the table of learned positions stand before the first position's (OPT).
    pub position_offset: usize,
    pub norm: Norm,
    pub norm_eps: f64,
    pub qk_norm: QkNorm,
    /// Attention and MLP both read the block's input (`use_parallel_residual`); where the MLP has no norm before it, it reads
    /// what attention's norm gives.
    pub parallel: bool,
    pub activation: Activation,
    pub qkv_bias: bool,
    pub attn_out_bias: bool,
    pub mlp_bias: bool,
    /// Scores are multiplied by this.
    pub attn_scale: f64,
    pub attn_softcap: Option<f64>,
    /// Each head's softmax has a learned score more, which mixes no value (gpt-oss).
    pub sinks: bool,
    pub query_growth: Option<QueryGrowth>,
    /// q, k and v are clamped to ±this (OLMo).
    pub qkv_clip: Option<f64>,
    pub logit_softcap: Option<f64>,
    /// Logits are divided by this (Granite).
    pub logit_divisor: Option<f64>,
    pub head_bias: bool,
    /// Embeddings are multiplied by this (Gemma, Granite).
    pub embed_scale: Option<f64>,
    /// What attention and the MLP give is multiplied by this before it is added to the residual (Granite).
    pub residual_scale: Option<f64>,
    pub ropes: Vec<Rope>,
    /// Which dimensions of a head a rope turns together.
    pub rope_pairs: RopePairs,
    pub layers: Vec<Layer>,
    /// The head is the embedding.
    pub tied: bool,
    pub bos: Option<u32>,
    /// Any of these ends a generation.
    pub eos: Vec<u32>,
}

impl Config {
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Width of the concatenated query heads.
    pub fn query_size(&self) -> usize {
        self.head_count * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn kv_size(&self) -> usize {
        self.kv_head_count * self.head_dim
    }

    /// The length of all hidden layers together that a row goes through in one block, in the longest.
    pub fn hidden_width(&self) -> usize {
        let chosen = self.experts.map_or(1, |experts| experts.chosen);
        let shared = usize::from(self.names.shared_expert.is_some());
        let dense = self.layers.iter().filter_map(|layer| layer.dense).max();
        dense.unwrap_or(0).max((chosen + shared) * self.mlp_size)
    }

    /// Whether the MLP multiplies its hidden layer by an activated gate.
    pub fn gated(&self) -> bool {
        !matches!(self.names.hidden, Hidden::Plain(_))
    }

    /// Refuses numbers that do not fit each other.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |cause: String| Err(Error::Config(cause));
        if !self.head_count.is_multiple_of(self.kv_head_count) {
            return refuse(format!(
                "num_attention_heads = {} is not a multiple of num_key_value_heads = {}",
                self.head_count, self.kv_head_count
            ));
        }
        for rope in &self.ropes {
            if rope.dims == 0 || rope.dims % 2 != 0 || rope.dims > self.head_dim {
                return refuse(format!("rope over {} of {} dimensions", rope.dims, self.head_dim));
            }
        }
        if let Some(experts) = self.experts.filter(|experts| experts.chosen > experts.count) {
            return refuse(format!("{} experts are chosen of {}", experts.chosen, experts.count));
        }
        if let Some(Experts { count, .. }) = self.experts {
            let of_all = count.saturating_mul(2 * self.mlp_size).saturating_mul(self.hidden_size);
            if of_all > EXPERTS_MAX {
                return refuse(format!(
                    "{count} experts of {} by {} are more than {EXPERTS_MAX} numbers",
                    self.hidden_size, self.mlp_size
                ));
            }
        }
        for id in self.bos.iter().chain(&self.eos) {
            if *id as usize >= self.vocab_size {
                return refuse(format!("token id {id} is not below vocab_size = {}", self.vocab_size));
            }
        }
        Ok(())
    }
}

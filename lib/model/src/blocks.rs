//! The parts of a decoder block: norms, rotary positions, attention and MLP, the same code for every family.

use std::sync::RwLock;

use candle_core::{Device, Result, Tensor};

use crate::cache::KvCache;
use crate::config::{Config, Family, Norm as NormKind, Placement, QkNorm, Rope, RopeScaling};
use crate::error;
use crate::ops::{self, Activation, Attention as AttentionHow, RopePairs, Tape};
use crate::taps::{Point, Probe, Site};
use crate::weights::Source;

/// A learnable tensor of the decoder, as it is used, and how its file spells it.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name in a checkpoint.
    pub name: String,
    pub tensor: Tensor,
    /// GPT-2 stores its matrices (in, out); the decoder holds them (out, in).
    pub transposed: bool,
}

/// Loads tensors and notes every one that it gave out.
pub(crate) struct Loader<'a> {
    pub source: &'a dyn Source,
    pub parameters: Vec<Parameter>,
}

impl Loader<'_> {
    pub fn get(&mut self, name: &str, shape: &[usize]) -> error::Result<Tensor> {
        let tensor = self.source.tensor(name, shape)?;
        self.parameters.push(Parameter {
            name: name.to_owned(),
            tensor: tensor.clone(),
            transposed: false,
        });
        Ok(tensor)
    }

    fn linear(&mut self, name: &str, (output, input): (usize, usize), bias: bool) -> error::Result<Linear> {
        let weight = self.get(&format!("{name}.weight"), &[output, input])?;
        let bias = if bias {
            Some(self.get(&format!("{name}.bias"), &[output])?)
        } else {
            None
        };
        Ok(Linear { weight, bias })
    }

    /// GPT-2's `Conv1D`: a linear layer whose matrix is stored (in, out).
    fn conv1d(&mut self, name: &str, (output, input): (usize, usize)) -> error::Result<Linear> {
        let name_of_weight = format!("{name}.weight");
        let weight = self
            .source
            .tensor(&name_of_weight, &[input, output])?
            .t()?
            .contiguous()?;
        self.parameters.push(Parameter {
            name: name_of_weight,
            tensor: weight.clone(),
            transposed: true,
        });
        let bias = Some(self.get(&format!("{name}.bias"), &[output])?);
        Ok(Linear { weight, bias })
    }

    pub fn norm(&mut self, name: &str, width: usize, config: &Config) -> error::Result<Norm> {
        let (weight, bias) = match config.norm {
            NormKind::Bare => (None, None),
            NormKind::Rms { .. } => (Some(self.get(&format!("{name}.weight"), &[width])?), None),
            NormKind::Layer => (
                Some(self.get(&format!("{name}.weight"), &[width])?),
                Some(self.get(&format!("{name}.bias"), &[width])?),
            ),
        };
        Ok(Norm {
            kind: config.norm,
            weight,
            bias,
            eps: config.norm_eps,
        })
    }
}

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor, // (out, in)
    bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        ops::linear(tape, x, &self.weight, self.bias.as_ref())
    }
}

#[derive(Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    pub fn forward(&self, tape: &Tape, x: &Tensor) -> Result<Tensor> {
        match (self.kind, &self.weight) {
            (NormKind::Rms { offset }, Some(weight)) => ops::rms_norm(tape, x, weight, self.eps, offset),
            _ => ops::layer_norm(tape, x, self.weight.as_ref(), self.bias.as_ref(), self.eps),
        }
    }
}

/// The cosines and sines of every position so far, grown on demand.
#[derive(Debug)]
pub(crate) struct RopeTable {
    frequencies: Vec<f32>,
    /// Multiplies cosine and sine (LongRope).
    amplitude: f64,
    /// (positions, half) each
    table: RwLock<Option<(Tensor, Tensor)>>,
    device: Device,
}

impl RopeTable {
    pub fn new(rope: &Rope, device: &Device) -> Self {
        // in f32, step by step, as transformers computes them: one unit in the last place of a frequency is 1e-4 of an
        // angle at position 2,000
        let frequency = |index: usize| 1.0 / (rope.theta.powf(2.0 * index as f64 / rope.dims as f64) as f32);
        let mut frequencies: Vec<f32> = (0..rope.dims / 2).map(frequency).collect();
        let mut amplitude = 1.0;
        match &rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= *factor as f32),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => {
                let original = *original_positions as f32;
                let (factor, low, high) = (*factor as f32, *low_freq_factor as f32, *high_freq_factor as f32);
                for frequency in &mut frequencies {
                    let wavelength = 2.0 * std::f32::consts::PI / *frequency;
                    *frequency = if wavelength < original / high {
                        *frequency
                    } else if wavelength > original / low {
                        *frequency / factor
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * *frequency / factor + smooth * *frequency
                    };
                }
            }
            RopeScaling::LongRope {
                short_factor,
                attention_factor,
            } => {
                amplitude = *attention_factor;
                for (index, (frequency, short)) in frequencies.iter_mut().zip(short_factor).enumerate() {
                    let power = rope.theta.powf(2.0 * index as f64 / rope.dims as f64) as f32;
                    *frequency = 1.0 / (*short as f32 * power);
                }
            }
        }
        Self {
            frequencies,
            amplitude,
            table: RwLock::new(None),
            device: device.clone(),
        }
    }

    /// The rows of `positions`: cosine and sine, (rows, half) each, f32.
    pub fn rows(&self, positions: &[u32]) -> Result<(Tensor, Tensor)> {
        let needed = positions.iter().max().map_or(0, |&last| last as usize + 1);
        let held = self
            .table
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let (cos, sin) = match held {
            Some(tables) if tables.0.dim(0)? >= needed => tables,
            _ => {
                let tables = self.compute(needed.next_power_of_two())?;
                *self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(tables.clone());
                tables
            }
        };
        let positions = Tensor::from_slice(positions, positions.len(), &self.device)?;
        Ok((cos.index_select(&positions, 0)?, sin.index_select(&positions, 0)?))
    }

    fn compute(&self, positions: usize) -> Result<(Tensor, Tensor)> {
        let half = self.frequencies.len();
        let angles = (0..positions).flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| {
                let (sin, cos) = f64::from(angle).sin_cos();
                (
                    (cos as f32) * self.amplitude as f32,
                    (sin as f32) * self.amplitude as f32,
                )
            })
            .unzip();
        Ok((
            Tensor::from_vec(cos, (positions, half), &self.device)?,
            Tensor::from_vec(sin, (positions, half), &self.device)?,
        ))
    }
}

/// What all blocks of one forward pass share.
#[derive(Debug)]
pub struct Pass {
    pub(crate) offsets: Vec<usize>,
    /// Cosine and sine per row, of the global rope and of the local one.
    pub(crate) rope: Option<(Tensor, Tensor)>,
    pub(crate) local_rope: Option<(Tensor, Tensor)>,
}

/// How q, k and v come out of the block's input.
#[derive(Debug)]
enum Projection {
    Separate {
        q: Linear,
        k: Linear,
        v: Linear,
    },
    /// One matrix: all of q, then all of k, then all of v.
    Stacked(Linear),
    /// One matrix: per head q, k and v (NeoX).
    PerHead(Linear),
}

#[derive(Debug)]
struct Attention {
    projection: Projection,
    qk_norm: Option<(QkNorm, Norm, Norm)>,
    output: Linear,
    local: bool,
    clip: Option<f64>,
    how: AttentionHow,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    fn load(loader: &mut Loader, names: &Names, layer: usize, config: &Config) -> error::Result<Self> {
        let (d, q_size, kv_size) = (config.hidden_size, config.query_size(), config.kv_size());
        let at = |name: &str| format!("{}.{name}", names.attention);
        let projection = match config.family {
            Family::Gpt2 => Projection::Stacked(loader.conv1d(&at("c_attn"), (3 * d, d))?),
            Family::GptNeoX => {
                Projection::PerHead(loader.linear(&at("query_key_value"), (3 * d, d), config.qkv_bias)?)
            }
            Family::Phi3 => Projection::Stacked(loader.linear(&at("qkv_proj"), (q_size + 2 * kv_size, d), false)?),
            _ => Projection::Separate {
                q: loader.linear(&at("q_proj"), (q_size, d), config.qkv_bias)?,
                k: loader.linear(&at("k_proj"), (kv_size, d), config.qkv_bias)?,
                v: loader.linear(&at("v_proj"), (kv_size, d), config.qkv_bias)?,
            },
        };
        let widths = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some((config.head_dim, config.head_dim)),
            QkNorm::Full => Some((q_size, kv_size)),
        };
        let qk_norm = match widths {
            None => None,
            Some((q, k)) => Some((
                config.qk_norm,
                loader.norm(&at("q_norm"), q, config)?,
                loader.norm(&at("k_norm"), k, config)?,
            )),
        };
        let output = match config.family {
            Family::Gpt2 => loader.conv1d(&at("c_proj"), (d, d))?,
            Family::GptNeoX => loader.linear(&at("dense"), (d, d), config.attn_out_bias)?,
            _ => loader.linear(&at("o_proj"), (d, q_size), config.attn_out_bias)?,
        };
        let window = config.windows[layer];
        Ok(Self {
            projection,
            qk_norm,
            output,
            local: window.is_some() && config.local_rope.is_some(),
            clip: config.qkv_clip,
            how: AttentionHow {
                scale: config.attn_scale as f32,
                softcap: config.attn_softcap.map(|cap| cap as f32),
                window,
            },
            heads: config.head_count,
            kv_heads: config.kv_head_count,
            head_dim: config.head_dim,
        })
    }

    fn forward(
        &self,
        tape: &Tape,
        x: &Tensor, // (rows, hidden)
        pass: &Pass,
        layer: usize,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let split = |t: Tensor, heads: usize| ops::reshape(tape, &t, (rows, heads, head_dim));
        let (mut q, mut k, mut v); // (rows, heads, head_dim), (rows, kv_heads, head_dim) twice
        match &self.projection {
            Projection::Separate { q: wq, k: wk, v: wv } => {
                (q, k, v) = (wq.forward(tape, x)?, wk.forward(tape, x)?, wv.forward(tape, x)?);
                if let Some((QkNorm::Full, q_norm, k_norm)) = &self.qk_norm {
                    (q, k) = (q_norm.forward(tape, &q)?, k_norm.forward(tape, &k)?);
                }
                (q, k, v) = (split(q, heads)?, split(k, kv_heads)?, split(v, kv_heads)?);
            }
            Projection::Stacked(linear) => {
                let all = linear.forward(tape, x)?;
                let (q_size, kv_size) = (heads * head_dim, kv_heads * head_dim);
                q = split(ops::narrow(tape, &all, 1, 0, q_size)?, heads)?;
                k = split(ops::narrow(tape, &all, 1, q_size, kv_size)?, kv_heads)?;
                v = split(ops::narrow(tape, &all, 1, q_size + kv_size, kv_size)?, kv_heads)?;
            }
            Projection::PerHead(linear) => {
                let all = ops::reshape(tape, &linear.forward(tape, x)?, (rows, heads, 3 * head_dim))?;
                q = ops::narrow(tape, &all, 2, 0, head_dim)?;
                k = ops::narrow(tape, &all, 2, head_dim, head_dim)?;
                v = ops::narrow(tape, &all, 2, 2 * head_dim, head_dim)?;
            }
        }
        if let Some(limit) = self.clip {
            (q, k, v) = (
                ops::clamp(tape, &q, limit)?,
                ops::clamp(tape, &k, limit)?,
                ops::clamp(tape, &v, limit)?,
            );
        }
        if let Some((QkNorm::Head, q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(tape, &q)?, k_norm.forward(tape, &k)?);
        }
        let rope = if self.local { &pass.local_rope } else { &pass.rope };
        if let Some((cos, sin)) = rope {
            q = ops::rope(tape, &q, cos, sin, RopePairs::Half)?;
            k = ops::rope(tape, &k, cos, sin, RopePairs::Half)?;
        }
        let mixed = match cache {
            None => ops::attention(tape, &q, &k, &v, &pass.offsets, &self.how)?,
            Some(cache) => {
                let (keys, values) = cache.append(layer, &k, &v, &pass.offsets)?;
                ops::attention_cached(&q, &keys, &values, &pass.offsets, &self.how)?
            }
        };
        self.output
            .forward(tape, &ops::reshape(tape, &mixed, (rows, heads * head_dim))?)
    }
}

#[derive(Debug)]
enum Hidden {
    Gated {
        gate: Linear,
        up: Linear,
    },
    /// One matrix: gate, then up (Phi-3).
    Stacked(Linear),
    Plain(Linear),
}

#[derive(Debug)]
struct Mlp {
    hidden: Hidden,
    down: Linear,
    activation: Activation,
    size: usize,
}

impl Mlp {
    fn load(loader: &mut Loader, names: &Names, config: &Config) -> error::Result<Self> {
        let (d, size, bias) = (config.hidden_size, config.mlp_size, config.mlp_bias);
        let at = |name: &str| format!("{}.{name}", names.mlp);
        let hidden = match config.family {
            Family::Gpt2 => Hidden::Plain(loader.conv1d(&at("c_fc"), (size, d))?),
            Family::GptNeoX => Hidden::Plain(loader.linear(&at("dense_h_to_4h"), (size, d), bias)?),
            Family::Phi3 => Hidden::Stacked(loader.linear(&at("gate_up_proj"), (2 * size, d), bias)?),
            _ => Hidden::Gated {
                gate: loader.linear(&at("gate_proj"), (size, d), bias)?,
                up: loader.linear(&at("up_proj"), (size, d), bias)?,
            },
        };
        let down = match config.family {
            Family::Gpt2 => loader.conv1d(&at("c_proj"), (d, size))?,
            Family::GptNeoX => loader.linear(&at("dense_4h_to_h"), (d, size), bias)?,
            _ => loader.linear(&at("down_proj"), (d, size), bias)?,
        };
        Ok(Self {
            hidden,
            down,
            activation: config.activation,
            size,
        })
    }

    fn forward(&self, tape: &Tape, x: &Tensor, layer: usize, probe: &mut dyn Probe) -> Result<Tensor> {
        let point = Point::new(Site::MlpGate, layer);
        let hidden = match &self.hidden {
            Hidden::Gated { gate, up } => {
                let gate = visit(probe, point, gate.forward(tape, x)?)?;
                ops::gated(tape, &gate, &up.forward(tape, x)?, self.activation)?
            }
            Hidden::Stacked(both) => {
                let both = both.forward(tape, x)?;
                let gate = visit(probe, point, ops::narrow(tape, &both, 1, 0, self.size)?)?;
                ops::gated(
                    tape,
                    &gate,
                    &ops::narrow(tape, &both, 1, self.size, self.size)?,
                    self.activation,
                )?
            }
            Hidden::Plain(up) => ops::activate(tape, &visit(probe, point, up.forward(tape, x)?)?, self.activation)?,
        };
        self.down.forward(tape, &hidden)
    }
}

/// Shows a tensor to a probe that wants it.
pub(crate) fn visit(probe: &mut dyn Probe, point: Point, value: Tensor) -> Result<Tensor> {
    if !probe.wants(point) {
        return Ok(value);
    }
    match probe.visit(point, &value)? {
        None => Ok(value),
        Some(other) if other.shape() == value.shape() && other.dtype() == value.dtype() => Ok(other),
        Some(other) => candle_core::bail!(
            "a probe gave {:?} {:?} in place of {point}, {:?} {:?}",
            other.dtype(),
            other.shape(),
            value.dtype(),
            value.shape()
        ),
    }
}

/// Where a family keeps the tensors of one block.
struct Names {
    attention: String,
    mlp: String,
    /// Before and after attention, before and after the MLP.
    norms: [Option<String>; 4],
}

impl Names {
    fn of(config: &Config, layer: usize) -> Self {
        let (block, attention, norms): (String, &str, [Option<&str>; 4]) = match config.family {
            Family::Gpt2 => (
                format!("transformer.h.{layer}"),
                "attn",
                [Some("ln_1"), None, Some("ln_2"), None],
            ),
            Family::GptNeoX => (
                format!("gpt_neox.layers.{layer}"),
                "attention",
                [Some("input_layernorm"), None, Some("post_attention_layernorm"), None],
            ),
            _ => (
                format!("model.layers.{layer}"),
                "self_attn",
                match config.placement {
                    Placement::Pre => [Some("input_layernorm"), None, Some("post_attention_layernorm"), None],
                    Placement::Post => [
                        None,
                        Some("post_attention_layernorm"),
                        None,
                        Some("post_feedforward_layernorm"),
                    ],
                    Placement::Both => [
                        Some("input_layernorm"),
                        Some("post_attention_layernorm"),
                        Some("pre_feedforward_layernorm"),
                        Some("post_feedforward_layernorm"),
                    ],
                },
            ),
        };
        Self {
            attention: format!("{block}.{attention}"),
            mlp: format!("{block}.mlp"),
            norms: norms.map(|name| name.map(|name| format!("{block}.{name}"))),
        }
    }
}

/// One block of the decoder.
#[derive(Debug)]
pub(crate) struct Block {
    layer: usize,
    attention: Attention,
    mlp: Mlp,
    before_attention: Option<Norm>,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    after_mlp: Option<Norm>,
    parallel: bool,
}

impl Block {
    pub fn load(loader: &mut Loader, layer: usize, config: &Config) -> error::Result<Self> {
        let names = Names::of(config, layer);
        let norm = |index: usize, loader: &mut Loader| {
            names.norms[index]
                .as_ref()
                .map(|name| loader.norm(name, config.hidden_size, config))
                .transpose()
        };
        Ok(Self {
            layer,
            before_attention: norm(0, loader)?,
            after_attention: norm(1, loader)?,
            before_mlp: norm(2, loader)?,
            after_mlp: norm(3, loader)?,
            attention: Attention::load(loader, &names, layer, config)?,
            mlp: Mlp::load(loader, &names, config)?,
            parallel: config.parallel,
        })
    }

    /// The residual (rows, hidden) before the block → after it.
    pub fn forward(
        &self,
        tape: &Tape,
        x: &Tensor,
        pass: &Pass,
        probe: &mut dyn Probe,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let through = |norm: &Option<Norm>, x: &Tensor| match norm {
            Some(norm) => norm.forward(tape, x),
            None => Ok(x.clone()),
        };
        let at = |site| Point::new(site, self.layer);

        let attended = self
            .attention
            .forward(tape, &through(&self.before_attention, x)?, pass, self.layer, cache)?;
        let attended = visit(probe, at(Site::AttnOut), through(&self.after_attention, &attended)?)?;
        if self.parallel {
            let mixed = self
                .mlp
                .forward(tape, &through(&self.before_mlp, x)?, self.layer, probe)?;
            let mixed = visit(probe, at(Site::MlpOut), through(&self.after_mlp, &mixed)?)?;
            return ops::add(tape, &ops::add(tape, &mixed, &attended)?, x);
        }
        let x = visit(probe, at(Site::ResidMid), ops::add(tape, x, &attended)?)?;
        let mixed = self
            .mlp
            .forward(tape, &through(&self.before_mlp, &x)?, self.layer, probe)?;
        let mixed = visit(probe, at(Site::MlpOut), through(&self.after_mlp, &mixed)?)?;
        ops::add(tape, &x, &mixed)
    }
}

//! A block of the decoder: attention and MLP with their norms, the same code for every family.

use candle_core::{Result, Tensor};

use crate::cache::KvCache;
use crate::config::{Config, QkNorm};
use crate::error;
use crate::loader::{Linear, Loader, Norm};
use crate::mixture::Mixture;
use crate::mlp::Mlp;
use crate::names::Qkv;
use crate::ops::{self, Attention as AttentionHow, RopePairs, Tape};
use crate::taps::{Point, Probe, Site, show, visit};

/// What all blocks of one forward pass share.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Where each sequence starts, and the row count.
    pub offsets: Vec<usize>,
    /// Where each row stands in its sequence.
    pub positions: Vec<u32>,
    /// Per rope: cosine and sine of every row.
    pub ropes: Vec<(Tensor, Tensor)>,
    /// (rows, 1, 1): what queries are multiplied by in layers without a rope.
    pub query_factors: Option<Tensor>,
}

#[derive(Debug)]
struct Attention {
    layer: usize,
    qkv: Qkv<Linear>,
    qk_norm: Option<(QkNorm, [Norm; 2])>,
    output: Linear,
    rope: Option<usize>,
    pairs: RopePairs,
    clip: Option<f64>,
    how: AttentionHow,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    fn load(loader: &mut Loader, layer: usize, config: &Config) -> error::Result<Self> {
        let (d, q_size, kv_size, bias) = (
            config.hidden_size,
            config.query_size(),
            config.kv_size(),
            config.qkv_bias,
        );
        let names = &config.names;
        let at = |part: &str| names.in_block(layer, part);
        let qkv = match names.qkv {
            Qkv::Separate { q, k, v } => Qkv::Separate {
                q: loader.linear(&at(q), (q_size, d), bias)?,
                k: loader.linear(&at(k), (kv_size, d), bias)?,
                v: loader.linear(&at(v), (kv_size, d), bias)?,
            },
            Qkv::Stacked(all) => Qkv::Stacked(loader.linear(&at(all), (q_size + 2 * kv_size, d), bias)?),
            Qkv::ByGroup(all) => Qkv::ByGroup(loader.linear(&at(all), (q_size + 2 * kv_size, d), bias)?),
        };
        let rope = config.layers[layer].rope;
        let mut learned =
            |q, k| Ok::<_, error::Error>([loader.norm(&at(names.q_norm), q)?, loader.norm(&at(names.k_norm), k)?]);
        let norms = match config.qk_norm {
            QkNorm::Head => Some(learned(config.head_dim, config.head_dim)?),
            QkNorm::Full => Some(learned(q_size, kv_size)?),
            QkNorm::Turned if rope.is_some() => Some([(); 2].map(|()| Norm::bare_rms(config.norm_eps))),
            QkNorm::None | QkNorm::Turned => None,
        };
        let sinks = config
            .sinks
            .then(|| loader.get(at(names.sinks), &[config.head_count]))
            .transpose()?;
        Ok(Self {
            layer,
            qkv,
            qk_norm: norms.map(|norms| (config.qk_norm, norms)),
            output: loader.linear(&at(names.attn_out), (d, q_size), config.attn_out_bias)?,
            rope,
            pairs: config.rope_pairs,
            clip: config.qkv_clip,
            how: AttentionHow {
                scale: config.attn_scale as f32,
                softcap: config.attn_softcap.map(|cap| cap as f32),
                window: config.layers[layer].window,
                sinks,
            },
            heads: config.head_count,
            kv_heads: config.kv_head_count,
            head_dim: config.head_dim,
        })
    }

    fn forward(
        &self,
        tape: &Tape,
        x: &Tensor,
        pass: &Pass,
        probe: &mut dyn Probe,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let [q, k, v] = self.attended(tape, x, pass, probe)?;
        let mixed = match cache {
            None => {
                let keys = || of_sequences(&k, &pass.offsets);
                self.show_scores(&q, keys, pass, probe)?;
                ops::attention(tape, &q, &k, &v, &pass.offsets, &self.how)?
            }
            Some(cache) => {
                let (keys, values) = cache.append(self.layer, &k, &v, &pass.offsets)?;
                self.show_scores(&q, || Ok(keys.clone()), pass, probe)?;
                ops::attention_cached(&q, &keys, &values, &pass.offsets, &self.how)?
            }
        };
        let mixed = ops::reshape(tape, &mixed, (x.dim(0)?, self.heads * self.head_dim))?;
        let mixed = visit(probe, self.at(Site::AttnIn), mixed)?;
        self.output.forward(tape, &mixed)
    }

    fn at(&self, site: Site) -> Point {
        Point::new(site, self.layer)
    }

    /// What attention is taken of: q (rows, heads, head_dim), k and v (rows, kv_heads, head_dim).
    fn attended(&self, tape: &Tape, x: &Tensor, pass: &Pass, probe: &mut dyn Probe) -> Result<[Tensor; 3]> {
        let [q, k, v] = self.project(tape, x)?;
        let (mut q, mut k) = (
            visit(probe, self.at(Site::QProj), q)?,
            visit(probe, self.at(Site::KProj), k)?,
        );
        [q, k] = self.normed(tape, QkNorm::Full, [q, k])?;
        let split = |x: &Tensor, heads| ops::reshape(tape, x, (x.dim(0)?, heads, self.head_dim));
        let (mut q, mut k, mut v) = (
            split(&q, self.heads)?,
            split(&k, self.kv_heads)?,
            split(&v, self.kv_heads)?,
        );
        if let Some(limit) = self.clip {
            for part in [&mut q, &mut k, &mut v] {
                *part = ops::clamp(tape, part, limit)?;
            }
        }
        [q, k] = self.normed(tape, QkNorm::Head, [q, k])?;
        match self.rope.map(|index| &pass.ropes[index]) {
            Some((cos, sin)) => {
                q = ops::rope(tape, &q, cos, sin, self.pairs)?;
                k = ops::rope(tape, &k, cos, sin, self.pairs)?;
            }
            None => q = self.grown(tape, q, pass)?,
        }
        [q, k] = self.normed(tape, QkNorm::Turned, [q, k])?;
        Ok([
            self.visit_heads(tape, probe, Site::Q, q)?,
            self.visit_heads(tape, probe, Site::K, k)?,
            self.visit_heads(tape, probe, Site::V, v)?,
        ])
    }

    /// q and k after the norms, where the decoder has such.
    fn normed(&self, tape: &Tape, kind: QkNorm, [q, k]: [Tensor; 2]) -> Result<[Tensor; 2]> {
        match &self.qk_norm {
            Some((own, [q_norm, k_norm])) if *own == kind => Ok([q_norm.forward(tape, &q)?, k_norm.forward(tape, &k)?]),
            _ => Ok([q, k]),
        }
    }

    /// Queries (rows, heads, head_dim) times what their positions say.
    fn grown(&self, tape: &Tape, q: Tensor, pass: &Pass) -> Result<Tensor> {
        match &pass.query_factors {
            Some(factors) => ops::scale_rows(tape, &q, factors),
            None => Ok(q),
        }
    }

    /// As [`visit`], with the heads (rows, heads, head_dim) shown one after another.
    fn visit_heads(&self, tape: &Tape, probe: &mut dyn Probe, site: Site, x: Tensor) -> Result<Tensor> {
        if !probe.wants(self.at(site)) {
            return Ok(x);
        }
        let (rows, heads, head_dim) = x.dims3()?;
        let flat = ops::reshape(tape, &x, (rows, heads * head_dim))?;
        ops::reshape(tape, &visit(probe, self.at(site), flat)?, (rows, heads, head_dim))
    }

    /// Shows the largest score of each query (rows, heads, head_dim) and head.
    fn show_scores(
        &self,
        q: &Tensor,
        keys: impl FnOnce() -> Result<Vec<Tensor>>,
        pass: &Pass,
        probe: &mut dyn Probe,
    ) -> Result<()> {
        let scores = || ops::largest_scores(q, &keys()?, &pass.offsets, &self.how);
        show(probe, self.at(Site::AttnLogitMax), scores)
    }

    /// q (rows, heads · head_dim), k and v (rows, kv_heads · head_dim) of x (rows, hidden).
    fn project(&self, tape: &Tape, x: &Tensor) -> Result<[Tensor; 3]> {
        let rows = x.dim(0)?;
        let (q_size, kv_size) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match &self.qkv {
            Qkv::Separate { q, k, v } => Ok([q.forward(tape, x)?, k.forward(tape, x)?, v.forward(tape, x)?]),
            Qkv::Stacked(all) => {
                let all = all.forward(tape, x)?;
                Ok([
                    ops::narrow(tape, &all, 1, 0, q_size)?,
                    ops::narrow(tape, &all, 1, q_size, kv_size)?,
                    ops::narrow(tape, &all, 1, q_size + kv_size, kv_size)?,
                ])
            }
            Qkv::ByGroup(all) => {
                let of_group = q_size / self.kv_heads; // the width of a group's queries
                let all = all.forward(tape, x)?;
                let all = ops::reshape(tape, &all, (rows, self.kv_heads, of_group + 2 * self.head_dim))?;
                let part = |start, width| {
                    let part = ops::narrow(tape, &all, 2, start, width)?; // (rows, kv_heads, width)
                    ops::reshape(tape, &part, (rows, self.kv_heads * width))
                };
                Ok([
                    part(0, of_group)?,
                    part(of_group, self.head_dim)?,
                    part(of_group + self.head_dim, self.head_dim)?,
                ])
            }
        }
    }
}

/// The packed rows of each sequence.
fn of_sequences(packed: &Tensor, offsets: &[usize]) -> Result<Vec<Tensor>> {
    let pairs = offsets.windows(2);
    pairs.map(|pair| packed.narrow(0, pair[0], pair[1] - pair[0])).collect()
}

#[derive(Debug)]
enum Feed {
    Dense(Mlp),
    Mixture(Mixture),
}

impl Feed {
    fn load(loader: &mut Loader, layer: usize, config: &Config) -> error::Result<Self> {
        let dense = config.layers[layer].dense;
        match config.experts.filter(|_| dense.is_none()) {
            Some(how) => Mixture::load(loader, layer, config, how).map(Self::Mixture),
            None => {
                let size = dense.unwrap_or(config.mlp_size);
                Mlp::load(loader, layer, config, config.names.mlp, size).map(Self::Dense)
            }
        }
    }

    fn forward(&self, tape: &Tape, x: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => mlp.forward(tape, x, probe),
            Self::Mixture(mixture) => mixture.forward(tape, x, probe),
        }
    }
}

/// One block of the decoder.
#[derive(Debug)]
pub(crate) struct Block {
    layer: usize,
    attention: Attention,
    mlp: Feed,
    before_attention: Option<Norm>,
    after_attention: Option<Norm>,
    before_mlp: Option<Norm>,
    after_mlp: Option<Norm>,
    parallel: bool,
    residual_scale: Option<f64>,
}

impl Block {
    pub fn load(loader: &mut Loader, layer: usize, config: &Config) -> error::Result<Self> {
        let names = &config.names;
        let mut norm = |name: Option<&str>| {
            name.map(|name| loader.norm(&names.in_block(layer, name), config.hidden_size))
                .transpose()
        };
        Ok(Self {
            layer,
            before_attention: norm(names.before_attention)?,
            after_attention: norm(names.after_attention)?,
            before_mlp: norm(names.before_mlp)?,
            after_mlp: norm(names.after_mlp)?,
            attention: Attention::load(loader, layer, config)?,
            mlp: Feed::load(loader, layer, config)?,
            parallel: config.parallel,
            residual_scale: config.residual_scale,
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
        let at = |site| Point::new(site, self.layer);
        let through = |norm: &Option<Norm>, x: &Tensor| match norm {
            Some(norm) => norm.forward(tape, x),
            None => Ok(x.clone()),
        };
        let scaled = |x: Tensor| match self.residual_scale {
            Some(factor) => ops::scale(tape, &x, factor),
            None => Ok(x),
        };
        let mlp = |read: &Tensor, probe: &mut dyn Probe| {
            let mixed = self.mlp.forward(tape, read, probe)?;
            let mixed = visit(probe, at(Site::MlpProj), mixed)?;
            visit(probe, at(Site::MlpOut), scaled(through(&self.after_mlp, &mixed)?)?)
        };
        let read = through(&self.before_attention, x)?;
        let attended = self.attention.forward(tape, &read, pass, probe, cache)?;
        let attended = visit(probe, at(Site::AttnProj), attended)?;
        let attended = scaled(through(&self.after_attention, &attended)?)?;
        let attended = visit(probe, at(Site::AttnOut), attended)?;
        if self.parallel {
            // a block with one norm has it for both
            let read = self
                .before_mlp
                .as_ref()
                .map_or(Ok(read), |norm| norm.forward(tape, x))?;
            return ops::add(tape, &ops::add(tape, &mlp(&read, probe)?, &attended)?, x);
        }
        let x = visit(probe, at(Site::ResidMid), ops::add(tape, x, &attended)?)?;
        ops::add(tape, &x, &mlp(&through(&self.before_mlp, &x)?, probe)?)
    }
}

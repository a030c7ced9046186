//! Where one can look into the decoder, or reach in.
//!
//! A [`Probe`] is called at the sites it wants, with the tensor itself (no copy is made for anybody), and may hand back
//! another tensor that takes its place. [`Taps`] collects; [`Patch`] replaces rows. Two probes in a tuple run in order.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Result, Storage, Tensor};

use crate::config::Config;
use crate::error::Error;

/// When, in a pass, a site is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    BeforeBlocks,
    BeforeBlock,
    InBlock,
    AfterBlock,
    AfterBlocks,
}

/// One row per site: its name in containers and flags, where it lies, and the length of its rows.
macro_rules! sites {
    ($($(#[doc = $doc:literal])+ $site:ident: $name:literal, $place:ident, $width:expr;)+) => {
        /// A named place of the decoder; the meaning is the same in every family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Site {
            $($(#[doc = $doc])+ $site,)+
        }

        impl Site {
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$site),+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$site => $name,)+
                }
            }

            fn place(self) -> Place {
                match self {
                    $(Self::$site => Place::$place,)+
                }
            }

            /// The length of one row.
            pub fn width(self, config: &Config) -> usize {
                let of: fn(&Config) -> usize = match self {
                    $(Self::$site => $width,)+
                };
                of(config)
            }
        }
    };
}

sites! {
    /// What enters block 0: embeddings, scaled, learned positions added.
    Embed: "embed", BeforeBlocks, |model| model.hidden_size;
    /// The residual before block l.
    ResidPre: "resid_pre", BeforeBlock, |model| model.hidden_size;
    /// The residual after block l's attention was added; absent in parallel blocks.
    ResidMid: "resid_mid", InBlock, |model| model.hidden_size;
    /// The residual after block l; the last one is before the final norm.
    ResidPost: "resid_post", AfterBlock, |model| model.hidden_size;
    /// What the projection to queries gives, all heads one after another: before any clamp, norm or rope.
    QProj: "q_proj", InBlock, Config::query_size;
    /// The same of keys.
    KProj: "k_proj", InBlock, Config::kv_size;
    /// The queries that attention scores with, after clamp, norm and rope.
    Q: "q", InBlock, Config::query_size;
    /// The keys that it scores.
    K: "k", InBlock, Config::kv_size;
    /// The values that it mixes.
    V: "v", InBlock, Config::kv_size;
    /// Of each head the largest score that a token gives to one that it sees: scaled and capped, before softmax. Only to look at.
    AttnLogitMax: "attn_logit_max", InBlock, |model| model.head_count;
    /// What attention's output projection reads: the mixed values of all heads, one after another.
    AttnIn: "attn_in", InBlock, Config::query_size;
    /// What attention's output projection gives, before any norm and scale behind it.
    AttnProj: "attn_proj", InBlock, |model| model.hidden_size;
    /// What attention adds to the residual, after any norm of its own.
    AttnOut: "attn_out", InBlock, |model| model.hidden_size;
    /// What the MLP's output projection gives, or all chosen experts together, before any norm and scale behind it.
    MlpProj: "mlp_proj", InBlock, |model| model.hidden_size;
    /// What the MLP adds to the residual, after any norm of its own.
    MlpOut: "mlp_out", InBlock, |model| model.hidden_size;
    /// What the MLP's output projection reads: its hidden layer, gate · up after the activation.
    MlpIn: "mlp_in", InBlock, |model| model.mlp_size;
    /// The MLP's gate before its activation; the only hidden layer where there is no gate.
    MlpGate: "mlp_gate", InBlock, |model| model.mlp_size;
    /// The MLP's gate after its activation; the hidden layer itself where there is no gate.
    MlpAct: "mlp_act", InBlock, |model| model.mlp_size;
    /// What the activated gate is multiplied by; absent where there is no gate.
    MlpUp: "mlp_up", InBlock, |model| model.mlp_size;
    /// What the router scores each expert with.
    RouterLogits: "router_logits", InBlock, |model| model.experts.map_or(0, |experts| experts.count);
    /// The experts that a row goes through, the best scored first (u32); another choice may take its place.
    ExpertChoice: "expert_choice", InBlock, |model| model.experts.map_or(0, |experts| experts.chosen);
    /// After the final norm.
    FinalNorm: "final_norm", AfterBlocks, |model| model.hidden_size;
    /// Next-token scores.
    Logits: "logits", AfterBlocks, |model| model.vocab_size;
}

impl Site {
    /// Whether there is one per block.
    pub fn layered(self) -> bool {
        !matches!(self.place(), Place::BeforeBlocks | Place::AfterBlocks)
    }

    /// Whether a block itself must show it to a probe.
    pub(crate) fn in_block(self) -> bool {
        self.place() == Place::InBlock
    }

    /// Whether a model has this site.
    pub fn exists(self, config: &Config) -> bool {
        self.absence(config).is_none()
    }

    /// What its blocks are that have no such site.
    pub fn absence(self, config: &Config) -> Option<&'static str> {
        match self {
            Self::ResidMid if config.parallel => Some("are parallel"),
            Self::MlpUp if !config.gated() => Some("have no gate"),
            Self::MlpIn | Self::MlpGate | Self::MlpAct | Self::MlpUp if config.experts.is_some() => {
                Some("are mixtures, of which each expert has rows of its own,")
            }
            Self::RouterLogits | Self::ExpertChoice if config.experts.is_none() => Some("are no mixtures of experts"),
            Self::RouterLogits | Self::ExpertChoice if config.layers.iter().any(|layer| layer.dense.is_some()) => {
                Some("are not all mixtures of experts")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Site {
    type Err = Error;
    fn from_str(name: &str) -> std::result::Result<Self, Error> {
        Self::ALL.into_iter().find(|site| site.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|site| site.name()).collect();
            Error::Site(format!("{name:?} is unknown (known: {})", known.join(", ")))
        })
    }
}

/// A site of a layer; `layer` is 0 where there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    pub layer: usize,
    pub site: Site,
}

impl Point {
    pub fn new(site: Site, layer: usize) -> Self {
        Self {
            layer: if site.layered() { layer } else { 0 },
            site,
        }
    }

    /// 0-based block, for layered sites.
    pub fn layer_index(self) -> Option<usize> {
        self.site.layered().then_some(self.layer)
    }

    /// How many blocks must run before this point has been passed.
    pub fn depth(self, config: &Config) -> usize {
        match self.site.place() {
            Place::BeforeBlocks => 0,
            Place::BeforeBlock => self.layer,
            Place::InBlock | Place::AfterBlock => self.layer + 1,
            Place::AfterBlocks => config.layer_count(),
        }
    }
}

/// The tensor's name in a container: `resid_post.3`, `embed`.
impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer_index() {
            Some(layer) => write!(out, "{}.{layer}", self.site),
            None => write!(out, "{}", self.site),
        }
    }
}

/// What a visit gives back.
pub type ProbeResult = Result<Option<Tensor>>;

/// Shows a tensor's values as f32, in order; they are copied only where they are of another type or place.
pub fn read<T>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let tensor = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a tensor on the CPU is expected")
    };
    let start = layout.start_offset();
    Ok(look(&storage.as_slice::<f32>()?[start..start + tensor.elem_count()]))
}

/// Something that watches, or changes, a forward pass.
pub trait Probe {
    /// Told before every pass where each of its rows stands in its sequence.
    fn begin(&mut self, _positions: &[u32]) {}

    /// Whether `visit` is called at this point.
    fn wants(&self, point: Point) -> bool;

    /// Sees the tensor (rows, width) at a wanted point; a returned tensor of the same shape goes on in its place.
    fn visit(&mut self, point: Point, value: &Tensor) -> ProbeResult;
}

/// Shows a tensor to a probe that wants it, and gives what goes on in its place.
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

/// Shows a probe that wants it what can only be looked at.
pub(crate) fn show(probe: &mut dyn Probe, point: Point, value: impl FnOnce() -> Result<Tensor>) -> Result<()> {
    if !probe.wants(point) {
        return Ok(());
    }
    match probe.visit(point, &value()?)? {
        None => Ok(()),
        Some(_) => candle_core::bail!("nothing can take the place of {point}"),
    }
}

/// Wants nothing.
impl Probe for () {
    fn wants(&self, _: Point) -> bool {
        false
    }
    fn visit(&mut self, _: Point, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// The second sees what the first made of it.
impl<A: Probe, B: Probe> Probe for (A, B) {
    fn begin(&mut self, positions: &[u32]) {
        self.0.begin(positions);
        self.1.begin(positions);
    }
    fn wants(&self, point: Point) -> bool {
        self.0.wants(point) || self.1.wants(point)
    }
    fn visit(&mut self, point: Point, value: &Tensor) -> Result<Option<Tensor>> {
        let first = if self.0.wants(point) {
            self.0.visit(point, value)?
        } else {
            None
        };
        let second = if self.1.wants(point) {
            self.1.visit(point, first.as_ref().unwrap_or(value))?
        } else {
            None
        };
        Ok(second.or(first))
    }
}

impl<P: Probe + ?Sized> Probe for &mut P {
    fn begin(&mut self, positions: &[u32]) {
        (**self).begin(positions);
    }
    fn wants(&self, point: Point) -> bool {
        (**self).wants(point)
    }
    fn visit(&mut self, point: Point, value: &Tensor) -> Result<Option<Tensor>> {
        (**self).visit(point, value)
    }
}

/// Keeps the tensors of chosen points.
#[derive(Debug, Default)]
pub struct Taps {
    wanted: BTreeMap<Point, Option<Tensor>>,
}

impl Taps {
    pub fn new(points: impl IntoIterator<Item = Point>) -> Self {
        Self {
            wanted: points.into_iter().map(|point| (point, None)).collect(),
        }
    }

    /// What was seen at `point`, (rows, width).
    pub fn get(&self, point: Point) -> Option<&Tensor> {
        self.wanted.get(&point)?.as_ref()
    }
}

impl Probe for Taps {
    fn wants(&self, point: Point) -> bool {
        self.wanted.contains_key(&point)
    }
    fn visit(&mut self, point: Point, value: &Tensor) -> Result<Option<Tensor>> {
        self.wanted.insert(point, Some(value.clone()));
        Ok(None)
    }
}

/// Replaces rows at one point.
#[derive(Clone, Debug)]
pub struct Patch {
    pub point: Point,
    /// Distinct, ascending.
    pub rows: Vec<usize>,
    /// (rows, width), one for each of `rows`.
    pub values: Tensor,
}

impl Probe for Patch {
    fn wants(&self, point: Point) -> bool {
        point == self.point
    }
    fn visit(&mut self, _: Point, value: &Tensor) -> Result<Option<Tensor>> {
        let values = self.values.to_dtype(value.dtype())?;
        let mut parts = Vec::with_capacity(2 * self.rows.len() + 1);
        let mut next = 0;
        for (index, &row) in self.rows.iter().enumerate() {
            if row > next {
                parts.push(value.narrow(0, next, row - next)?);
            }
            parts.push(values.narrow(0, index, 1)?);
            next = row + 1;
        }
        if next < value.dim(0)? {
            parts.push(value.narrow(0, next, value.dim(0)? - next)?);
        }
        Ok(Some(Tensor::cat(&parts, 0)?))
    }
}

//! The decoder: embedding, blocks, final norm and head, over packed sequences.

use std::ops::Range;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use crate::batch::Batch;
use crate::blocks::{Block, Pass};
use crate::cache::KvCache;
use crate::compute::Precision;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::loader::{Loader, Norm, Parameter, Weight};
use crate::ops::{self, Head, Tape};
use crate::rope::RopeTable;
use crate::taps::{Point, Probe, Site, visit};
use crate::weights::Source;

/// A causal language model.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    embedding: Weight,         // (vocab, hidden)
    positions: Option<Tensor>, // (positions, hidden)
    blocks: Vec<Block>,
    norm: Norm,
    head: Weight,                // (vocab, hidden); the embedding itself when tied
    head_bias: Option<Tensor>,   // (vocab)
    soft_prompt: Option<Tensor>, // (rows, hidden)
    ropes: Vec<RopeTable>,
    parameters: Vec<Parameter>,
    device: Device,
    dtype: DType,
    precision: Precision,
}

/// Gives a view of one zero in any shape: what a decoder asks for is known without loading it.
struct Unloaded;

impl Source for Unloaded {
    fn tensor(&self, _: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::zeros(1, DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }
}

impl Config {
    /// Every parameter's name in a checkpoint and its stored shape, without loading anything.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let decoder = match Decoder::new(self.clone(), &Unloaded) {
            Ok(decoder) => decoder,
            Err(error) => unreachable!("every tensor is given: {error}"),
        };
        let named = |parameter: &Parameter| (parameter.name.clone(), parameter.stored_shape());
        decoder.parameters.iter().map(named).collect()
    }

    /// How many numbers the model consists of.
    pub fn parameter_count(&self) -> u64 {
        self.parameters()
            .iter()
            .map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }
}

impl Decoder {
    /// Builds a decoder from any source of tensors; what the source holds beyond the architecture is refused, like what is
    /// missing from it.
    pub fn new(config: Config, source: &dyn Source) -> Result<Self> {
        let device = source.device();
        let mut loader = Loader::new(source, &config);
        let (names, width) = (config.names, config.hidden_size);
        let embedding = loader.table(names.embedding, (config.vocab_size, width))?;
        let position_count = config.position_offset + config.position_count;
        let positions = names
            .positions
            .map(|name| loader.get(format!("{name}.weight"), &[position_count, width]))
            .transpose()?;
        let blocks = (0..config.layer_count())
            .map(|layer| Block::load(&mut loader, layer, &config))
            .collect::<Result<Vec<_>>>()?;
        let norm = loader.norm(names.norm, width)?;
        let head = if config.tied {
            embedding.clone()
        } else {
            loader.table(names.head, (config.vocab_size, width))?
        };
        let head_bias = config
            .head_bias
            .then(|| loader.get(format!("{}.bias", names.head), &[config.vocab_size]))
            .transpose()?;
        source.refuse_unused(&loader.asked())?;
        Ok(Self {
            embedding,
            positions,
            blocks,
            norm,
            head,
            head_bias,
            soft_prompt: None,
            ropes: config.ropes.iter().map(|rope| RopeTable::new(rope, device)).collect(),
            parameters: loader.parameters,
            device: device.clone(),
            dtype: source.dtype(),
            precision: Precision::Full,
            config,
        })
    }

    /// Its tapes ask for products of this precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Ids from the vocabulary's size on are rows of this (rows, hidden), as if the embedding table went on with them.
    pub fn with_soft_prompt(self, embeddings: Option<Tensor>) -> Self {
        Self {
            soft_prompt: embeddings,
            ..self
        }
    }

    /// A tape that only computes.
    pub fn tape<'m>(&self) -> Tape<'m> {
        Tape::off().with_precision(self.precision)
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How logits come out of the final norm's output; not of a head that stays as it is stored.
    pub fn head(&self) -> candle_core::Result<Head<'_>> {
        let stored = || candle_core::Error::Msg("a head as it is stored has no gradient".into());
        Ok(Head {
            weight: self.head.tensor().ok_or_else(stored)?,
            bias: self.head_bias.as_ref(),
            scale: self.config.logit_divisor.map(|divisor| 1.0 / divisor),
            softcap: self.config.logit_softcap,
        })
    }

    /// The type activations are computed and given in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Every tensor the decoder computes with, once, under its checkpoint's name. A trainer names those that learn to its
    /// tape, and changes them in place.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Everything up to the head: the final norm's output for every row of the batch, (rows, hidden).
    ///
    /// With a cache the batch continues the cached sequences, and the cache then holds its tokens too. `probe` sees, and
    /// may change, every site it wants except the logits.
    pub fn forward<'m>(
        &'m self,
        tape: &Tape<'m>,
        batch: &Batch,
        probe: &mut dyn Probe,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let residual = self.residual(tape, batch, self.config.layer_count(), probe, cache)?;
        Ok(visit(
            probe,
            Point::new(Site::FinalNorm, 0),
            self.norm.forward(tape, &residual)?,
        )?)
    }

    /// The residual stream after the first `depth` blocks, (rows, hidden): what lies deeper is not computed.
    pub fn residual<'m>(
        &'m self,
        tape: &Tape<'m>,
        batch: &Batch,
        depth: usize,
        probe: &mut dyn Probe,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let pass = self.pass(batch, cache.as_deref())?;
        probe.begin(&pass.positions);
        let x = self.embed(tape, batch, &pass)?;
        let x = visit(probe, Point::new(Site::Embed, 0), x)?;
        self.run(tape, pass, 0..depth, x, probe, cache)
    }

    /// Runs only the blocks in `layers`, over a residual stream (rows, hidden) that was got elsewhere: the sweep over a
    /// patched residual need not compute again what lies before the patch. With a cache the batch continues its
    /// sequences; blocks before `layers` cache nothing, so that the cache then serves these layers alone.
    pub fn resume<'m>(
        &'m self,
        tape: &Tape<'m>,
        batch: &Batch,
        layers: Range<usize>,
        residual: Tensor,
        probe: &mut dyn Probe,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let pass = self.pass(batch, cache.as_deref())?;
        if residual.dims() != [batch.row_count(), self.config.hidden_size] {
            let (shape, rows) = (residual.dims(), batch.row_count());
            return Err(candle_core::Error::Msg(format!("a residual of shape {shape:?} for {rows} rows")).into());
        }
        probe.begin(&pass.positions);
        self.run(tape, pass, layers, residual, probe, cache)
    }

    /// The final norm of any residual rows (rows, hidden).
    pub fn normed<'m>(&'m self, tape: &Tape<'m>, residual: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(tape, residual)?)
    }

    fn run<'m>(
        &'m self,
        tape: &Tape<'m>,
        pass: Rc<Pass>,
        layers: Range<usize>,
        mut x: Tensor,
        probe: &mut dyn Probe,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        for (layer, block) in self.blocks.iter().enumerate().take(layers.end).skip(layers.start) {
            x = visit(probe, Point::new(Site::ResidPre, layer), x)?;
            let mut inside = Site::ALL.into_iter().filter(|site| site.in_block());
            x = if inside.any(|site| probe.wants(Point::new(site, layer))) || cache.is_some() {
                block.forward(tape, &x, &pass, probe, cache.as_deref_mut())?
            } else {
                let pass = pass.clone();
                tape.checkpoint(&x, move |tape, x| block.forward(tape, x, &pass, &mut (), None))?
            };
            x = visit(probe, Point::new(Site::ResidPost, layer), x)?;
        }
        if layers.end < self.blocks.len() {
            // what the next block would read, for a pass that ends here
            x = visit(probe, Point::new(Site::ResidPre, layers.end), x)?;
        }
        if let Some(cache) = cache {
            cache.advance(&pass.offsets);
        }
        Ok(x)
    }

    /// What all blocks share, after checking that the model can run the batch.
    fn pass(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<Rc<Pass>> {
        let positions = self.positions(batch, cache)?;
        let angles = self.ropes.iter().map(|table| table.rows(&positions));
        Ok(Rc::new(Pass {
            ropes: angles.collect::<candle_core::Result<_>>()?,
            query_factors: self.query_factors(&positions)?,
            offsets: batch.offsets().to_vec(),
            positions,
        }))
    }

    /// (rows, 1, 1); none where every query stays as it is.
    fn query_factors(&self, positions: &[u32]) -> Result<Option<Tensor>> {
        let Some(growth) = self.config.query_growth else {
            return Ok(None);
        };
        let factors: Vec<f32> = positions.iter().map(|&position| growth.factor(position)).collect();
        let is_any = factors.iter().any(|factor| *factor != 1.0);
        let factors = is_any.then(|| Tensor::from_vec(factors, (positions.len(), 1, 1), &self.device));
        Ok(factors.transpose()?)
    }

    /// Where each row of the batch stands in its sequence.
    fn positions(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<Vec<u32>> {
        let past = cache.map_or(&[][..], KvCache::lengths);
        if !past.is_empty() && past.len() != batch.sequence_count() {
            return Err(Error::Sequence {
                index: batch.sequence_count(),
                cause: format!("{} sequences are cached", past.len()),
            });
        }
        let soft_count = self.soft_prompt.as_ref().map_or(Ok(0), |rows| rows.dim(0))?;
        batch.check(&self.config, self.config.vocab_size + soft_count, past)?;
        Ok((0..batch.sequence_count())
            .flat_map(|index| {
                let start = past.get(index).copied().unwrap_or(0);
                (start..start + batch.rows(index).len()).map(|position| position as u32)
            })
            .collect())
    }

    fn embed(&self, tape: &Tape, batch: &Batch, pass: &Pass) -> Result<Tensor> {
        let mut x = self.looked_up(tape, batch.token_ids())?;
        if let Some(scale) = self.config.embed_scale {
            // in the compute type, as the checkpoints were trained
            let scale = Tensor::new(scale as f32, &Device::Cpu)?
                .to_dtype(self.dtype)?
                .to_dtype(DType::F64)?;
            x = ops::scale(tape, &x, scale.to_scalar::<f64>()?)?;
        }
        if let Some(table) = &self.positions {
            let offset = self.config.position_offset as u32;
            let places: Vec<u32> = pass.positions.iter().map(|position| position + offset).collect();
            x = ops::add(tape, &x, &ops::embedding(tape, table, &places)?)?;
        }
        Ok(x)
    }

    /// The rows of ids: of the embedding table, and beyond it of the soft prompt.
    fn looked_up(&self, tape: &Tape, ids: &[u32]) -> Result<Tensor> {
        let first = self.config.vocab_size as u32;
        let (soft, own): (Vec<usize>, Vec<usize>) = (0..ids.len()).partition(|&at| ids[at] >= first);
        let Some(table) = self.soft_prompt.as_ref().filter(|_| !soft.is_empty()) else {
            return Ok(self.embedding.rows(tape, ids, self.dtype)?);
        };
        let soft_ids: Vec<u32> = soft.iter().map(|&at| ids[at] - first).collect();
        let learned = ops::embedding(tape, table, &soft_ids)?;
        if own.is_empty() {
            return Ok(learned);
        }
        let own_ids: Vec<u32> = own.iter().map(|&at| ids[at]).collect();
        let known = self.embedding.rows(tape, &own_ids, self.dtype)?;
        Ok(ops::interleave(tape, [&known, &learned], [&own, &soft])?)
    }

    /// Next-token scores (rows, vocab) of rows that `forward` gave; choose them first (`index_select`), for a
    /// vocabulary is wide.
    pub fn logits(&self, tape: &Tape, normed: &Tensor) -> Result<Tensor> {
        let mut logits = self.head.multiply(tape, normed, self.head_bias.as_ref())?;
        if let Some(divisor) = self.config.logit_divisor {
            logits = ops::scale(tape, &logits, 1.0 / divisor)?;
        }
        match self.config.logit_softcap {
            None => Ok(logits),
            Some(_) if tape.is_recording() => {
                Err(candle_core::Error::Msg("final_logit_softcapping has no gradient here".into()).into())
            }
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
        }
    }
}

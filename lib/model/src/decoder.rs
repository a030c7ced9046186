//! The decoder: embedding, blocks, final norm and head, over packed sequences.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use crate::batch::Batch;
use crate::blocks::{Block, Loader, Norm, Parameter, Pass, RopeTable, visit};
use crate::cache::KvCache;
use crate::config::{Config, Family};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::ops::{self, Tape};
use crate::taps::{Point, Probe, Site};
use crate::weights::{Source, Weights};

/// A causal language model.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    embedding: Tensor,         // (vocab, hidden)
    positions: Option<Tensor>, // (positions, hidden)
    blocks: Vec<Block>,
    norm: Norm,
    head: Tensor, // (vocab, hidden); the embedding itself when tied
    rope: Option<RopeTable>,
    local_rope: Option<RopeTable>,
    parameters: Vec<Parameter>,
    device: Device,
    dtype: DType,
}

/// Notes what is asked for, and gives a view of one zero.
struct Recorder(RefCell<Vec<(String, Vec<usize>)>>);

impl Source for Recorder {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.0.borrow_mut().push((name.to_owned(), shape.to_vec()));
        Ok(Tensor::zeros(1, DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
    }
}

impl Config {
    /// Every parameter's name in a checkpoint and its stored shape, without loading anything.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let recorder = Recorder(RefCell::default());
        let shapes_only = Self {
            layer_count: 1,
            windows: vec![None],
            family: self.family,
            ..self.clone()
        };
        // one block's names, repeated for every layer: GPT-2 would transpose (and so copy) each matrix
        if let Err(error) = Decoder::new(shapes_only, &recorder, DType::F32, &Device::Cpu) {
            unreachable!("a recorder gives every tensor: {error}");
        }
        let mut all = Vec::new();
        for (name, shape) in recorder.0.into_inner() {
            match name.split_once(".0.") {
                Some((before, after)) => {
                    all.extend((0..self.layer_count).map(|l| (format!("{before}.{l}.{after}"), shape.clone())));
                }
                None => all.push((name, shape)),
            }
        }
        all
    }

    /// How many numbers the model consists of.
    pub fn parameter_count(&self) -> u64 {
        self.parameters()
            .iter()
            .map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }

    /// The name of the embedding table, and of the head.
    fn vocabulary_names(&self) -> (&'static str, &'static str) {
        match self.family {
            Family::Gpt2 => ("transformer.wte.weight", "lm_head.weight"),
            Family::GptNeoX => ("gpt_neox.embed_in.weight", "embed_out.weight"),
            _ => ("model.embed_tokens.weight", "lm_head.weight"),
        }
    }
}

impl Decoder {
    /// Loads a model directory's weights in `dtype` on `device`; tensors that do not belong to the architecture are
    /// refused, like those that are missing.
    pub fn load(directory: &Directory, dtype: DType, device: &Device) -> Result<Self> {
        let config = Config::parse(&directory.read("config.json")?)?;
        Self::from_weights(config, &Weights::open(directory, dtype, device)?)
    }

    /// The same from weights that are open already.
    pub fn from_weights(config: Config, weights: &Weights) -> Result<Self> {
        let decoder = Self::new(config, weights, weights.dtype(), weights.device())?;
        let asked: Vec<_> = decoder
            .parameters
            .iter()
            .map(|parameter| parameter.name.clone())
            .collect();
        weights.refuse_foreign(&asked)?;
        Ok(decoder)
    }

    /// Builds a decoder from any source of tensors.
    pub fn new(config: Config, source: &dyn Source, dtype: DType, device: &Device) -> Result<Self> {
        let mut loader = Loader {
            source,
            parameters: Vec::new(),
        };
        let (embedding_name, head_name) = config.vocabulary_names();
        let table = [config.vocab_size, config.hidden_size];
        let embedding = loader.get(embedding_name, &table)?;
        let positions = match config.rope {
            Some(_) => None,
            None => Some(loader.get("transformer.wpe.weight", &[config.position_count, config.hidden_size])?),
        };
        let blocks = (0..config.layer_count)
            .map(|layer| Block::load(&mut loader, layer, &config))
            .collect::<Result<Vec<_>>>()?;
        let norm = match config.family {
            Family::Gpt2 => "transformer.ln_f",
            Family::GptNeoX => "gpt_neox.final_layer_norm",
            _ => "model.norm",
        };
        let norm = loader.norm(norm, config.hidden_size, &config)?;
        let head = match config.tied {
            true => embedding.clone(),
            false => loader.get(head_name, &table)?,
        };
        Ok(Self {
            embedding,
            positions,
            blocks,
            norm,
            head,
            rope: config.rope.as_ref().map(|rope| RopeTable::new(rope, device)),
            local_rope: config.local_rope.as_ref().map(|rope| RopeTable::new(rope, device)),
            parameters: loader.parameters,
            device: device.clone(),
            dtype,
            config,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The matrix (vocab, hidden) of the vocabulary product; the embedding itself when tied.
    pub fn head(&self) -> &Tensor {
        &self.head
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
        let residual = self.residual(tape, batch, self.config.layer_count, probe, cache)?;
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
        let positions = self.positions_of(batch, cache.as_deref())?;
        let x = self.embed(tape, batch, &positions)?;
        let x = visit(probe, Point::new(Site::Embed, 0), x)?;
        self.run(tape, batch, &positions, 0..depth, x, probe, cache)
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
        let positions = self.positions_of(batch, cache.as_deref())?;
        residual
            .dims2()
            .and_then(|shape| match shape == (batch.row_count(), self.config.hidden_size) {
                true => Ok(()),
                false => candle_core::bail!("a residual of shape {shape:?} for {} rows", batch.row_count()),
            })?;
        self.run(tape, batch, &positions, layers, residual, probe, cache)
    }

    /// The final norm of any residual rows (rows, hidden).
    pub fn normed<'m>(&'m self, tape: &Tape<'m>, residual: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(tape, residual)?)
    }

    #[allow(clippy::too_many_arguments, reason = "the one loop over blocks, private")]
    fn run<'m>(
        &'m self,
        tape: &Tape<'m>,
        batch: &Batch,
        positions: &[u32],
        layers: Range<usize>,
        mut x: Tensor,
        probe: &mut dyn Probe,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let pass = self.pass(batch, positions)?;
        for (layer, block) in self.blocks.iter().enumerate().take(layers.end).skip(layers.start) {
            x = visit(probe, Point::new(Site::ResidPre, layer), x)?;
            let inside = [Site::AttnOut, Site::ResidMid, Site::MlpGate, Site::MlpOut];
            x = match inside.iter().any(|&site| probe.wants(Point::new(site, layer))) || cache.is_some() {
                true => block.forward(tape, &x, &pass, probe, cache.as_deref_mut())?,
                false => {
                    let pass = pass.clone();
                    tape.checkpoint(&x, move |tape, x| block.forward(tape, x, &pass, &mut (), None))?
                }
            };
            x = visit(probe, Point::new(Site::ResidPost, layer), x)?;
        }
        if layers.end < self.blocks.len() {
            // what the next block would read, for a pass that ends here
            x = visit(probe, Point::new(Site::ResidPre, layers.end), x)?;
        }
        if let Some(cache) = cache {
            cache.advance(batch);
        }
        Ok(x)
    }

    /// Where each row of the batch stands in its sequence, after checking that the model can run it.
    fn positions_of(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<Vec<u32>> {
        let past = cache.map_or(&[][..], KvCache::lengths);
        if !past.is_empty() && past.len() != batch.sequence_count() {
            return Err(Error::Sequence {
                index: batch.sequence_count(),
                cause: format!("{} sequences are cached", past.len()),
            });
        }
        batch.check(&self.config, past)?;
        Ok((0..batch.sequence_count())
            .flat_map(|index| {
                let start = past.get(index).copied().unwrap_or(0);
                (start..start + batch.rows(index).len()).map(|position| position as u32)
            })
            .collect())
    }

    fn embed(&self, tape: &Tape, batch: &Batch, positions: &[u32]) -> Result<Tensor> {
        let mut x = ops::embedding(tape, &self.embedding, batch.token_ids())?;
        if let Some(scale) = self.config.embed_scale {
            // in the compute type, as the checkpoints were trained
            let scale = Tensor::new(scale as f32, &Device::Cpu)?
                .to_dtype(self.dtype)?
                .to_dtype(DType::F64)?;
            x = ops::scale(tape, &x, scale.to_scalar::<f64>()?)?;
        }
        if let Some(table) = &self.positions {
            x = ops::add(tape, &x, &ops::embedding(tape, table, positions)?)?;
        }
        Ok(x)
    }

    /// What all blocks share.
    fn pass(&self, batch: &Batch, positions: &[u32]) -> Result<Rc<Pass>> {
        let rows = |table: &Option<RopeTable>| table.as_ref().map(|table| table.rows(positions)).transpose();
        Ok(Rc::new(Pass {
            rope: rows(&self.rope)?,
            local_rope: rows(&self.local_rope)?,
            offsets: batch.offsets().to_vec(),
        }))
    }

    /// Next-token scores (rows, vocab) of rows that `forward` gave; choose them first (`index_select`), for a
    /// vocabulary is wide.
    pub fn logits(&self, tape: &Tape, normed: &Tensor) -> Result<Tensor> {
        let logits = ops::linear(tape, normed, &self.head, None)?;
        match self.config.logit_softcap {
            None => Ok(logits),
            Some(_) if tape.is_recording() => {
                Err(candle_core::Error::Msg("final_logit_softcapping has no gradient here".into()).into())
            }
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
        }
    }
}

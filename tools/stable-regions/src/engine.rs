//! The model's part: prefixes once, then one-token passes from a patched residual.
//!
//! Only the last position changes with α, so the keys and values of the prefix serve every α. A sweep starts at the block after the
//! patch, for what lies before it is replaced anyway.

use crate::cli::Read;
use crate::distance::Answer;
use model::{Batch, Decoder, KvCache, Point, Probe, Site, Steering, Tape, Taps, Tensor};

/// BOUND: scores of this many numbers are computed at once; wide vocabularies are cut into slices of rows.
const SCORES_AT_ONCE: usize = 32 << 20;

pub struct Engine<'m> {
    pub decoder: &'m Decoder,
    /// Acts in every pass.
    pub steering: &'m Steering,
    pub read_layer: usize,
    pub read: Read,
    /// Whether next-token scores are needed at every point.
    pub scores: bool,
}

/// The prompts of one batch with their prefixes cached.
pub struct Prefixes {
    cache: KvCache,
    last_tokens: Vec<u32>,
}

impl<'m> Engine<'m> {
    /// Computes only; and a row's bits do not depend on the rows beside it, so that shards give the curves of one run.
    fn tape(&self) -> Tape<'m> {
        self.decoder.tape().steady()
    }

    /// Runs all tokens but the last of each prompt, which has at least two.
    pub fn prefixes(&self, prompts: &[&[u32]]) -> model::Result<Prefixes> {
        let mut cache = KvCache::new();
        let heads: Vec<&[u32]> = prompts.iter().map(|tokens| &tokens[..tokens.len() - 1]).collect();
        self.decoder.residual(
            &self.tape(),
            &Batch::pack(&heads),
            self.read_layer + 1,
            &mut self.steering.probe(),
            Some(&mut cache),
        )?;
        Ok(Prefixes {
            cache,
            last_tokens: prompts.iter().map(|tokens| tokens[tokens.len() - 1]).collect(),
        })
    }

    /// The clean residual after block `layer` at each prompt's last position, (prompts, hidden).
    pub fn clean(&self, prompts: &[&[u32]], layer: usize) -> model::Result<Vec<Vec<f32>>> {
        let batch = Batch::pack(prompts);
        let residual = self
            .decoder
            .residual(&self.tape(), &batch, layer + 1, &mut self.steering.probe(), None)?;
        let last = Tensor::new(batch.last_rows(), residual.device())?;
        rows(&residual.index_select(&last, 0)?)
    }

    /// The same for prompts whose prefixes are cached.
    pub fn clean_after(&self, prefixes: &mut Prefixes, layer: usize) -> model::Result<Vec<Vec<f32>>> {
        let all: Vec<usize> = (0..prefixes.last_tokens.len()).collect();
        let mut cache = prefixes.cache.select(&all);
        let batch = prefixes.batch(&all);
        rows(&self.decoder.residual(
            &self.tape(),
            &batch,
            layer + 1,
            &mut self.steering.probe(),
            Some(&mut cache),
        )?)
    }

    /// F(X): what is read after the residual X of `points[i]` replaced the one after block `layer` at the last position of prompt
    /// `owners[i]`. Each answer is handed on at once, with its row number.
    pub fn answers(
        &self,
        prefixes: &mut Prefixes,
        owners: &[usize],
        points: &[Vec<f32>],
        layer: usize,
        scores: bool,
        mut take: impl FnMut(usize, Answer),
    ) -> model::Result<()> {
        let residual = self.sweep(prefixes, owners, points, layer, &mut self.steering.probe())?;
        let vocabulary = self.decoder.config().vocab_size;
        let wants_scores = scores || self.scores || self.read == Read::Logits;
        let slice = if wants_scores {
            (SCORES_AT_ONCE / vocabulary).max(1)
        } else {
            owners.len()
        };
        for start in (0..owners.len()).step_by(slice.max(1)) {
            let residual = residual.narrow(0, start, slice.min(owners.len() - start))?;
            let tape = self.tape();
            let normed = match self.read == Read::PreNorm && !wants_scores {
                true => None,
                false => Some(self.decoder.normed(&tape, &residual.contiguous()?)?),
            };
            let all_scores = match (&normed, wants_scores) {
                (Some(normed), true) => rows(&self.decoder.logits(&tape, normed)?)?,
                _ => Vec::new(),
            };
            let read = match (self.read, &normed) {
                (Read::PostNorm, Some(normed)) => rows(normed)?,
                (Read::Logits, _) => all_scores.clone(),
                _ => rows(&residual)?,
            };
            let mut all_scores = all_scores.into_iter();
            for (row, read) in read.into_iter().enumerate() {
                take(
                    start + row,
                    Answer {
                        read,
                        scores: all_scores.next().unwrap_or_default(),
                    },
                );
            }
        }
        Ok(())
    }

    /// Gate pre-activations of every block after `layer`, up to the one read, at the patched position: by block, then by row.
    pub fn gates(
        &self,
        prefixes: &mut Prefixes,
        owners: &[usize],
        points: &[Vec<f32>],
        layer: usize,
    ) -> model::Result<Vec<Vec<Vec<f32>>>> {
        if let Some(cause) = Site::MlpGate.absence(self.decoder.config()) {
            return Err(model::Error::Site(format!(
                "mlp_gate: blocks of this model {cause} and have none"
            )));
        }
        let at = |block| Point::new(Site::MlpGate, block);
        let blocks = layer + 1..=self.read_layer;
        let mut probe = (self.steering.probe(), Taps::new(blocks.clone().map(at)));
        self.sweep(prefixes, owners, points, layer, &mut probe)?;
        blocks.filter_map(|block| probe.1.get(at(block))).map(rows).collect()
    }

    fn sweep(
        &self,
        prefixes: &mut Prefixes,
        owners: &[usize],
        points: &[Vec<f32>],
        layer: usize,
        probe: &mut dyn Probe,
    ) -> model::Result<Tensor> {
        let mut cache = prefixes.cache.select(owners);
        let hidden = self.decoder.config().hidden_size;
        let values: Vec<f32> = points.iter().flatten().copied().collect();
        let residual =
            Tensor::from_vec(values, (points.len(), hidden), self.decoder.device())?.to_dtype(self.decoder.dtype())?;
        let batch = prefixes.batch(owners);
        self.decoder.resume(
            &self.tape(),
            &batch,
            layer + 1..self.read_layer + 1,
            residual,
            probe,
            Some(&mut cache),
        )
    }
}

impl Prefixes {
    /// One last token for each owner.
    fn batch(&self, owners: &[usize]) -> Batch {
        Batch::pack(
            &owners
                .iter()
                .map(|&owner| [self.last_tokens[owner]])
                .collect::<Vec<_>>(),
        )
    }
}

fn rows(tensor: &Tensor) -> model::Result<Vec<Vec<f32>>> {
    Ok(tensor.to_dtype(model::DType::F32)?.to_vec2::<f32>()?)
}

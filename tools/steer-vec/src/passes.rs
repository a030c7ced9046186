//! Passes of the model: next-token logits as it is and as it is steered, mean residuals, and a vector tried at a layer without the
//! blocks before it.

use model::{Batch, Decoder, Point, Probe, ProbeResult, Site, Steering, Tape, Tensor};

pub struct Passes<'m> {
    pub decoder: &'m Decoder,
    /// Tokens that are run together; a longer prompt runs alone.
    pub batch_tokens: usize,
}

/// The residual before every block, summed over prompts, at the last tokens.
struct Sums {
    /// The last `count` rows of each sequence.
    rows: Tensor,
    count: usize,
    /// By layer, then by token from the first of those looked at.
    sums: Vec<Vec<Vec<f64>>>,
}

impl Probe for Sums {
    fn wants(&self, point: Point) -> bool {
        point.site == Site::ResidPre && point.layer < self.sums.len()
    }

    fn visit(&mut self, point: Point, value: &Tensor) -> ProbeResult {
        let (count, sums) = (self.count, &mut self.sums[point.layer]);
        let width = value.dim(1)?;
        model::taps::read(&value.index_select(&self.rows, 0)?, |values| {
            for (at, row) in values.chunks_exact(width).enumerate() {
                let sum = &mut sums[at % count];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        })?;
        Ok(None)
    }
}

impl<'m> Passes<'m> {
    fn batches<'p>(&self, prompts: &'p [Vec<u32>]) -> Vec<&'p [Vec<u32>]> {
        let mut batches = Vec::new();
        let (mut start, mut tokens) = (0, 0);
        for (at, prompt) in prompts.iter().enumerate() {
            if at > start && tokens + prompt.len() > self.batch_tokens {
                batches.push(&prompts[start..at]);
                (start, tokens) = (at, 0);
            }
            tokens += prompt.len();
        }
        batches.push(&prompts[start..]);
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// What may follow each prompt.
    pub fn logits(&self, prompts: &[Vec<u32>], steering: &Steering) -> model::Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(prompts.len());
        for prompts in self.batches(prompts) {
            let batch = Batch::pack(prompts);
            let normed = self.decoder.forward(&tape(), &batch, &mut steering.probe(), None)?;
            all.extend(self.last(&batch, &normed)?);
        }
        Ok(all)
    }

    /// The mean residual before every block at the last `count` tokens: by layer, then by token.
    pub fn means(&self, prompts: &[Vec<u32>], count: usize) -> model::Result<Vec<Vec<Vec<f64>>>> {
        let config = self.decoder.config();
        let mut sums = vec![vec![vec![0.0; config.hidden_size]; count]; config.layer_count()];
        for prompts in self.batches(prompts) {
            let batch = Batch::pack(prompts);
            let ends = batch.last_rows();
            let rows: Vec<u32> = ends.iter().flat_map(|end| end + 1 - count as u32..=*end).collect();
            let mut probe = Sums {
                rows: Tensor::new(rows, self.decoder.device())?,
                count,
                sums,
            };
            let depth = config.layer_count() - 1;
            self.decoder.residual(&tape(), &batch, depth, &mut probe, None)?;
            sums = probe.sums;
        }
        let numbers = sums.iter_mut().flatten().flatten();
        numbers.for_each(|x| *x /= prompts.len() as f64);
        Ok(sums)
    }

    /// What may follow each prompt when a vector is added to every token before its block. Each vector comes with its layer; the blocks
    /// before it are run once for all. Given to `take`: the vector's place in the list, and the logits.
    pub fn added(
        &self,
        prompts: &[Vec<u32>],
        vectors: &[(usize, &[f64])],
        mut take: impl FnMut(usize, Vec<Vec<f32>>),
    ) -> model::Result<()> {
        let (decoder, depth) = (self.decoder, self.decoder.config().layer_count());
        for prompts in self.batches(prompts) {
            let batch = Batch::pack(prompts);
            let mut residual = decoder.residual(&tape(), &batch, 0, &mut (), None)?;
            let last_layer = vectors.iter().map(|(layer, _)| *layer).max().unwrap_or(0);
            for layer in 0..=last_layer {
                for (at, (_, vector)) in vectors.iter().enumerate().filter(|(_, (of, _))| *of == layer) {
                    let vector = Tensor::new(*vector, decoder.device())?.to_dtype(residual.dtype())?;
                    let moved = residual.broadcast_add(&vector)?;
                    let out = decoder.resume(&tape(), &batch, layer..depth, moved, &mut (), None)?;
                    let last = out.index_select(&Tensor::new(batch.last_rows(), decoder.device())?, 0)?;
                    take(at, self.scores(&decoder.normed(&tape(), &last)?)?);
                }
                residual = decoder.resume(&tape(), &batch, layer..layer + 1, residual, &mut (), None)?;
            }
        }
        Ok(())
    }

    fn last(&self, batch: &Batch, normed: &Tensor) -> model::Result<Vec<Vec<f32>>> {
        let last = Tensor::new(batch.last_rows(), self.decoder.device())?;
        self.scores(&normed.index_select(&last, 0)?)
    }

    fn scores(&self, normed: &Tensor) -> model::Result<Vec<Vec<f32>>> {
        let logits = self.decoder.logits(&tape(), normed)?;
        Ok(logits.to_dtype(model::DType::F32)?.to_vec2()?)
    }
}

fn tape<'m>() -> Tape<'m> {
    Tape::off()
}

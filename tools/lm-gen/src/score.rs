//! Scoring: the log-likelihood of texts that are given. A record is computed by itself, so no other record changes its bits.

use model::{Batch, Decoder, KvCache, Steering, Tensor};

use crate::prefix::{self, Prefixes};
use crate::prompts::Speech;
use crate::sample::log_prob;
use records::Prompt;

/// Log-likelihood of a text after a prompt.
pub struct Score {
    /// Nats.
    pub log_prob: f64,
    /// Of each token.
    pub tokens: Vec<f64>,
}

pub struct Scorer<'m> {
    decoder: &'m Decoder,
    steering: &'m Steering,
    prefixes: Prefixes,
}

/// A text to be scored: the prompt's ids and its own, and where its own begin.
struct Tail {
    ids: Vec<u32>,
    start: usize,
}

impl<'m> Scorer<'m> {
    pub fn new(decoder: &'m Decoder, steering: &'m Steering) -> Scorer<'m> {
        Scorer {
            decoder,
            steering,
            prefixes: Prefixes::default(),
        }
    }

    /// Tokens of prompts that were not read again.
    pub fn spared_count(&self) -> u64 {
        self.prefixes.spared_count
    }

    /// Scores every continuation of one prompt. What they share is computed once, and so is what the next prompt shares with this one: its
    /// first `ahead` tokens.
    pub fn score(
        &mut self,
        speech: &Speech<'_>,
        prompt: &Prompt,
        continuations: &[String],
        ahead: usize,
    ) -> model::Result<Vec<Score>> {
        let tails = continuations
            .iter()
            .map(|continuation| {
                let (ids, start) = speech.ids_with(prompt, continuation)?;
                Ok(Tail { ids, start })
            })
            .collect::<model::Result<Vec<_>>>()?;
        let Some(first) = tails.first() else {
            return Ok(Vec::new());
        };
        // BPE may merge across the seam, so the shared start is what all of them really have in common.
        let shared = tails
            .iter()
            .map(|tail| {
                tail.start
                    .min(tail.ids.iter().zip(&first.ids).take_while(|(a, b)| a == b).count())
            })
            .min()
            .unwrap_or(1)
            .max(1);
        let start = &first.ids[..shared];
        // A seam within the prompt's own words takes some of what the next would share.
        let ahead = ahead.min(prefix::shared(start, start));
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let read = prefixes.read(start, ahead, |batch, cache| self.rows(batch, cache, &batch.last_rows()));
        self.prefixes = prefixes;
        let (head, mut cache) = read?;
        // Every continuation runs all its tokens but the last, from the shared start on.
        let running: Vec<usize> = (0..tails.len())
            .filter(|&index| tails[index].ids.len() > shared + 1)
            .collect();
        let mut rows = Vec::new();
        let mut offsets = vec![None; tails.len()];
        if !running.is_empty() {
            let mut forked = cache.select(&vec![0; running.len()]);
            let sequences: Vec<&[u32]> = running
                .iter()
                .map(|&index| &tails[index].ids[shared..tails[index].ids.len() - 1])
                .collect();
            let batch = Batch::pack(&sequences);
            for (position, &index) in running.iter().enumerate() {
                offsets[index] = Some(batch.rows(position).start);
            }
            let wanted: Vec<u32> = (0..batch.row_count() as u32).collect();
            rows = self.rows(&batch, &mut forked, &wanted)?;
        }
        Ok(tails
            .iter()
            .zip(offsets)
            .map(|(tail, offset)| {
                let tokens: Vec<f64> = (tail.start.max(shared)..tail.ids.len())
                    .map(|position| {
                        let logits = match (position - shared, offset) {
                            (0, _) => &head[0],
                            (ahead, Some(offset)) => &rows[offset + ahead - 1],
                            (_, None) => unreachable!("a continuation of several tokens runs"),
                        };
                        log_prob(logits, tail.ids[position])
                    })
                    .collect();
                Score {
                    log_prob: tokens.iter().sum(),
                    tokens,
                }
            })
            .collect())
    }

    /// The logits of chosen rows.
    fn rows(&self, batch: &Batch, cache: &mut KvCache, wanted: &[u32]) -> model::Result<Vec<Vec<f32>>> {
        let tape = self.decoder.tape().steady();
        let normed = self
            .decoder
            .forward(&tape, batch, &mut self.steering.probe(), Some(cache))?;
        let mut logits = Vec::with_capacity(wanted.len());
        // A vocabulary is wide: some rows at a time.
        for rows in wanted.chunks(256) {
            let normed = normed.index_select(&Tensor::new(rows, self.decoder.device())?, 0)?;
            logits.extend(
                self.decoder
                    .logits(&tape, &normed)?
                    .to_dtype(model::DType::F32)?
                    .to_vec2()?,
            );
        }
        Ok(logits)
    }
}

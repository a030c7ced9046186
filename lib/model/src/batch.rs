//! Several sequences in one matrix of rows, without padding.

use std::ops::Range;

use crate::config::Config;
use crate::error::{Error, Result};

/// Packed token ids; sequence `i` is `offsets[i]..offsets[i + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    token_ids: Vec<u32>,
    offsets: Vec<usize>,
}

impl Batch {
    /// Packs sequences one after another.
    pub fn pack<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut batch = Self {
            token_ids: Vec::new(),
            offsets: vec![0],
        };
        for sequence in sequences {
            batch.token_ids.extend_from_slice(sequence.as_ref());
            batch.offsets.push(batch.token_ids.len());
        }
        batch
    }

    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Where each sequence starts, and the row count.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    pub fn row_count(&self) -> usize {
        self.token_ids.len()
    }

    pub fn sequence_count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The rows of sequence `index`.
    pub fn rows(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// The last row of every sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        self.offsets[1..].iter().map(|&end| (end - 1) as u32).collect()
    }

    /// Refuses what the decoder cannot run: no tokens, too many, or an id beyond the `id_count` that it knows. `past` is the cached
    /// length of each sequence.
    pub(crate) fn check(&self, config: &Config, id_count: usize, past: &[usize]) -> Result<()> {
        for index in 0..self.sequence_count() {
            let ids = &self.token_ids[self.rows(index)];
            let length = past.get(index).copied().unwrap_or(0) + ids.len();
            let refuse = |cause: String| Err(Error::Sequence { index, cause });
            if ids.is_empty() {
                return refuse("has no tokens".into());
            }
            if length > config.position_count {
                return refuse(format!(
                    "is {length} tokens long, the model's limit is {}",
                    config.position_count
                ));
            }
            if let Some(id) = ids.iter().find(|&&id| id as usize >= id_count) {
                return refuse(format!("holds token id {id}, the vocabulary has {id_count}"));
            }
        }
        Ok(())
    }
}

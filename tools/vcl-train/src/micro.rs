//! Some samples of a step in one batch. Whose row is whose stays known: an auxiliary loss may compare a sample's rows with stored
//! ones, an objective the sequences of one sample with each other.

use clap::ValueEnum;
use model::{Batch, Device, Tensor};
use serde::Serialize;

use crate::sample::{Sample, Sequence};

/// Which positions of a sequence are rows of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// Those that hold completion tokens.
    Completion,
    /// The last of the sequence.
    Last,
    All,
}

/// Sequences packed without padding, and the rows that predict learned tokens.
pub struct Micro<'a> {
    /// Every sequence of every sample, in order.
    pub batch: Batch,
    pub samples: Vec<&'a Sample>,
    /// Rows that predict, and what.
    pub loss_rows: Vec<u32>,
    pub targets: Vec<u32>,
}

impl<'a> Micro<'a> {
    pub fn pack(samples: Vec<&'a Sample>) -> Self {
        let ids: Vec<&[u32]> = sequences(&samples).map(|sequence| &sequence.token_ids[..]).collect();
        let batch = Batch::pack(&ids);
        let (mut loss_rows, mut targets) = (Vec::new(), Vec::new());
        for (index, sequence) in sequences(&samples).enumerate() {
            for (position, row) in batch.rows(index).enumerate().skip(1) {
                if sequence.learned[position] {
                    loss_rows.push(row as u32 - 1);
                    targets.push(sequence.token_ids[position]);
                }
            }
        }
        Self {
            batch,
            samples,
            loss_rows,
            targets,
        }
    }

    /// The numbers of the rows that a loss looks at, ascending.
    pub fn rows(&self, rows: Rows) -> Vec<u32> {
        let of_sequence = |(index, sequence): (usize, &'a Sequence)| {
            let is_row = move |position: usize| match rows {
                Rows::All => true,
                Rows::Last => position + 1 == sequence.token_ids.len(),
                Rows::Completion => sequence.learned[position],
            };
            let numbered = self.batch.rows(index).enumerate();
            numbered.filter_map(move |(position, row)| is_row(position).then_some(row as u32))
        };
        sequences(&self.samples).enumerate().flat_map(of_sequence).collect()
    }

    /// The same, to select by.
    pub fn index(&self, rows: Rows, device: &Device) -> candle_core::Result<Tensor> {
        let rows = self.rows(rows);
        Tensor::from_slice(&rows, rows.len(), device)
    }
}

fn sequences<'s, 'a>(samples: &'s [&'a Sample]) -> impl Iterator<Item = &'a Sequence> + use<'s, 'a> {
    samples.iter().flat_map(|sample| &sample.sequences)
}

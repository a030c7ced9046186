//! What is kept of the samples: per group a token stream and, per sample, the little that the measures need. Samples arrive in
//! input order, from a dataset or from the files of [`crate::counts`]; from here on the two are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use process::{Error, Result};

use crate::compression::{Compressor, Text};
use crate::store::{Reader, Spill, Stream};
use crate::tokens::Strings;

/// BOUND: every group keeps up to 1 MiB of text back for compression; a field with more values is no label.
const GROUP_COUNT_MAX: usize = 1024;

/// One text of one row, with all that is known of it.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    pub group: &'a str,
    /// The number of its row in the whole input.
    pub index: u64,
    pub id: Option<&'a str>,
    pub text: &'a str,
    pub tokens: &'a [u32],
    pub score: Option<Score>,
    pub loss: Option<LossShare>,
}

/// A model's log-probability of a text.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    pub log_prob_nats: f64,
    pub token_count: u64,
}

/// The tokens of a rendered conversation, and those among them that bear loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LossShare {
    pub token_count: u64,
    pub loss_token_count: u64,
}

#[derive(Default)]
pub struct Group {
    pub stream: Stream,
    pub text: Text,
    /// blake3 of each sample's text.
    pub text_digests: Vec<[u8; 32]>,
    pub scores: Vec<Score>,
    pub loss: Option<LossShare>,
    row_indices: Vec<u64>,
    /// Empty where a row has no id.
    ids: Strings,
}

impl Group {
    /// The id of a sample by its place in the group.
    pub fn id(&self, sample: usize) -> String {
        match self.ids.get(sample as u32) {
            "" => format!("#{}", self.row_indices[sample]),
            id => id.to_owned(),
        }
    }
}

pub struct Corpus {
    pub groups: BTreeMap<String, Group>,
    pub compressor: Compressor,
    spill: Option<Arc<Spill>>,
    resident_bytes: usize,
    resident_bytes_max: usize,
    digest: blake3::Hasher,
}

impl Corpus {
    /// Token streams take at most `resident_bytes_max` of memory; the rest lies in a temporary file.
    pub fn new(resident_bytes_max: usize, threads: usize) -> Self {
        Self {
            groups: BTreeMap::new(),
            compressor: Compressor::new(threads),
            spill: None,
            resident_bytes: 0,
            resident_bytes_max,
            digest: blake3::Hasher::new(),
        }
    }

    /// Makes a group appear in the results even if no sample falls into it.
    pub fn expect_group(&mut self, name: &str) -> Result<()> {
        self.group(name).map(drop)
    }

    pub fn push(&mut self, sample: &Sample) -> Result<()> {
        let text_digest = *blake3::hash(sample.text.as_bytes()).as_bytes();
        for part in [sample.group, sample.id.unwrap_or("")] {
            self.digest.update(&(part.len() as u64).to_le_bytes());
            self.digest.update(part.as_bytes());
        }
        self.digest.update(&text_digest);

        let compressor = self.compressor.clone();
        let group = self.group(sample.group)?;
        if group.text_digests.len() == u32::MAX as usize {
            return Err(Error::input(sample.group, "has more than 4,294,967,295 samples"));
        }
        group.stream.push(sample.tokens);
        group.text.push(sample.text, &compressor);
        group.text_digests.push(text_digest);
        group.row_indices.push(sample.index);
        group.ids.push(sample.id.unwrap_or(""));
        group.scores.extend(sample.score);
        if let Some(loss) = sample.loss {
            let sum = group.loss.get_or_insert_default();
            sum.token_count += loss.token_count;
            sum.loss_token_count += loss.loss_token_count;
        }
        self.resident_bytes += size_of_val(sample.tokens);
        if self.resident_bytes > self.resident_bytes_max {
            self.spill()?;
        }
        Ok(())
    }

    /// Identifies the samples and their order.
    pub fn digest(&self) -> String {
        format!("blake3:{}", self.digest.finalize().to_hex())
    }

    pub fn reader<'a>(&'a self, group: &'a Group) -> Reader<'a> {
        Reader::new(&group.stream, self.spill.as_ref())
    }

    pub fn resident_bytes(&self) -> usize {
        self.groups.values().map(|group| group.stream.resident_bytes()).sum()
    }

    fn group(&mut self, name: &str) -> Result<&mut Group> {
        if !self.groups.contains_key(name) {
            if self.groups.len() == GROUP_COUNT_MAX {
                return Err(
                    Error::input("--group", format!("gives more than {GROUP_COUNT_MAX} groups"))
                        .hint("group by a label, not by something that differs in every row"),
                );
            }
            self.groups.insert(name.to_owned(), Group::default());
        }
        Ok(self.groups.get_mut(name).expect("just inserted"))
    }

    fn spill(&mut self) -> Result<()> {
        let mut spill = match self.spill.take() {
            Some(shared) => {
                Arc::into_inner(shared).ok_or_else(|| Error::bug("spill file", "is read while it grows"))?
            }
            None => Spill::create()?,
        };
        for group in self.groups.values_mut() {
            group.stream.spill(&mut spill)?;
        }
        self.spill = Some(Arc::new(spill));
        self.resident_bytes = 0;
        Ok(())
    }
}

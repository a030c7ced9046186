//! Generation: sequences in flight, each leaving when it ends and making room for the next.
//!
//! Bits. A prompt is prefilled alone, and tokens are decoded in groups of at most [`GROUP`] sequences under a steady tape: the
//! product with a weight computes each row by itself, in a fixed order. A completion therefore depends on its prompt alone, not on
//! what happens to be in flight beside it, and batch size, shards and resumption leave no trace. Only one sequence at a time has a
//! kernel of its own, which sums in another order and decodes half as fast again.

use model::{Batch, Decoder, KvCache, Probe, Steering, Tape, Tensor, Tokenizer};
use records::Finish;

use crate::contrast::Rule;
use crate::prefix::Prefixes;
use crate::sample::Choice;

/// Sequences per decoding step.
const GROUP: usize = model::ops::STEADY_ROWS;

/// A completion to be written.
pub struct Job {
    /// Place in the output.
    pub order: u64,
    /// The prompt.
    pub ids: Vec<u32>,
    /// The prompt of the second context; read where there is one.
    pub second_ids: Vec<u32>,
    /// Tokens of the prompt that the next one begins with too.
    pub ahead: usize,
    pub token_count_max: usize,
    pub stop: Vec<String>,
    /// The counter of its draws.
    pub unit: u64,
}

/// A completion.
pub struct Done {
    pub order: u64,
    pub text: String,
    pub token_count: u64,
    pub finish: Finish,
}

struct Slot {
    job: Job,
    generated: Vec<u32>,
}

#[derive(Default)]
struct Group {
    slots: Vec<Slot>,
    cache: KvCache,
    /// Of the second context; empty where there is none.
    second: KvCache,
}

/// A model and what steers it.
#[derive(Clone, Copy)]
pub struct Speaker<'m> {
    pub decoder: &'m Decoder,
    pub steering: &'m Steering,
}

/// The second context, and how it counts.
#[derive(Clone, Copy)]
pub struct Second<'m> {
    pub speaker: Speaker<'m>,
    pub rule: Rule,
}

pub struct Engine<'m> {
    first: Speaker<'m>,
    second: Option<Second<'m>>,
    tokenizer: &'m Tokenizer,
    choice: Choice,
    ends: Vec<u32>,
    groups: Vec<Group>,
    capacity: usize,
    prefixes: Prefixes,
}

impl<'m> Engine<'m> {
    pub fn new(
        first: Speaker<'m>,
        second: Option<Second<'m>>,
        tokenizer: &'m Tokenizer,
        choice: Choice,
        ends: Vec<u32>,
        capacity: usize,
    ) -> Engine<'m> {
        Engine {
            first,
            second,
            tokenizer,
            choice,
            ends,
            groups: Vec::new(),
            capacity,
            prefixes: Prefixes::default(),
        }
    }

    /// Tokens of prompts that were not read again.
    pub fn spared_count(&self) -> u64 {
        self.prefixes.spared_count
    }

    pub fn in_flight(&self) -> usize {
        self.groups.iter().map(|group| group.slots.len()).sum()
    }

    pub fn has_room(&self) -> bool {
        self.in_flight() < self.capacity
    }

    /// Reads a prompt and takes its completion up; one that ends at once comes back.
    pub fn admit(&mut self, job: Job) -> model::Result<Option<Done>> {
        let mut alone = Group::default();
        let logits = self.prefill(&job, &mut alone)?;
        alone.slots.push(Slot {
            job,
            generated: Vec::new(),
        });
        if let Some(done) = self.extend(&mut alone.slots[0], &logits[0])? {
            return Ok(Some(done));
        }
        let group = match self.groups.iter().position(|group| group.slots.len() < GROUP) {
            Some(index) => &mut self.groups[index],
            None => {
                self.groups.push(Group::default());
                self.groups.last_mut().expect("just pushed")
            }
        };
        group.slots.append(&mut alone.slots);
        group.cache.extend(alone.cache);
        group.second.extend(alone.second);
        Ok(None)
    }

    /// Reads a prompt into a group without slots. With a second context, nothing is shared with other prompts.
    fn prefill(&mut self, job: &Job, alone: &mut Group) -> model::Result<Vec<Vec<f32>>> {
        if self.second.is_some() {
            let batches = [&job.ids, &job.second_ids].map(|ids| Batch::pack(&[ids]));
            return self.logits(&batches, alone, &[0]);
        }
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let read = prefixes.read(&job.ids, job.ahead, |batch, cache| self.said(self.first, batch, cache));
        self.prefixes = prefixes;
        let (logits, cache) = read?;
        alone.cache = cache;
        Ok(logits)
    }

    /// One token for every sequence in flight; those that end come back.
    pub fn step(&mut self) -> model::Result<Vec<Done>> {
        let mut ended = Vec::new();
        for index in 0..self.groups.len() {
            let mut group = std::mem::take(&mut self.groups[index]);
            let last: Vec<[u32; 1]> = group
                .slots
                .iter()
                .map(|slot| [*slot.generated.last().expect("a slot holds a token")])
                .collect();
            let batch = Batch::pack(&last);
            let steps: Vec<usize> = group.slots.iter().map(|slot| slot.generated.len()).collect();
            let logits = self.logits(&[batch.clone(), batch], &mut group, &steps)?;
            let mut stays = Vec::with_capacity(group.slots.len());
            for (slot, logits) in group.slots.iter_mut().zip(&logits) {
                let done = self.extend(slot, logits)?;
                stays.push(done.is_none());
                ended.extend(done);
            }
            group.cache.retain(|slot| stays[slot]);
            group.second.retain(|slot| stays[slot]);
            let mut stays = stays.into_iter();
            group.slots.retain(|_| stays.next().expect("one for each slot"));
            self.groups[index] = group;
        }
        self.groups.retain(|group| !group.slots.is_empty());
        Ok(ended)
    }

    /// The logits that choose the next token of every sequence, of which `steps` are there; the batches are those of the two contexts.
    fn logits(
        &self,
        [batch, second_batch]: &[Batch; 2],
        group: &mut Group,
        steps: &[usize],
    ) -> model::Result<Vec<Vec<f32>>> {
        let first = self.said(self.first, batch, &mut group.cache)?;
        let Some(second) = self.second else {
            return Ok(first);
        };
        let other = self.said(second.speaker, second_batch, &mut group.second)?;
        let both = steps.iter().zip(first.iter().zip(&other));
        Ok(both
            .map(|(step, (first, other))| second.rule.combine(first, other, *step))
            .collect())
    }

    /// The next-token logits of every sequence of the batch.
    fn said(&self, speaker: Speaker<'m>, batch: &Batch, cache: &mut KvCache) -> model::Result<Vec<Vec<f32>>> {
        let tape = match self.capacity {
            1 => speaker.decoder.tape(),
            _ => speaker.decoder.tape().steady(),
        };
        last_logits(&tape, speaker.decoder, batch, &mut speaker.steering.probe(), cache)
    }

    /// Chooses a token; says whether the completion ends with it.
    fn extend(&self, slot: &mut Slot, logits: &[f32]) -> model::Result<Option<Done>> {
        let token = self.choice.next(logits, slot.job.unit, slot.generated.len() as u64);
        if self.ends.contains(&token) {
            return self.done(slot, Finish::Stop, None).map(Some);
        }
        slot.generated.push(token);
        if let Some(cut) = self.stop_cut(slot)? {
            return self.done(slot, Finish::Stop, Some(cut)).map(Some);
        }
        if slot.generated.len() >= slot.job.token_count_max {
            return self.done(slot, Finish::Length, None).map(Some);
        }
        Ok(None)
    }

    fn done(&self, slot: &Slot, finish: Finish, cut: Option<usize>) -> model::Result<Done> {
        let mut text = self.tokenizer.decode(&slot.generated, true)?;
        if let Some(cut) = cut {
            text.truncate(cut);
        }
        Ok(Done {
            order: slot.job.order,
            text,
            token_count: slot.generated.len() as u64,
            finish,
        })
    }

    /// Where a stop string begins in the text so far. A stop string spans at most as many tokens as it has bytes, so the text is looked
    /// at whole only when its tail holds one.
    fn stop_cut(&self, slot: &Slot) -> model::Result<Option<usize>> {
        let Some(longest) = slot.job.stop.iter().map(String::len).max() else {
            return Ok(None);
        };
        let start = slot.generated.len().saturating_sub(longest + 4);
        let tail = self.tokenizer.decode(&slot.generated[start..], true)?;
        if !slot.job.stop.iter().any(|stop| tail.contains(stop.as_str())) {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&slot.generated, true)?;
        Ok(slot.job.stop.iter().filter_map(|stop| text.find(stop.as_str())).min())
    }
}

/// Runs a batch and gives the logits of every sequence's last row, in f32.
pub fn last_logits<'m>(
    tape: &Tape<'m>,
    decoder: &'m Decoder,
    batch: &Batch,
    probe: &mut dyn Probe,
    cache: &mut KvCache,
) -> model::Result<Vec<Vec<f32>>> {
    let normed = decoder.forward(tape, batch, probe, Some(cache))?; // (rows, hidden)
    let rows = batch.last_rows();
    let normed = if rows.len() == batch.row_count() {
        normed
    } else {
        normed.index_select(&Tensor::new(rows, decoder.device())?, 0)?
    };
    let logits = decoder.logits(tape, &normed)?; // (sequences, vocab)
    Ok(logits.to_dtype(model::DType::F32)?.to_vec2()?)
}

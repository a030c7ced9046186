//! What prompts that follow each other begin with alike is read once: the words of a judge, a system message, worked examples.
//!
//! Bits. A prompt is read in stretches that end where a block of attention does, and each stretch is long enough for the kernel of long
//! prompts, so that a row has the bits that it has where its prompt is read whole. What is shared therefore leaves no trace.

use model::{Batch, Decoder, KvCache, Steering};

/// Tokens whose attention is one product: stretches end at its multiples.
const BLOCK: usize = 64;
/// Fewer rows take another kernel.
const REST_MIN: usize = model::ops::STEADY_ROWS + 1;

/// Starts of the last prompt, each longer than the one before it.
#[derive(Default)]
pub struct Prefixes {
    held: Vec<Held>,
    /// Tokens of prompts that were not read again.
    pub spared_count: u64,
}

struct Held {
    ids: Vec<u32>,
    cache: KvCache,
}

/// How many tokens of two prompts are worth holding.
pub fn shared(one: &[u32], next: &[u32]) -> usize {
    let common = one.iter().zip(next).take_while(|(a, b)| a == b).count();
    let room = one.len().min(next.len()).saturating_sub(REST_MIN);
    let count = common.min(room);
    count - count % BLOCK
}

/// Whether a row of a long prompt is computed by itself: not where an intervention looks at others, nor among experts, whose products have
/// as many rows as choose them, nor by kernels that are not ours.
pub fn is_allowed(decoder: &Decoder, steering: &Steering) -> bool {
    steering.is_empty() && decoder.config().experts.is_none() && decoder.device().is_cpu()
}

impl Prefixes {
    /// Reads a prompt from what is held of it on, and holds its first `ahead` tokens for the next one. `run` reads a batch behind a cache;
    /// what it gives for the prompt's end comes back with the cache.
    pub fn read<T>(
        &mut self,
        ids: &[u32],
        ahead: usize,
        mut run: impl FnMut(&Batch, &mut KvCache) -> model::Result<T>,
    ) -> model::Result<(T, KvCache)> {
        let is_start = |held: &Held| ids.starts_with(&held.ids) && ids.len() >= held.ids.len() + REST_MIN;
        while self.held.pop_if(|held| !is_start(held)).is_some() {}
        let (mut cache, mut start) = match self.held.last_mut() {
            Some(held) => (held.cache.select(&[0]), held.ids.len()),
            None => (KvCache::new(), 0),
        };
        self.spared_count += start as u64;
        if ahead > start {
            run(&Batch::pack(&[&ids[start..ahead]]), &mut cache)?;
            self.held.push(Held {
                ids: ids[..ahead].to_vec(),
                cache: cache.select(&[0]),
            });
            start = ahead;
        }
        let end = run(&Batch::pack(&[&ids[start..]]), &mut cache)?;
        Ok((end, cache))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_shared_and_leave_a_rest() {
        let prompt = |length: u32, end: u32| -> Vec<u32> { (0..length).chain([end, end]).collect() };
        assert_eq!(shared(&prompt(200, 1000), &prompt(200, 1001)), 128);
        // Of 130 tokens in common, 33 are left to be read.
        assert_eq!(shared(&prompt(130, 1000), &prompt(130, 1001)), 64);
        assert_eq!(shared(&prompt(64, 1000), &prompt(300, 1000)), 0);
        assert_eq!(shared(&[], &[]), 0);
    }
}

//! How well a group's text compresses: its samples one after another, each ended by a line feed, in pieces of 1 MiB that are
//! compressed each by itself with zstd at its default level. Pieces are cut by the text alone, so neither threads nor shards
//! change the ratio; repetition is seen within a piece.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const PIECE_BYTES: usize = 1 << 20;
const LEVEL: i32 = 3;

/// Compresses pieces on the thread pool, a few at a time.
#[derive(Clone)]
pub struct Compressor {
    queue: Arc<(Mutex<usize>, Condvar)>,
    length_max: usize,
}

impl Compressor {
    pub fn new(threads: usize) -> Self {
        Self {
            queue: Arc::default(),
            length_max: threads + 1,
        }
    }

    fn submit(&self, piece: Vec<u8>, compressed: Arc<AtomicU64>) {
        let (length, changed) = &*self.queue;
        let mut held = length.lock().expect("no holder panics");
        while *held >= self.length_max {
            held = changed.wait(held).expect("no holder panics");
        }
        *held += 1;
        drop(held);
        let queue = self.queue.clone();
        rayon::spawn(move || {
            compressed.fetch_add(compressed_len(&piece), Ordering::Relaxed);
            drop(piece);
            let (length, changed) = &*queue;
            *length.lock().expect("no holder panics") -= 1;
            changed.notify_all();
        });
    }

    fn wait(&self) {
        let (length, changed) = &*self.queue;
        let held = length.lock().expect("no holder panics");
        drop(
            changed
                .wait_while(held, |length| *length > 0)
                .expect("no holder panics"),
        );
    }
}

/// A buffer of the bound's size always suffices, so that only memory for zstd's own tables can be wanting.
fn compressed_len(piece: &[u8]) -> u64 {
    let compressed = zstd::bulk::compress(piece, LEVEL);
    compressed
        .unwrap_or_else(|_| process::memory::exhausted(piece.len()))
        .len() as u64
}

/// One group's text.
#[derive(Default)]
pub struct Text {
    pending: Vec<u8>,
    byte_count: u64,
    compressed: Arc<AtomicU64>,
}

impl Text {
    pub fn push(&mut self, text: &str, compressor: &Compressor) {
        self.byte_count += text.len() as u64 + 1;
        let mut rest = text.as_bytes();
        // BOUND: a piece holds at most PIECE_BYTES, whatever the length of a sample.
        while self.pending.len() + rest.len() + 1 > PIECE_BYTES {
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            compressor.submit(std::mem::take(&mut self.pending), self.compressed.clone());
        }
        self.pending.extend_from_slice(rest);
        self.pending.push(b'\n');
    }

    /// Uncompressed bytes per compressed byte, once all text was pushed.
    pub fn ratio(&self, compressor: &Compressor) -> Option<f64> {
        compressor.wait();
        if self.byte_count == 0 {
            return None;
        }
        let last = if self.pending.is_empty() {
            0
        } else {
            compressed_len(&self.pending)
        };
        Some(self.byte_count as f64 / (self.compressed.load(Ordering::Relaxed) + last) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_compresses_and_long_samples_are_cut() {
        let compressor = Compressor::new(2);
        let mut text = Text::default();
        text.push(&"I'm sorry, but I can't. ".repeat(200_000), &compressor);
        for _ in 0..1000 {
            text.push("I'm sorry, but I can't.", &compressor);
        }
        assert!(text.ratio(&compressor).unwrap() > 1000.0);
        assert!(text.pending.len() <= PIECE_BYTES);
        assert_eq!(Text::default().ratio(&compressor), None);
    }
}

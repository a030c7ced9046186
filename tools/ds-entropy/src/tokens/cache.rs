//! What a piece of text tokenises to, remembered: text repeats its words, and a look-up costs less than any tokeniser.
//!
//! Keys are the bytes of the piece and a context byte, compared in full. The cache forgets everything when it reaches its
//! bound, so memory stays bounded on text that never repeats.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// A longer piece is tokenised anew every time: it hardly ever comes back.
const PIECE_BYTES_MAX: usize = 64;

struct Slot {
    hash: u64,
    key_start: u32,
    key_len: u8,
    context: u8,
    id_count: u16,
    id_start: u32,
}

pub struct PieceCache {
    hasher: DefaultHashBuilder,
    slots: HashTable<Slot>,
    keys: Vec<u8>,
    ids: Vec<u32>,
    bytes_max: usize,
}

impl PieceCache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            slots: HashTable::new(),
            keys: Vec::new(),
            ids: Vec::new(),
            bytes_max: bytes_max.min(1 << 31),
        }
    }

    /// Appends the ids of `piece` to `out`, from memory or by `tokenize`, which appends them itself.
    #[inline]
    pub fn append<E>(
        &mut self,
        piece: &[u8],
        context: u8,
        out: &mut Vec<u32>,
        tokenize: impl FnOnce(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        if piece.len() > PIECE_BYTES_MAX {
            return tokenize(out);
        }
        let hash = self.hasher.hash_one(piece);
        let found = self.slots.find(hash, |slot| {
            slot.hash == hash
                && slot.context == context
                && &self.keys[slot.key_start as usize..][..usize::from(slot.key_len)] == piece
        });
        if let Some(slot) = found {
            let start = slot.id_start as usize;
            if slot.id_count == 1 {
                out.push(self.ids[start]);
            } else {
                out.extend_from_slice(&self.ids[start..start + usize::from(slot.id_count)]);
            }
            return Ok(());
        }
        let start = out.len();
        tokenize(out)?;
        self.remember(hash, piece, context, &out[start..]);
        Ok(())
    }

    #[cold]
    fn remember(&mut self, hash: u64, piece: &[u8], context: u8, ids: &[u32]) {
        let slot_bytes = size_of::<Slot>() + 2;
        let bytes = self.slots.capacity() * slot_bytes + self.keys.capacity() + self.ids.capacity() * 4;
        if bytes > self.bytes_max {
            self.slots.clear();
            self.keys.clear();
            self.ids.clear();
        }
        // A piece of at most 64 bytes has at most a few tokens per byte; more is not worth keeping.
        let Ok(id_count) = u16::try_from(ids.len()) else { return };
        // BOUND: both arenas stay below 2^32 entries, as they are emptied at `bytes_max` <= 2^31 bytes.
        let slot = Slot {
            hash,
            key_start: self.keys.len() as u32,
            key_len: piece.len() as u8,
            context,
            id_count,
            id_start: self.ids.len() as u32,
        };
        self.keys.extend_from_slice(piece);
        self.ids.extend_from_slice(ids);
        self.slots.insert_unique(hash, slot, |slot| slot.hash);
    }
}

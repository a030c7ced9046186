//! The frames of a container, byte for byte; `man/acts.5` has the same tables. All integers are little-endian.
//!
//! Header frame, first in the file
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | skippable magic 0x184D2A50 |
//! | 4 | 4 | length of what follows: 48 + n |
//! | 8 | 8 | `flacts\r\n` |
//! | 16 | 4 | version, 1 |
//! | 20 | 4 | n, bytes of the JSON text |
//! | 24 | n | JSON text, UTF-8 |
//! | 24+n | 32 | BLAKE3 of bytes 0 .. 24+n |
//!
//! Block descriptor, before each payload
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | skippable magic 0x184D2A51 |
//! | 4 | 4 | length of what follows: 64 + p |
//! | 8 | 8 | block number, from 0 |
//! | 16 | 4 | tensor index |
//! | 20 | 4 | rows |
//! | 24 | 8 | first row |
//! | 32 | 4 | raw bytes |
//! | 36 | 4 | payload bytes, frame headers included |
//! | 40 | 32 | BLAKE3 keyed by the file id of bytes 8 .. 40 and the payload |
//! | 72 | p | zeros; p = 0 unless the codec is `stored`, where p < 4096 places the raw bytes at a multiple of 4096 |
//!
//! Payload: `stored`: skippable magic 0x184D2A52, raw bytes' length (4 bytes), raw bytes. `zstd`: one zstd frame. `zstd-planes`: one zstd
//! frame per byte of the element, least significant first. Every zstd frame states its content size and carries a checksum.
//!
//! Manifest frame, after the last block
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | skippable magic 0x184D2A53 |
//! | 4 | 4 | length of what follows: 128 + 64·(t + b) |
//! | 8 | 8 | `actsend\n` |
//! | 16 | 4 | state: 1 complete, 2 partial, 3 salvaged |
//! | 20 | 4 | t, tensors |
//! | 24 | 8 | b, blocks |
//! | 32 | 8 | offset of this frame |
//! | 40 | 32 | the header's digest |
//! | 72 | 32 | BLAKE3 of the seek table frame |
//! | 104 | 64·t | per tensor: rows (8), raw bytes (8), NaN count (8), infinity count (8), BLAKE3 of its raw bytes in row order (32) |
//! | 104+64·t | 64·b | per block: offset of its descriptor (8), tensor index (4), rows (4), first row (8), raw bytes (4), payload bytes (4), digest (32) |
//! | 104+64·(t+b) | 32 | BLAKE3 keyed by the file id of everything before |
//!
//! Seek table, the last frame: the official zstd seekable format (skippable magic 0x184D2A5E; per frame compressed and decompressed size, 4
//! bytes each; number of frames; descriptor 0; magic 0x8F92EAB1), one entry for every frame above in order, skippable ones with size 0.

use crate::{Error, Result, limits};

pub(crate) const HEADER_MAGIC: u32 = 0x184D_2A50;
pub(crate) const BLOCK_MAGIC: u32 = 0x184D_2A51;
pub(crate) const STORED_MAGIC: u32 = 0x184D_2A52;
pub(crate) const MANIFEST_MAGIC: u32 = 0x184D_2A53;
pub(crate) const SEEK_MAGIC: u32 = 0x184D_2A5E;
pub(crate) const SEEK_FOOTER_MAGIC: u32 = 0x8F92_EAB1;
pub(crate) const ACTS_MAGIC: &[u8; 8] = b"flacts\r\n";
pub(crate) const END_MAGIC: &[u8; 8] = b"actsend\n";

/// The version of the format that this build writes and reads.
pub const VERSION: u32 = 1;

pub(crate) const FRAME_HEAD: usize = 8;
/// Bytes before the header's JSON text.
pub(crate) const HEADER_HEAD: usize = 24;
pub(crate) const DIGEST: usize = 32;
/// A descriptor without its padding.
pub(crate) const DESCRIPTOR: usize = 72;
pub(crate) const MANIFEST_HEAD: usize = 104;
pub(crate) const MANIFEST_ENTRY: usize = 64;
pub(crate) const SEEK_ENTRY: usize = 8;
pub(crate) const SEEK_FOOTER: usize = 9;

/// Bytes taken from the front, every step checked.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// `u64` from a length in memory: cannot fail where `usize` has at most 64 bits.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// `usize` from a length that a limit has already bounded.
pub(crate) fn narrow(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A 32-bit frame length from a size that the limits keep below 4 GiB.
pub(crate) fn frame_length(what: &'static str, length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::LimitExceeded {
        what: what.into(),
        value: wide(length),
        limit: u64::from(u32::MAX),
    })
}

pub(crate) fn skippable_head(magic: u32, length: u32) -> [u8; FRAME_HEAD] {
    let mut head = [0u8; FRAME_HEAD];
    let (left, right) = head.split_at_mut(4);
    left.copy_from_slice(&magic.to_le_bytes());
    right.copy_from_slice(&length.to_le_bytes());
    head
}

/// The header frame around its JSON text, and the text's digest.
pub(crate) fn encode_header(json: &[u8]) -> Result<(Vec<u8>, [u8; DIGEST])> {
    let text_length = frame_length("header", json.len())?;
    let length = text_length
        .checked_add(48)
        .ok_or_else(|| Error::Header("too long".into()))?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&skippable_head(HEADER_MAGIC, length));
    bytes.extend_from_slice(ACTS_MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&text_length.to_le_bytes());
    bytes.extend_from_slice(json);
    let digest = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&digest);
    Ok((bytes, digest))
}

/// Checks the first 24 bytes and tells how long the JSON text is.
pub(crate) fn header_text_length(head: &[u8]) -> Result<usize> {
    let mut bytes = Bytes(head);
    let truncated = || Error::Truncated {
        at: wide(head.len()),
        expected: "the header frame",
    };
    let first = HEADER_MAGIC.to_le_bytes();
    let marks = [(0, first.as_slice()), (8, ACTS_MAGIC.as_slice())];
    // As far as the bytes go, so that a header cut short is called so.
    let agrees = marks
        .iter()
        .all(|(at, mark)| head.iter().skip(*at).zip(*mark).all(|(found, byte)| found == byte));
    if head.is_empty() || !agrees {
        return Err(Error::NotActs {
            looks_like: looks_like(head),
        });
    }
    bytes.u32().ok_or_else(truncated)?;
    let length = bytes.u32().ok_or_else(truncated)?;
    bytes.take(ACTS_MAGIC.len()).ok_or_else(truncated)?;
    let version = bytes.u32().ok_or_else(truncated)?;
    if version != VERSION {
        return Err(Error::UnsupportedVersion {
            found: version,
            known: VERSION,
        });
    }
    let text_length = bytes.u32().ok_or_else(truncated)?;
    let limit = wide(limits::HEADER_JSON_BYTES);
    if u64::from(text_length) > limit {
        return Err(Error::LimitExceeded {
            what: "header".into(),
            value: u64::from(text_length),
            limit,
        });
    }
    if text_length.checked_add(48) != Some(length) {
        return Err(Error::malformed(
            "header",
            4,
            format!("frame length {length} does not hold {text_length} bytes of text"),
        ));
    }
    usize::try_from(text_length).map_err(|_| truncated())
}

/// What a file that is not a container probably is, for the one line that refuses it.
fn looks_like(head: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 9] = [
        (b"\x28\xb5\x2f\xfd", "plain zstd"),
        (b"\x1f\x8b", "gzip"),
        (b"\x93NUMPY", "npy"),
        (b"PK\x03\x04", "zip, as npz and pt are"),
        (b"PAR1", "Parquet"),
        (b"\x89HDF", "HDF5"),
        (b"\x80\x02", "pickle"),
        (b"{", "JSON"),
        (b"\0\0\0\0\0\0\0\0", "zeros"),
    ];
    if head.is_empty() {
        return Some("an empty file");
    }
    // safetensors: an 8-byte header length, then the JSON object.
    if head.get(8) == Some(&b'{') {
        return Some("safetensors");
    }
    KINDS
        .into_iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, kind)| kind)
}

/// One block's place and size, as its descriptor and the manifest state it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub number: u64,
    pub tensor: u32,
    pub row_count: u32,
    pub first_row: u64,
    pub raw_bytes: u32,
    pub payload_bytes: u32,
    pub digest: [u8; DIGEST],
}

impl Descriptor {
    /// Bytes 8 .. 40: what the digest covers besides the payload.
    fn fields(&self) -> [u8; 32] {
        let mut bytes = [0u8; 32];
        let parts: [&[u8]; 6] = [
            &self.number.to_le_bytes(),
            &self.tensor.to_le_bytes(),
            &self.row_count.to_le_bytes(),
            &self.first_row.to_le_bytes(),
            &self.raw_bytes.to_le_bytes(),
            &self.payload_bytes.to_le_bytes(),
        ];
        for (slot, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        bytes
    }

    pub fn digest_of(&self, key: &[u8; DIGEST], payload: &[u8]) -> [u8; DIGEST] {
        let mut hash = blake3::Hasher::new_keyed(key);
        hash.update(&self.fields());
        hash.update(payload);
        *hash.finalize().as_bytes()
    }

    /// The descriptor frame, padded with `padding` zeros.
    pub fn encode(&self, padding: usize) -> Result<Vec<u8>> {
        let length = frame_length(
            "descriptor",
            padding.saturating_add(DESCRIPTOR).saturating_sub(FRAME_HEAD),
        )?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&skippable_head(BLOCK_MAGIC, length));
        bytes.extend_from_slice(&self.fields());
        bytes.extend_from_slice(&self.digest);
        bytes.resize(DESCRIPTOR.saturating_add(padding), 0);
        Ok(bytes)
    }

    /// Reads the first 72 bytes of a descriptor frame: the descriptor and the length of its padding.
    pub fn decode(bytes: &[u8], at: u64) -> Result<(Descriptor, usize)> {
        let mut source = Bytes(bytes);
        let mut read = || {
            let magic = source.u32()?;
            let length = source.u32()?;
            let descriptor = Descriptor {
                number: source.u64()?,
                tensor: source.u32()?,
                row_count: source.u32()?,
                first_row: source.u64()?,
                raw_bytes: source.u32()?,
                payload_bytes: source.u32()?,
                digest: source.array()?,
            };
            Some((magic, length, descriptor))
        };
        let (magic, length, descriptor) = read().ok_or(Error::Truncated {
            at,
            expected: "a block descriptor",
        })?;
        let padding = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_sub(DESCRIPTOR.saturating_sub(FRAME_HEAD)));
        match padding {
            Some(padding) if magic == BLOCK_MAGIC => Ok((descriptor, padding)),
            _ => Err(Error::malformed(
                "block descriptor",
                at,
                format!("magic {magic:#010x}, length {length}"),
            )),
        }
    }
}

/// Zeros after a `stored` descriptor at `offset`, so that the raw bytes begin at a multiple of the alignment.
pub(crate) fn stored_padding(offset: u64) -> usize {
    let data = offset.wrapping_add(wide(DESCRIPTOR)).wrapping_add(wide(FRAME_HEAD));
    let beyond = data.checked_rem(limits::STORED_ALIGNMENT).unwrap_or(0);
    narrow(
        limits::STORED_ALIGNMENT
            .wrapping_sub(beyond)
            .checked_rem(limits::STORED_ALIGNMENT)
            .unwrap_or(0),
    )
}

/// The end of the seek table: how many frames it claims, bounded by the bytes that are there.
pub(crate) fn decode_seek_footer(footer: &[u8]) -> Option<u32> {
    let mut bytes = Bytes(footer);
    let frames = bytes.u32()?;
    let [descriptor] = bytes.array::<1>()?;
    let magic = bytes.u32()?;
    (magic == SEEK_FOOTER_MAGIC && descriptor == 0).then_some(frames)
}

pub(crate) fn seek_table_bytes(frames: u64) -> Option<u64> {
    frames
        .checked_mul(wide(SEEK_ENTRY))?
        .checked_add(wide(FRAME_HEAD))?
        .checked_add(wide(SEEK_FOOTER))
}

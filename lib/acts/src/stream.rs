//! Reading a container that can only be read forward, such as a pipe. Each block is verified before it is handed out; the trailer is
//! recomputed from the blocks and must equal the trailer that arrives, byte for byte. Only then does [`Stream::next_block`] say `None`.

use crate::codec::{Decoder, frame_sizes};
use crate::dtype::NonFinite;
use crate::error::{reserve, resize};
use crate::file::parse_header;
use crate::frame::{
    BLOCK_MAGIC, Bytes, DESCRIPTOR, DIGEST, Descriptor, FRAME_HEAD, HEADER_HEAD, HEADER_MAGIC, MANIFEST_MAGIC,
    header_text_length, narrow, wide,
};
use crate::ledger::{BlockEntry, Ledger, Manifest, State, check};
use crate::writer::Summary;
use crate::{Error, Header, Result};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::io::Read;

/// Rows of one tensor, verified.
#[derive(Debug, Clone)]
pub struct Block {
    /// Index of the tensor in the header.
    pub tensor: usize,
    pub first_row: u64,
    pub row_count: u64,
    /// Little-endian elements.
    pub raw: Vec<u8>,
}

struct Arrived {
    entry: BlockEntry,
    payload: Vec<u8>,
}

struct Decoded {
    descriptor: Descriptor,
    frames: Vec<(u32, u32)>,
    non_finite: NonFinite,
    raw: Vec<u8>,
}

enum Phase {
    Blocks,
    /// The manifest's first bytes have arrived; the blocks before it may still be queued.
    Trailer([u8; FRAME_HEAD]),
    Accepted,
    Failed,
}

pub struct Stream<R: Read> {
    source: R,
    header: Header,
    pub(crate) ledger: Ledger,
    allow_partial: bool,
    /// Offset and number of blocks read from the source, ahead of what was handed out.
    read_offset: u64,
    read_blocks: u64,
    queue: VecDeque<Result<Decoded>>,
    phase: Phase,
    summary: Option<Summary>,
    batch: usize,
}

impl<R: Read> Stream<R> {
    /// Reads and verifies the header.
    pub fn new(mut source: R, allow_partial: bool) -> Result<Stream<R>> {
        let mut frame = Vec::new();
        read_up_to(&mut source, &mut frame, HEADER_HEAD)?;
        let text_length = header_text_length(&frame)?;
        read_up_to(&mut source, &mut frame, text_length.saturating_add(DIGEST))?;
        if frame.len() != text_length.saturating_add(DIGEST).saturating_add(HEADER_HEAD) {
            return Err(Error::Truncated {
                at: wide(frame.len()),
                expected: "the header",
            });
        }
        let (header, digest) = parse_header(&frame)?;
        if header.salvaged {
            State::Salvaged.accept(allow_partial)?;
        }
        let ledger = Ledger::new(&header, digest, wide(frame.len()))?;
        Ok(Stream {
            source,
            read_offset: ledger.offset(),
            read_blocks: 0,
            header,
            ledger,
            allow_partial,
            queue: VecDeque::new(),
            phase: Phase::Blocks,
            summary: None,
            batch: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the whole container held; known once [`Stream::next_block`] has returned `None`.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    pub(crate) fn into_parts(self) -> (Header, Ledger) {
        (self.header, self.ledger)
    }

    /// The next block, or `None` when the container has ended and every claim of its trailer holds. After an error nothing more comes.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        let result = self.advance();
        if result.is_err() {
            self.phase = Phase::Failed;
            self.queue.clear();
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Block>> {
        loop {
            if let Some(next) = self.queue.pop_front() {
                let Decoded {
                    descriptor,
                    frames,
                    non_finite,
                    raw,
                } = next?;
                let tensor = narrow(u64::from(descriptor.tensor));
                self.ledger.absorb(tensor, &raw);
                self.ledger.admit(&self.header, descriptor, &frames, non_finite)?;
                return Ok(Some(Block {
                    tensor,
                    first_row: descriptor.first_row,
                    row_count: u64::from(descriptor.row_count),
                    raw,
                }));
            }
            match self.phase {
                Phase::Blocks => self.fill(),
                Phase::Trailer(head) => {
                    self.end(head)?;
                    self.phase = Phase::Accepted;
                }
                Phase::Accepted => return Ok(None),
                Phase::Failed => return Err(Error::Misuse("this stream was refused before".into())),
            }
        }
    }

    /// Reads some blocks and decodes them in parallel. An error waits in the queue behind the blocks that came before it.
    fn fill(&mut self) {
        let mut arrived = Vec::new();
        let mut failure = None;
        while arrived.len() < self.batch && matches!(self.phase, Phase::Blocks) {
            match self.arrive() {
                Ok(Some(block)) => arrived.push(block),
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let (header, key) = (&self.header, *self.ledger.key());
        let decode = |block: &Arrived| decode(header, &key, block);
        match arrived.as_slice() {
            [one] => self.queue.push_back(decode(one)),
            many => self.queue.extend(many.par_iter().map(decode).collect::<Vec<_>>()),
        }
        if let Some(error) = failure {
            self.queue.push_back(Err(error));
        }
    }

    /// Reads one block, or the first bytes of the trailer.
    fn arrive(&mut self) -> Result<Option<Arrived>> {
        let at = self.read_offset;
        let mut head = Vec::new();
        read_up_to(&mut self.source, &mut head, FRAME_HEAD)?;
        let frame_head = *head.first_chunk::<FRAME_HEAD>().ok_or(Error::Truncated {
            at: at.saturating_add(wide(head.len())),
            expected: "a block or the manifest",
        })?;
        match Bytes(&head).u32() {
            Some(MANIFEST_MAGIC) => {
                self.phase = Phase::Trailer(frame_head);
                return Ok(None);
            }
            Some(BLOCK_MAGIC) => {}
            magic => {
                return Err(Error::malformed(
                    "frame",
                    at,
                    format!(
                        "magic {:#010x} is neither a block's nor the manifest's",
                        magic.unwrap_or_default()
                    ),
                ));
            }
        }
        read_up_to(&mut self.source, &mut head, DESCRIPTOR.saturating_sub(FRAME_HEAD))?;
        let (descriptor, padding) = Descriptor::decode(&head, at)?;
        if descriptor.number != self.read_blocks {
            return Err(Error::BlockMisplaced {
                found: descriptor.number,
                expected: self.read_blocks,
                at,
            });
        }
        let spec = check(&self.header, &descriptor, at)?;
        let entry = BlockEntry { offset: at, descriptor };
        if padding != entry.padding(spec) {
            return Err(Error::malformed(
                "block descriptor",
                at,
                format!("{padding} bytes of padding where {} belong", entry.padding(spec)),
            ));
        }
        let mut zeros = Vec::new();
        read_up_to(&mut self.source, &mut zeros, padding)?;
        let mut payload = Vec::new();
        let payload_bytes = narrow(u64::from(descriptor.payload_bytes));
        read_up_to(&mut self.source, &mut payload, payload_bytes)?;
        if zeros.len() != padding || payload.len() != payload_bytes {
            let at = entry.payload_offset(spec).saturating_add(wide(payload.len()));
            return Err(Error::Truncated {
                at,
                expected: "the rest of a block",
            });
        }
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(Error::ChecksumMismatch {
                what: format!("padding of block {}", descriptor.number),
                at,
            });
        }
        self.read_offset = entry.end(spec);
        self.read_blocks = self.read_blocks.saturating_add(1);
        Ok(Some(Arrived { entry, payload }))
    }

    /// Compares the trailer with the one that the blocks call for.
    fn end(&mut self, frame_head: [u8; FRAME_HEAD]) -> Result<()> {
        let at = self.ledger.offset();
        let mut head = frame_head.to_vec();
        read_up_to(&mut self.source, &mut head, 24)?;
        Manifest::announced_bytes(&head, at)?;
        let state = [State::Complete, State::Partial, State::Salvaged]
            .into_iter()
            .find(|state| head.get(16..20) == Some(&state_code(*state)))
            .ok_or_else(|| Error::malformed("manifest", at, "unknown state"))?;
        if self.header.salvaged != (state == State::Salvaged) {
            return Err(Error::malformed(
                "manifest",
                at,
                format!("its state is {}, the header says otherwise", state.name()),
            ));
        }
        state.accept(self.allow_partial)?;
        if state == State::Complete {
            self.ledger.check_complete(&self.header)?;
        }
        let (manifest, seek) = self.ledger.trailer(&self.header, state)?;
        let rest = manifest.len().saturating_sub(head.len());
        read_up_to(&mut self.source, &mut head, rest)?;
        let mut offset = at;
        for (what, expected, found) in [("manifest", &manifest, Some(head)), ("seek table", &seek, None)] {
            let found = match found {
                Some(found) => found,
                None => {
                    let mut found = Vec::new();
                    read_up_to(&mut self.source, &mut found, expected.len())?;
                    found
                }
            };
            if found.len() < expected.len() && expected.starts_with(&found) {
                return Err(Error::Truncated {
                    at: offset.saturating_add(wide(found.len())),
                    expected: what,
                });
            }
            if &found != expected {
                return Err(Error::ChecksumMismatch {
                    what: format!("{what}, compared with the blocks,"),
                    at: offset,
                });
            }
            offset = offset.saturating_add(wide(expected.len()));
        }
        let mut beyond = Vec::new();
        read_up_to(&mut self.source, &mut beyond, 4)?;
        if Bytes(&beyond).u32() == Some(HEADER_MAGIC) {
            return Err(Error::Concatenated { excess_bytes: offset });
        }
        if !beyond.is_empty() {
            return Err(Error::TrailingBytes { at: offset });
        }
        self.summary = Some(Summary {
            state,
            tensors: self.ledger.summaries(&self.header)?,
            block_count: self.ledger.block_count(),
            file_bytes: offset,
        });
        Ok(())
    }
}

fn state_code(state: State) -> [u8; 4] {
    state.code().to_le_bytes()
}

fn decode(header: &Header, key: &[u8; DIGEST], block: &Arrived) -> Result<Decoded> {
    let BlockEntry { offset, descriptor } = block.entry;
    if descriptor.digest_of(key, &block.payload) != descriptor.digest {
        return Err(Error::ChecksumMismatch {
            what: format!("block {}", descriptor.number),
            at: offset,
        });
    }
    let spec = check(header, &descriptor, offset)?;
    let raw_bytes = narrow(u64::from(descriptor.raw_bytes));
    let mut raw = reserve(raw_bytes)?;
    resize(&mut raw, raw_bytes)?;
    Decoder::new().decode(spec.codec, spec.dtype.bytes(), &block.payload, &mut raw, offset)?;
    let frames = frame_sizes(
        spec.codec,
        spec.dtype.bytes(),
        &block.payload,
        descriptor.raw_bytes,
        offset,
    )?;
    Ok(Decoded {
        descriptor,
        frames,
        non_finite: NonFinite::count(spec.dtype, &raw),
        raw,
    })
}

/// Appends up to `count` bytes; fewer only at the end of the source. Memory grows with the bytes that arrive, not with the claim.
fn read_up_to(source: &mut impl Read, buffer: &mut Vec<u8>, count: usize) -> Result<()> {
    const STEP: usize = 1 << 20;
    let mut left = count;
    while left > 0 {
        let step = left.min(STEP);
        let start = buffer.len();
        resize(buffer, start.saturating_add(step))?;
        let mut filled = start;
        while filled < buffer.len() {
            let target = buffer.get_mut(filled..).unwrap_or_default();
            match source.read(target) {
                Ok(0) => {
                    buffer.truncate(filled);
                    return Ok(());
                }
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read")(error)),
            }
        }
        left = left.saturating_sub(step);
    }
    Ok(())
}

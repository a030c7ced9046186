//! What a container has held so far, block by block: the one place that knows which block may follow which, and what the trailer of
//! such a container must be. The writer, the pipe reader, the recovery of a partial file and `verify` all keep one and compare.

use crate::dtype::NonFinite;
use crate::error::reserve;
use crate::frame::{
    Bytes, DESCRIPTOR, DIGEST, Descriptor, END_MAGIC, FRAME_HEAD, MANIFEST_ENTRY, MANIFEST_HEAD, MANIFEST_MAGIC,
    SEEK_FOOTER_MAGIC, SEEK_MAGIC, frame_length, narrow, seek_table_bytes, skippable_head, stored_padding, wide,
};
use crate::header::check_rows;
use crate::{Codec, Error, Header, Result, TensorSpec, limits};

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything that was planned.
    Complete,
    /// The producer ended early and said so; what is there is in order.
    Partial,
    /// Made from what verified of a damaged container: rows may be missing.
    Salvaged,
}

impl State {
    pub(crate) fn code(self) -> u32 {
        match self {
            State::Complete => 1,
            State::Partial => 2,
            State::Salvaged => 3,
        }
    }

    fn from_code(code: u32) -> Option<State> {
        [State::Complete, State::Partial, State::Salvaged]
            .into_iter()
            .find(|state| state.code() == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Partial => "partial",
            State::Salvaged => "salvaged",
        }
    }

    /// Refuses what is not complete unless the caller asked for it.
    pub(crate) fn accept(self, allow_partial: bool) -> Result<()> {
        if self == State::Complete || allow_partial {
            Ok(())
        } else {
            Err(Error::Incomplete(self.name()))
        }
    }
}

/// One block as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub offset: u64,
    pub descriptor: Descriptor,
}

impl BlockEntry {
    pub fn padding(&self, spec: &TensorSpec) -> usize {
        if spec.codec == Codec::Stored {
            stored_padding(self.offset)
        } else {
            0
        }
    }

    pub fn payload_offset(&self, spec: &TensorSpec) -> u64 {
        self.offset
            .saturating_add(wide(DESCRIPTOR.saturating_add(self.padding(spec))))
    }

    /// The first byte after the block.
    pub fn end(&self, spec: &TensorSpec) -> u64 {
        self.payload_offset(spec)
            .saturating_add(u64::from(self.descriptor.payload_bytes))
    }
}

/// Totals of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSummary {
    pub row_count: u64,
    pub raw_bytes: u64,
    pub non_finite: NonFinite,
    /// BLAKE3 of the raw bytes in row order: equal rows have equal digests whatever the codec and the block size.
    pub content_digest: [u8; DIGEST],
}

struct Tally {
    row_count: u64,
    /// Rows present; fewer than `row_count` only where a salvage left holes.
    rows_present: u64,
    /// A block shorter than the others was seen: nothing may follow it.
    is_closed: bool,
    non_finite: NonFinite,
    content: blake3::Hasher,
}

pub(crate) struct Ledger {
    key: [u8; DIGEST],
    header_digest: [u8; DIGEST],
    salvaged: bool,
    tallies: Vec<Tally>,
    blocks: Vec<BlockEntry>,
    /// (compressed, decompressed) of every frame so far.
    frames: Vec<(u32, u32)>,
    offset: u64,
}

impl Ledger {
    pub fn new(header: &Header, header_digest: [u8; DIGEST], header_bytes: u64) -> Result<Ledger> {
        let length = u32::try_from(header_bytes).map_err(|_| Error::Header("too long".into()))?;
        let tally = || Tally {
            row_count: 0,
            rows_present: 0,
            is_closed: false,
            non_finite: NonFinite::default(),
            content: blake3::Hasher::new(),
        };
        let mut tallies = Vec::new();
        tallies
            .try_reserve_exact(header.tensors.len())
            .map_err(|_| Error::out_of_memory(header.tensors.len()))?;
        tallies.extend(header.tensors.iter().map(|_| tally()));
        Ok(Ledger {
            key: header.key()?,
            header_digest,
            salvaged: header.salvaged,
            tallies,
            blocks: Vec::new(),
            frames: vec![(length, 0)],
            offset: header_bytes,
        })
    }

    pub fn key(&self) -> &[u8; DIGEST] {
        &self.key
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn block_count(&self) -> u64 {
        wide(self.blocks.len())
    }

    pub fn row_count(&self, tensor: usize) -> u64 {
        self.tallies.get(tensor).map_or(0, |tally| tally.row_count)
    }

    pub fn is_closed(&self, tensor: usize) -> bool {
        self.tallies.get(tensor).is_some_and(|tally| tally.is_closed)
    }

    /// Adds raw bytes to a tensor's content digest; the writer does so when it cuts a block, before the block is compressed.
    pub fn absorb(&mut self, tensor: usize, raw: &[u8]) {
        if let Some(tally) = self.tallies.get_mut(tensor) {
            tally.content.update(raw);
        }
    }

    /// Enters a block whose descriptor [`check`] has accepted at the current offset.
    pub fn admit(
        &mut self,
        header: &Header,
        descriptor: Descriptor,
        frames: &[(u32, u32)],
        non_finite: NonFinite,
    ) -> Result<()> {
        let spec = check(header, &descriptor, self.offset)?;
        let tensor = narrow(u64::from(descriptor.tensor));
        let entry = BlockEntry {
            offset: self.offset,
            descriptor,
        };
        self.follows(spec, &entry)?;
        let room = frames.len().saturating_add(1);
        self.blocks
            .try_reserve(1)
            .map_err(|_| Error::out_of_memory(self.blocks.len()))?;
        self.frames
            .try_reserve(room)
            .map_err(|_| Error::out_of_memory(self.frames.len()))?;
        let descriptor_bytes = frame_length("descriptor", DESCRIPTOR.saturating_add(entry.padding(spec)))?;
        self.frames.push((descriptor_bytes, 0));
        self.frames.extend_from_slice(frames);
        self.offset = entry.end(spec);
        self.blocks.push(entry);
        if let Some(tally) = self.tallies.get_mut(tensor) {
            tally.row_count = descriptor.first_row.saturating_add(u64::from(descriptor.row_count));
            tally.rows_present = tally.rows_present.saturating_add(u64::from(descriptor.row_count));
            tally.is_closed = u64::from(descriptor.row_count) < spec.block_row_count;
            tally.non_finite.add(non_finite);
        }
        Ok(())
    }

    /// Whether a block may stand here: numbers without gaps, rows without gaps (a salvaged container may skip), nothing after a short block.
    fn follows(&self, spec: &TensorSpec, entry: &BlockEntry) -> Result<()> {
        let Descriptor {
            number,
            tensor,
            first_row,
            ..
        } = entry.descriptor;
        if number != self.block_count() {
            return Err(Error::BlockMisplaced {
                found: number,
                expected: self.block_count(),
                at: entry.offset,
            });
        }
        if number >= limits::BLOCKS {
            return Err(Error::LimitExceeded {
                what: "block count".into(),
                value: number.saturating_add(1),
                limit: limits::BLOCKS,
            });
        }
        let tensor = narrow(u64::from(tensor));
        let expected = self.row_count(tensor);
        let in_order = if self.salvaged {
            first_row >= expected
        } else {
            first_row == expected && !self.is_closed(tensor)
        };
        if !in_order {
            let cause = format!("rows of {} from {first_row} where row {expected} follows", spec.name);
            return Err(Error::malformed(format!("block {number}"), entry.offset, cause));
        }
        Ok(())
    }

    pub fn summaries(&self, header: &Header) -> Result<Vec<TensorSummary>> {
        header
            .tensors
            .iter()
            .zip(&self.tallies)
            .map(|(spec, tally)| {
                Ok(TensorSummary {
                    row_count: tally.row_count,
                    raw_bytes: check_rows(spec, tally.rows_present)?,
                    non_finite: tally.non_finite,
                    content_digest: *tally.content.clone().finalize().as_bytes(),
                })
            })
            .collect()
    }

    /// Refuses to call complete what holds fewer or more rows than the header declares.
    pub fn check_complete(&self, header: &Header) -> Result<()> {
        for (spec, tally) in header.tensors.iter().zip(&self.tallies) {
            if spec.row_count.is_some_and(|declared| declared != tally.row_count) {
                let declared = spec.row_count.unwrap_or_default();
                return Err(Error::Header(format!(
                    "{} declares {declared} rows, its blocks hold {}",
                    spec.name, tally.row_count
                )));
            }
        }
        Ok(())
    }

    /// The manifest and the seek table that end this container.
    pub fn trailer(&self, header: &Header, state: State) -> Result<(Vec<u8>, Vec<u8>)> {
        let summaries = self.summaries(header)?;
        let entries = summaries.len().saturating_add(self.blocks.len());
        let manifest_bytes = entries
            .saturating_mul(MANIFEST_ENTRY)
            .saturating_add(MANIFEST_HEAD)
            .saturating_add(DIGEST);
        let manifest_length = frame_length("manifest", manifest_bytes)?;

        let frames = self.frames.len().saturating_add(1);
        let seek_bytes = narrow(seek_table_bytes(wide(frames)).unwrap_or(u64::MAX));
        let seek_length = frame_length("seek table", seek_bytes)?;
        let mut seek = reserve(seek_bytes)?;
        seek.extend_from_slice(&skippable_head(SEEK_MAGIC, seek_length.saturating_sub(8)));
        for (stored, raw) in self.frames.iter().chain(&[(manifest_length, 0)]) {
            seek.extend_from_slice(&stored.to_le_bytes());
            seek.extend_from_slice(&raw.to_le_bytes());
        }
        seek.extend_from_slice(&frame_length("frame count", frames)?.to_le_bytes());
        seek.push(0);
        seek.extend_from_slice(&SEEK_FOOTER_MAGIC.to_le_bytes());

        let mut manifest = reserve(manifest_bytes)?;
        manifest.extend_from_slice(&skippable_head(MANIFEST_MAGIC, manifest_length.saturating_sub(8)));
        manifest.extend_from_slice(END_MAGIC);
        manifest.extend_from_slice(&state.code().to_le_bytes());
        manifest.extend_from_slice(&frame_length("tensor count", summaries.len())?.to_le_bytes());
        manifest.extend_from_slice(&self.block_count().to_le_bytes());
        manifest.extend_from_slice(&self.offset.to_le_bytes());
        manifest.extend_from_slice(&self.header_digest);
        manifest.extend_from_slice(blake3::hash(&seek).as_bytes());
        for summary in &summaries {
            manifest.extend_from_slice(&summary.row_count.to_le_bytes());
            manifest.extend_from_slice(&summary.raw_bytes.to_le_bytes());
            manifest.extend_from_slice(&summary.non_finite.nan_count.to_le_bytes());
            manifest.extend_from_slice(&summary.non_finite.inf_count.to_le_bytes());
            manifest.extend_from_slice(&summary.content_digest);
        }
        for BlockEntry { offset, descriptor } in &self.blocks {
            manifest.extend_from_slice(&offset.to_le_bytes());
            manifest.extend_from_slice(&descriptor.tensor.to_le_bytes());
            manifest.extend_from_slice(&descriptor.row_count.to_le_bytes());
            manifest.extend_from_slice(&descriptor.first_row.to_le_bytes());
            manifest.extend_from_slice(&descriptor.raw_bytes.to_le_bytes());
            manifest.extend_from_slice(&descriptor.payload_bytes.to_le_bytes());
            manifest.extend_from_slice(&descriptor.digest);
        }
        manifest.extend_from_slice(blake3::keyed_hash(&self.key, &manifest).as_bytes());
        Ok((manifest, seek))
    }
}

/// Checks a descriptor against the header alone: sizes, limits, row arithmetic. Gives the tensor it belongs to.
pub(crate) fn check<'h>(header: &'h Header, descriptor: &Descriptor, at: u64) -> Result<&'h TensorSpec> {
    let refuse = |cause: String| Error::malformed(format!("block {}", descriptor.number), at, cause);
    let spec = header
        .tensors
        .get(narrow(u64::from(descriptor.tensor)))
        .ok_or_else(|| {
            refuse(format!(
                "tensor index {} of {}",
                descriptor.tensor,
                header.tensors.len()
            ))
        })?;
    let rows = u64::from(descriptor.row_count);
    if rows == 0 || rows > spec.block_row_count {
        return Err(refuse(format!(
            "{rows} rows, where a block of {} has 1 to {}",
            spec.name, spec.block_row_count
        )));
    }
    if descriptor.first_row.checked_rem(spec.block_row_count) != Some(0) {
        return Err(refuse(format!(
            "it begins at row {}, no multiple of {}",
            descriptor.first_row, spec.block_row_count
        )));
    }
    let end = descriptor
        .first_row
        .checked_add(rows)
        .ok_or_else(|| refuse("its last row overflows".into()))?;
    check_rows(spec, end)?;
    if spec.row_count.is_some_and(|declared| end > declared) {
        return Err(refuse(format!(
            "it ends at row {end} of {}, which declares {}",
            spec.name,
            spec.row_count.unwrap_or_default()
        )));
    }
    let raw = rows.checked_mul(spec.row_bytes()?);
    if raw != Some(u64::from(descriptor.raw_bytes)) {
        return Err(refuse(format!(
            "{rows} rows of {} do not make {} bytes",
            spec.name, descriptor.raw_bytes
        )));
    }
    let raw = u64::from(descriptor.raw_bytes);
    let payload = u64::from(descriptor.payload_bytes);
    let planes = if spec.codec == Codec::ZstdPlanes {
        wide(spec.dtype.bytes())
    } else {
        1
    };
    let allowed = match spec.codec {
        Codec::Stored => payload == raw.saturating_add(wide(FRAME_HEAD)),
        Codec::Zstd | Codec::ZstdPlanes => {
            payload <= limits::zstd_frame_bytes_max(raw.checked_div(planes).unwrap_or(raw)).saturating_mul(planes)
        }
    };
    if !allowed {
        return Err(refuse(format!("{payload} payload bytes for {raw} raw bytes")));
    }
    Ok(spec)
}

/// A manifest frame, its own digest verified, not yet compared with anything else.
pub(crate) struct Manifest {
    pub state: State,
    pub offset: u64,
    pub header_digest: [u8; DIGEST],
    pub seek_digest: [u8; DIGEST],
    pub tensors: Vec<TensorSummary>,
    pub blocks: Vec<BlockEntry>,
}

impl Manifest {
    /// Length of the whole frame that the first 32 bytes announce, refused unless the counts in it agree with the length.
    pub fn announced_bytes(head: &[u8], at: u64) -> Result<u64> {
        let mut source = Bytes(head);
        let mut read = || {
            Some((
                source.u32()?,
                source.u32()?,
                source.array::<8>()?,
                source.u32()?,
                source.u32()?,
                source.u64()?,
            ))
        };
        let (magic, length, name, _, tensors, blocks) = read().ok_or(Error::Truncated {
            at,
            expected: "the manifest",
        })?;
        let expected = blocks
            .checked_add(u64::from(tensors))
            .and_then(|entries| entries.checked_mul(wide(MANIFEST_ENTRY)))
            .and_then(|bytes| bytes.checked_add(wide(MANIFEST_HEAD.saturating_add(DIGEST))));
        let announced = u64::from(length).saturating_add(wide(FRAME_HEAD));
        if magic != MANIFEST_MAGIC || &name != END_MAGIC || blocks > limits::BLOCKS || expected != Some(announced) {
            return Err(Error::malformed(
                "manifest",
                at,
                format!("{announced} bytes do not hold {tensors} tensors and {blocks} blocks"),
            ));
        }
        Ok(announced)
    }

    /// Reads the frame, all of it, that begins at `at`.
    pub fn decode(bytes: &[u8], key: &[u8; DIGEST], header: &Header, at: u64) -> Result<Manifest> {
        Manifest::announced_bytes(bytes, at).and_then(|announced| {
            if announced == wide(bytes.len()) {
                Ok(())
            } else {
                Err(Error::malformed("manifest", at, "its length is wrong"))
            }
        })?;
        let (body, digest) = bytes.split_last_chunk::<DIGEST>().ok_or(Error::Truncated {
            at,
            expected: "the manifest",
        })?;
        if blake3::keyed_hash(key, body).as_bytes() != digest {
            return Err(Error::ChecksumMismatch {
                what: "manifest".into(),
                at,
            });
        }
        let refuse = |cause: String| Error::malformed("manifest", at, cause);
        let short = || refuse("it is too short".into());
        let mut source = Bytes(body);
        source.take(16).ok_or_else(short)?;
        let code = source.u32().ok_or_else(short)?;
        let state = State::from_code(code).ok_or_else(|| refuse(format!("state {code}")))?;
        let tensor_count = source.u32().ok_or_else(short)?;
        let block_count = source.u64().ok_or_else(short)?;
        let offset = source.u64().ok_or_else(short)?;
        let header_digest = source.array().ok_or_else(short)?;
        let seek_digest = source.array().ok_or_else(short)?;
        if narrow(u64::from(tensor_count)) != header.tensors.len() {
            return Err(refuse(format!(
                "{tensor_count} tensors where the header lists {}",
                header.tensors.len()
            )));
        }
        let mut tensors = Vec::new();
        tensors
            .try_reserve_exact(header.tensors.len())
            .map_err(|_| Error::out_of_memory(header.tensors.len()))?;
        for _ in &header.tensors {
            let mut read = || {
                Some(TensorSummary {
                    row_count: source.u64()?,
                    raw_bytes: source.u64()?,
                    non_finite: NonFinite {
                        nan_count: source.u64()?,
                        inf_count: source.u64()?,
                    },
                    content_digest: source.array()?,
                })
            };
            tensors.push(read().ok_or_else(short)?);
        }
        // BOUND: the counts were compared with the length of the bytes that are here.
        let mut blocks = Vec::new();
        let count = narrow(block_count);
        blocks
            .try_reserve_exact(count)
            .map_err(|_| Error::out_of_memory(count.saturating_mul(MANIFEST_ENTRY)))?;
        for number in 0..block_count {
            let mut read = || {
                Some(BlockEntry {
                    offset: source.u64()?,
                    descriptor: Descriptor {
                        number,
                        tensor: source.u32()?,
                        row_count: source.u32()?,
                        first_row: source.u64()?,
                        raw_bytes: source.u32()?,
                        payload_bytes: source.u32()?,
                        digest: source.array()?,
                    },
                })
            };
            blocks.push(read().ok_or_else(short)?);
        }
        Ok(Manifest {
            state,
            offset,
            header_digest,
            seek_digest,
            tensors,
            blocks,
        })
    }

    /// Every claim of the manifest that needs no block to check: offsets without holes or overlap, rows without gaps, totals.
    pub fn check(&self, header: &Header, header_digest: &[u8; DIGEST], header_bytes: u64, at: u64) -> Result<()> {
        let refuse = |cause: String| Error::malformed("manifest", at, cause);
        if &self.header_digest != header_digest {
            return Err(Error::ChecksumMismatch {
                what: "header, as the manifest knows it,".into(),
                at: 0,
            });
        }
        if self.offset != at {
            return Err(refuse(format!("it says that it stands at byte {}", self.offset)));
        }
        if header.salvaged != (self.state == State::Salvaged) {
            return Err(refuse(format!(
                "its state is {}, the header says otherwise",
                self.state.name()
            )));
        }
        let mut ledger = Ledger::new(header, *header_digest, header_bytes)?;
        for entry in &self.blocks {
            if entry.offset != ledger.offset() {
                return Err(refuse(format!(
                    "block {} at byte {} where byte {} follows",
                    entry.descriptor.number,
                    entry.offset,
                    ledger.offset()
                )));
            }
            ledger.admit(header, entry.descriptor, &[], NonFinite::default())?;
        }
        if ledger.offset() != at {
            return Err(refuse(format!("the blocks end at byte {}", ledger.offset())));
        }
        for (index, (spec, claimed)) in header.tensors.iter().zip(&self.tensors).enumerate() {
            let tally = ledger.tallies.get(index);
            let rows = tally.map_or(0, |tally| tally.row_count);
            let raw = check_rows(spec, tally.map_or(0, |tally| tally.rows_present))?;
            for (what, claimed, held) in [("rows", claimed.row_count, rows), ("raw bytes", claimed.raw_bytes, raw)] {
                if claimed != held {
                    let cause = format!("{claimed} {what} of {} where its blocks hold {held}", spec.name);
                    return Err(refuse(cause));
                }
            }
            if self.state == State::Complete && spec.row_count.is_some_and(|declared| declared != rows) {
                return Err(refuse(format!(
                    "{rows} rows of {} where the header declares {}",
                    spec.name,
                    spec.row_count.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

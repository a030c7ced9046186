//! Reading a container that can be addressed: rows of any tensor in any order, blocks decoded in parallel into the caller's memory.

use crate::codec::{Decoder, stored_bytes};
use crate::dtype::Element;
use crate::error::{reserve, resize};
use crate::frame::{
    Bytes, DESCRIPTOR, DIGEST, Descriptor, FRAME_HEAD, HEADER_HEAD, HEADER_MAGIC, SEEK_ENTRY, SEEK_FOOTER, SEEK_MAGIC,
    decode_seek_footer, frame_length, header_text_length, narrow, seek_table_bytes, wide,
};
use crate::ledger::{BlockEntry, Manifest, State, TensorSummary};
use crate::map::Source;
use crate::{Codec, Dtype, Error, Header, Result, TensorSpec};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

/// How a container is opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Map the file; otherwise pread, which network disks prefer.
    pub map: bool,
    /// Take partial and salvaged containers too.
    pub allow_partial: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            map: true,
            allow_partial: false,
        }
    }
}

/// A container whose header, manifest and seek table have been verified and agree. Blocks are verified as they are read.
pub struct File {
    source: Source,
    header: Header,
    manifest: Manifest,
    /// Per tensor, the numbers of its blocks in row order.
    index: Vec<Vec<u32>>,
}

thread_local! {
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
}

/// A part of one block and where its rows go.
struct Piece<'a, T> {
    block: u32,
    rows: Range<u64>,
    out: &'a mut [T],
}

impl File {
    pub fn open(path: &Path, options: OpenOptions) -> Result<File> {
        File::from_file(std::fs::File::open(path).map_err(Error::io("open"))?, options)
    }

    /// A container in a file that is open already.
    pub fn from_file(file: std::fs::File, options: OpenOptions) -> Result<File> {
        let kind = file.metadata().map_err(Error::io("open"))?;
        if !kind.is_file() {
            let looks_like = if kind.is_dir() {
                "a directory"
            } else {
                "a pipe or device, which is read as a stream"
            };
            return Err(Error::NotActs {
                looks_like: Some(looks_like),
            });
        }
        File::from_source(Source::new(file, options.map)?, options)
    }

    /// A container that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>, options: OpenOptions) -> Result<File> {
        File::from_source(Source::Memory(bytes), options)
    }

    fn from_source(source: Source, options: OpenOptions) -> Result<File> {
        let file_bytes = source.len();
        let head_bytes = file_bytes.min(wide(HEADER_HEAD));
        let text_length = source.with(0, head_bytes, header_text_length)?;
        let header_bytes = wide(text_length.saturating_add(HEADER_HEAD).saturating_add(DIGEST));
        if header_bytes > file_bytes {
            return Err(Error::Truncated {
                at: file_bytes,
                expected: "the header",
            });
        }
        let (header, header_digest) = source.with(0, header_bytes, parse_header)?;

        let (seek_offset, manifest_offset) = find_trailer(&source, header_bytes)?;
        let manifest_bytes = seek_offset.saturating_sub(manifest_offset);
        let manifest = source.with(manifest_offset, manifest_bytes, |bytes| {
            Manifest::announced_bytes(bytes, manifest_offset)?;
            let claimed = bytes
                .get(32..40)
                .and_then(|bytes| Bytes(bytes).u64())
                .unwrap_or(manifest_offset);
            let excess = manifest_offset.saturating_sub(claimed);
            if excess > 0 && starts_a_container(&source, excess) {
                return Err(Error::Concatenated { excess_bytes: excess });
            }
            Manifest::decode(bytes, &header.key()?, &header, manifest_offset)
        })?;
        manifest.check(&header, &header_digest, header_bytes, manifest_offset)?;
        let seek_bytes = file_bytes.saturating_sub(seek_offset);
        source.with(seek_offset, seek_bytes, |bytes| {
            if blake3::hash(bytes).as_bytes() != &manifest.seek_digest {
                return Err(Error::ChecksumMismatch {
                    what: "seek table".into(),
                    at: seek_offset,
                });
            }
            check_seek_table(bytes, &header, &manifest, header_bytes, manifest_bytes)
                .ok_or_else(|| Error::malformed("seek table", seek_offset, "its sizes do not agree with the manifest"))
        })?;
        manifest.state.accept(options.allow_partial)?;

        let mut index: Vec<Vec<u32>> = header.tensors.iter().map(|_| Vec::new()).collect();
        for (number, entry) in manifest.blocks.iter().enumerate() {
            if let Some(blocks) = index.get_mut(narrow(u64::from(entry.descriptor.tensor))) {
                blocks.push(frame_length("block number", number)?);
            }
        }
        Ok(File {
            source,
            header,
            manifest,
            index,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn state(&self) -> State {
        self.manifest.state
    }

    pub fn file_bytes(&self) -> u64 {
        self.source.len()
    }

    pub fn block_count(&self) -> u64 {
        wide(self.manifest.blocks.len())
    }

    /// Position of the tensor called `name`.
    pub fn tensor(&self, name: &str) -> Result<usize> {
        self.header
            .tensor_index(name)
            .ok_or_else(|| Error::NoSuchTensor(name.into()))
    }

    pub fn spec(&self, tensor: usize) -> Result<&TensorSpec> {
        self.header
            .tensors
            .get(tensor)
            .ok_or_else(|| Error::NoSuchTensor(format!("number {tensor}")))
    }

    /// Rows, bytes, non-finite counts and content digest of a tensor, as its writer counted them.
    pub fn summary(&self, tensor: usize) -> Result<&TensorSummary> {
        self.manifest
            .tensors
            .get(tensor)
            .ok_or_else(|| Error::NoSuchTensor(format!("number {tensor}")))
    }

    pub fn row_count(&self, tensor: usize) -> u64 {
        self.manifest.tensors.get(tensor).map_or(0, |summary| summary.row_count)
    }

    /// Number of blocks of a tensor and the bytes they take in the file.
    pub fn stored_bytes(&self, tensor: usize) -> (u64, u64) {
        let blocks = self.index.get(tensor).map(Vec::as_slice).unwrap_or_default();
        let bytes = blocks
            .iter()
            .filter_map(|number| self.entry(*number))
            .map(|entry| u64::from(entry.descriptor.payload_bytes));
        (wide(blocks.len()), bytes.sum())
    }

    /// Fills `out` with `rows` of `tensor`, widened to `T`; refused where that would lose something. Blocks are decoded in parallel.
    pub fn read<T: Element>(&self, tensor: usize, rows: Range<u64>, out: &mut [T]) -> Result<()> {
        let spec = self.spec(tensor)?;
        spec.fitting::<T>()?;
        let dtype = spec.dtype;
        let width = narrow(spec.row_elements()?);
        self.fill(tensor, rows, width, out, |raw, out| {
            T::widen(dtype, raw, out);
        })
    }

    /// Fills `out` with the little-endian bytes of `rows` of `tensor`.
    pub fn read_raw(&self, tensor: usize, rows: Range<u64>, out: &mut [u8]) -> Result<()> {
        let row_bytes = narrow(self.spec(tensor)?.row_bytes()?);
        self.fill(tensor, rows, row_bytes, out, |raw, out| out.copy_from_slice(raw))
    }

    /// `rows` of `tensor` as `T`.
    pub fn to_vec<T: Element>(&self, tensor: usize, rows: Range<u64>) -> Result<Vec<T>> {
        self.check_range(tensor, &rows)?;
        let count = narrow(
            rows.end
                .saturating_sub(rows.start)
                .saturating_mul(self.spec(tensor)?.row_elements()?),
        );
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| Error::out_of_memory(count))?;
        out.resize(count, T::zeroed());
        self.read(tensor, rows, &mut out)?;
        Ok(out)
    }

    /// The bytes of `rows` of `tensor`.
    pub fn to_bytes(&self, tensor: usize, rows: Range<u64>) -> Result<Vec<u8>> {
        self.check_range(tensor, &rows)?;
        let count = narrow(
            rows.end
                .saturating_sub(rows.start)
                .saturating_mul(self.spec(tensor)?.row_bytes()?),
        );
        let mut out = reserve(count)?;
        out.resize(count, 0);
        self.read_raw(tensor, rows, &mut out)?;
        Ok(out)
    }

    /// Fills `out` with the given rows, in the order given; each block they touch is verified and decoded once.
    pub fn gather<T: Element>(&self, tensor: usize, rows: &[u64], out: &mut [T]) -> Result<()> {
        let spec = self.spec(tensor)?;
        let width = narrow(spec.row_elements()?);
        spec.fitting::<T>()?;
        if rows.len().checked_mul(width) != Some(out.len()) {
            return Err(Error::Misuse(format!(
                "{} elements for {} rows of {width}",
                out.len(),
                rows.len()
            )));
        }
        let row_bytes = narrow(spec.row_bytes()?);
        let mut wanted = rows
            .iter()
            .zip(out.chunks_exact_mut(width.max(1)))
            .map(|(row, slot)| Ok((self.block_of(tensor, *row)?, *row, slot)))
            .collect::<Result<Vec<_>>>()?;
        wanted.sort_by_key(|(block, row, _)| (*block, *row));
        wanted.par_chunk_by_mut(|a, b| a.0 == b.0).try_for_each(|group| {
            let Some(block) = group.first().map(|(block, ..)| *block) else {
                return Ok(());
            };
            self.with_block(block, |spec, entry, raw| {
                for (_, row, slot) in group.iter_mut() {
                    let at = narrow(row.saturating_sub(entry.descriptor.first_row)).saturating_mul(row_bytes);
                    let bytes = raw.get(at..at.saturating_add(row_bytes)).unwrap_or_default();
                    T::widen(spec.dtype, bytes, slot);
                }
                Ok(())
            })
        })
    }

    /// Shows `rows` of `tensor` to `visit` block by block, in order, as (first row, bytes), one thread. From a mapped `stored` tensor the
    /// bytes are the file's own pages, verified and not copied; they stay what was verified as long as nobody rewrites the file in place.
    pub fn for_each_block(
        &self,
        tensor: usize,
        rows: Range<u64>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.check_range(tensor, &rows)?;
        let row_bytes = narrow(self.spec(tensor)?.row_bytes()?);
        let mut row = rows.start;
        while row < rows.end {
            let block = self.block_of(tensor, row)?;
            row = self.with_block(block, |_, entry, raw| {
                let first = entry.descriptor.first_row;
                let end = first
                    .saturating_add(u64::from(entry.descriptor.row_count))
                    .min(rows.end);
                let from = narrow(row.saturating_sub(first)).saturating_mul(row_bytes);
                let to = narrow(end.saturating_sub(first)).saturating_mul(row_bytes);
                visit(row, raw.get(from..to).unwrap_or_default())?;
                Ok(end)
            })?;
        }
        Ok(())
    }

    fn check_range(&self, tensor: usize, rows: &Range<u64>) -> Result<()> {
        let spec = self.spec(tensor)?;
        let row_count = self.row_count(tensor);
        if rows.start > rows.end || rows.end > row_count {
            return Err(Error::RowsOutOfRange {
                tensor: spec.name.clone(),
                start: rows.start,
                end: rows.end,
                row_count,
            });
        }
        Ok(())
    }

    fn entry(&self, block: u32) -> Option<&BlockEntry> {
        self.manifest.blocks.get(narrow(u64::from(block)))
    }

    /// The block that holds `row`.
    fn block_of(&self, tensor: usize, row: u64) -> Result<u32> {
        let blocks = self.index.get(tensor).map(Vec::as_slice).unwrap_or_default();
        let first_row = |number: &u32| self.entry(*number).map_or(u64::MAX, |entry| entry.descriptor.first_row);
        let after = blocks.partition_point(|number| first_row(number) <= row);
        let found = after.checked_sub(1).and_then(|position| blocks.get(position)).copied();
        let end = |number| {
            self.entry(number).map_or(0, |entry| {
                entry
                    .descriptor
                    .first_row
                    .saturating_add(u64::from(entry.descriptor.row_count))
            })
        };
        match found.filter(|number| row < end(*number)) {
            Some(number) => Ok(number),
            None => {
                let spec = self.spec(tensor)?;
                let row_count = self.row_count(tensor);
                if row < row_count {
                    return Err(Error::RowMissing {
                        tensor: spec.name.clone(),
                        row,
                    });
                }
                Err(Error::RowsOutOfRange {
                    tensor: spec.name.clone(),
                    start: row,
                    end: row.saturating_add(1),
                    row_count,
                })
            }
        }
    }

    /// Splits `out` along the blocks of `rows` and fills the parts in parallel; `width` elements of `out` are one row.
    fn fill<T: Send>(
        &self,
        tensor: usize,
        rows: Range<u64>,
        width: usize,
        out: &mut [T],
        convert: impl Fn(&[u8], &mut [T]) + Sync,
    ) -> Result<()> {
        self.check_range(tensor, &rows)?;
        let row_count = narrow(rows.end.saturating_sub(rows.start));
        if row_count.checked_mul(width) != Some(out.len()) {
            return Err(Error::Misuse(format!(
                "{} elements for {row_count} rows of {width}",
                out.len()
            )));
        }
        let row_bytes = narrow(self.spec(tensor)?.row_bytes()?);
        let mut pieces = Vec::new();
        let mut rest = out;
        let mut row = rows.start;
        while row < rows.end {
            let block = self.block_of(tensor, row)?;
            let descriptor = self
                .entry(block)
                .map(|entry| entry.descriptor)
                .ok_or_else(|| Error::NoSuchTensor(format!("number {tensor}")))?;
            let end = descriptor
                .first_row
                .saturating_add(u64::from(descriptor.row_count))
                .min(rows.end);
            let count = narrow(end.saturating_sub(row)).saturating_mul(width);
            let (head, tail) = rest.split_at_mut_checked(count).unwrap_or_default();
            rest = tail;
            let first = descriptor.first_row;
            pieces.push(Piece {
                block,
                rows: row.saturating_sub(first)..end.saturating_sub(first),
                out: head,
            });
            row = end;
        }
        let read = |piece: &mut Piece<'_, T>| {
            let range =
                narrow(piece.rows.start).saturating_mul(row_bytes)..narrow(piece.rows.end).saturating_mul(row_bytes);
            self.with_block(piece.block, |_, _, raw| {
                convert(raw.get(range).unwrap_or_default(), piece.out);
                Ok(())
            })
        };
        match pieces.as_mut_slice() {
            [] => Ok(()),
            [one] => read(one),
            many => many.par_iter_mut().try_for_each(read),
        }
    }

    /// Verifies a block and gives its raw bytes: its own pages if `stored`, otherwise decoded into this thread's buffer.
    pub(crate) fn with_block<R>(
        &self,
        number: u32,
        read: impl FnOnce(&TensorSpec, &BlockEntry, &[u8]) -> Result<R>,
    ) -> Result<R> {
        self.with_payload(number, |spec, entry, payload| {
            let raw_bytes = narrow(u64::from(entry.descriptor.raw_bytes));
            if spec.codec == Codec::Stored {
                return read(spec, entry, stored_bytes(payload, raw_bytes, entry.offset)?);
            }
            DECODER.with(|cell| {
                // A visitor may read another block from within: it then gets a decoder of its own.
                let (mut decoder, mut buffer) = match cell.try_borrow_mut() {
                    Ok(mut kept) => std::mem::replace(&mut *kept, (Decoder::new(), Vec::new())),
                    Err(_) => (Decoder::new(), Vec::new()),
                };
                resize(&mut buffer, raw_bytes)?;
                let raw = buffer.get_mut(..raw_bytes).unwrap_or_default();
                let result = decoder
                    .decode(spec.codec, spec.dtype.bytes(), payload, raw, entry.offset)
                    .and_then(|()| read(spec, entry, raw));
                if let Ok(mut kept) = cell.try_borrow_mut() {
                    *kept = (decoder, buffer);
                }
                result
            })
        })
    }

    /// The payload of a block whose descriptor agrees with the manifest and whose digest holds.
    pub(crate) fn with_payload<R>(
        &self,
        number: u32,
        read: impl FnOnce(&TensorSpec, &BlockEntry, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let entry = self.entry_of(number)?;
        let spec = self.spec(narrow(u64::from(entry.descriptor.tensor)))?;
        let key = self.header.key()?;
        self.source
            .with(entry.offset, entry.end(spec).saturating_sub(entry.offset), |bytes| {
                let (descriptor, padding) = Descriptor::decode(bytes, entry.offset)?;
                if descriptor.number != entry.descriptor.number {
                    return Err(Error::BlockMisplaced {
                        found: descriptor.number,
                        expected: entry.descriptor.number,
                        at: entry.offset,
                    });
                }
                let body = bytes.get(DESCRIPTOR..).unwrap_or_default();
                let (zeros, payload) = body.split_at_checked(entry.padding(spec)).unwrap_or_default();
                let intact = descriptor == entry.descriptor
                    && padding == zeros.len()
                    && zeros.iter().all(|byte| *byte == 0)
                    && descriptor.digest_of(&key, payload) == descriptor.digest;
                if !intact {
                    return Err(Error::ChecksumMismatch {
                        what: format!("block {number}"),
                        at: entry.offset,
                    });
                }
                read(spec, entry, payload)
            })
    }

    pub(crate) fn entry_of(&self, block: u32) -> Result<&BlockEntry> {
        self.entry(block)
            .ok_or_else(|| Error::Misuse(format!("block {block} of {}", self.manifest.blocks.len())))
    }

    pub(crate) fn advise_sequential(&self) {
        self.source.advise_sequential();
    }
}

/// Elements of one row and its dtype, for callers that print.
impl TensorSpec {
    /// Whether rows can be read as `T` without loss.
    pub fn fits<T: Element>(&self) -> bool {
        T::widen(self.dtype, &[], &mut [])
    }

    pub fn is_float(&self) -> bool {
        Dtype::is_float(self.dtype)
    }

    /// The elements of stored bytes as `T`.
    pub fn widen<T: Element>(&self, raw: &[u8]) -> Result<Vec<T>> {
        self.fitting::<T>()?;
        let count = raw.len().checked_div(self.dtype.bytes()).unwrap_or(0);
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| Error::out_of_memory(count))?;
        out.resize(count, T::zeroed());
        T::widen(self.dtype, raw, &mut out);
        Ok(out)
    }

    /// Refuses a type in which the elements would lose something.
    fn fitting<T: Element>(&self) -> Result<()> {
        match self.fits::<T>() {
            true => Ok(()),
            false => Err(Error::DtypeMismatch {
                tensor: self.name.clone(),
                dtype: self.dtype,
                asked: T::DTYPE,
            }),
        }
    }
}

/// Reads a whole header frame: the header and its digest.
pub(crate) fn parse_header(frame: &[u8]) -> Result<(Header, [u8; DIGEST])> {
    let refuse = || Error::Truncated {
        at: wide(frame.len()),
        expected: "the header",
    };
    let (body, digest) = frame.split_last_chunk::<DIGEST>().ok_or_else(refuse)?;
    if blake3::hash(body).as_bytes() != digest {
        return Err(Error::ChecksumMismatch {
            what: "header".into(),
            at: 0,
        });
    }
    let header = Header::from_json(body.get(HEADER_HEAD..).unwrap_or_default())?;
    Ok((header, *digest))
}

fn starts_a_container(source: &Source, offset: u64) -> bool {
    source
        .with(offset, 4, |bytes| Ok(Bytes(bytes).u32() == Some(HEADER_MAGIC)))
        .unwrap_or(false)
}

/// Offsets of the seek table and of the manifest before it. Every count is bounded by the bytes that are there.
fn find_trailer(source: &Source, header_bytes: u64) -> Result<(u64, u64)> {
    let file_bytes = source.len();
    let footer_offset = file_bytes
        .checked_sub(wide(SEEK_FOOTER))
        .filter(|offset| *offset >= header_bytes)
        .ok_or(Error::NoEndMark)?;
    let frames = source
        .with(footer_offset, wide(SEEK_FOOTER), |bytes| Ok(decode_seek_footer(bytes)))?
        .ok_or(Error::NoEndMark)?;
    let bytes = seek_table_bytes(u64::from(frames)).unwrap_or(u64::MAX);
    let lies = |cause: &str| Error::malformed("seek table", footer_offset, format!("{frames} frames: {cause}"));
    let seek_offset = file_bytes
        .checked_sub(bytes)
        .filter(|offset| *offset >= header_bytes)
        .ok_or_else(|| lies("more than the file holds"))?;
    let head = source.with(seek_offset, wide(FRAME_HEAD), |bytes| {
        let mut source = Bytes(bytes);
        Ok(source.u32().zip(source.u32()))
    })?;
    let length = bytes.saturating_sub(wide(FRAME_HEAD));
    if head.is_none_or(|(magic, stated)| magic != SEEK_MAGIC || u64::from(stated) != length) {
        return Err(lies("its own frame begins elsewhere"));
    }
    // The manifest is the last frame the table lists.
    let last = footer_offset
        .checked_sub(wide(SEEK_ENTRY))
        .filter(|_| frames >= 2)
        .ok_or_else(|| lies("no manifest"))?;
    let manifest_bytes = source
        .with(last, wide(SEEK_ENTRY), |bytes| Ok(Bytes(bytes).u32()))?
        .unwrap_or(0);
    let manifest_offset = seek_offset
        .checked_sub(u64::from(manifest_bytes))
        .filter(|offset| *offset >= header_bytes)
        .ok_or_else(|| lies("a manifest larger than the file"))?;
    Ok((seek_offset, manifest_offset))
}

/// Whether the seek table lists exactly the frames that the manifest implies.
fn check_seek_table(
    bytes: &[u8],
    header: &Header,
    manifest: &Manifest,
    header_bytes: u64,
    manifest_bytes: u64,
) -> Option<()> {
    let entries = bytes.get(FRAME_HEAD..bytes.len().checked_sub(SEEK_FOOTER)?)?;
    let (entries, rest) = entries.as_chunks::<SEEK_ENTRY>();
    let mut entries = entries.iter().map(|entry| {
        let mut source = Bytes(entry);
        source
            .u32()
            .zip(source.u32())
            .map(|(stored, raw)| (u64::from(stored), u64::from(raw)))
    });
    let mut next = || entries.next().flatten();
    let same = |found: Option<(u64, u64)>, expected: (u64, u64)| (found == Some(expected)).then_some(());
    same(next(), (header_bytes, 0))?;
    for entry in &manifest.blocks {
        let spec = header.tensors.get(narrow(u64::from(entry.descriptor.tensor)))?;
        let payload = u64::from(entry.descriptor.payload_bytes);
        let raw = u64::from(entry.descriptor.raw_bytes);
        same(next(), (entry.payload_offset(spec).checked_sub(entry.offset)?, 0))?;
        let (frames, content) = match spec.codec {
            Codec::Stored => (1, 0),
            Codec::Zstd => (1, raw),
            Codec::ZstdPlanes => (wide(spec.dtype.bytes()), raw.checked_div(wide(spec.dtype.bytes()))?),
        };
        let mut total = 0u64;
        for _ in 0..frames {
            let (stored, decoded) = next()?;
            total = total.checked_add(stored)?;
            (decoded == content).then_some(())?;
        }
        (total == payload).then_some(())?;
    }
    same(next(), (manifest_bytes, 0))?;
    (next().is_none() && rest.is_empty()).then_some(())
}

//! Verifying a container beyond what opening it verifies, and finding out how much of a partial or damaged one is sound.

use crate::dtype::{Dtype, NonFinite};
use crate::error::reserve;
use crate::file::File;
use crate::frame::{BLOCK_MAGIC, DESCRIPTOR, DIGEST, Descriptor, HEADER_HEAD, header_text_length, narrow, wide};
use crate::ledger::{BlockEntry, Ledger, check};
use crate::map::Source;
use crate::stream::Stream;
use crate::{Error, Header, Result};
use rayon::prelude::*;
use std::io::Read;
use std::path::Path;

/// How much of a container [`File::verify`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Header, manifest, seek table: what opening has done already.
    Quick,
    /// Every block, and each tensor's content digest and non-finite counts.
    Full,
    /// The blocks whose number leaves `index` when divided by `count`.
    Sample { index: u64, count: u64 },
}

/// A block that did not verify.
#[derive(Debug)]
pub struct Damage {
    pub block: u64,
    pub tensor: usize,
    pub offset: u64,
    pub first_row: u64,
    pub row_count: u64,
    pub error: Error,
}

/// What the rows of a tensor were found to be, in their order.
#[derive(Default)]
pub struct Content {
    digest: blake3::Hasher,
    non_finite: NonFinite,
}

impl Content {
    /// Takes in the stored bytes of the next rows.
    pub fn add(&mut self, dtype: Dtype, raw: &[u8]) {
        self.digest.update(raw);
        self.non_finite.add(NonFinite::count(dtype, raw));
    }
}

impl File {
    /// Reads the blocks that `depth` names and reports each that is damaged, in file order. Gives the number of blocks read.
    /// An error that is the environment's ends the verification at once.
    pub fn verify(&self, depth: Depth, mut report: impl FnMut(Damage)) -> Result<u64> {
        let (index, count) = match depth {
            Depth::Quick => return Ok(0),
            Depth::Full => (0, 1),
            Depth::Sample { index, count } if count > 0 && index < count => (index, count),
            Depth::Sample { index, count } => return Err(Error::Misuse(format!("sample {index}/{count}"))),
        };
        self.advise_sequential();
        let chosen: Vec<u32> = (0..self.block_count())
            .filter(|number| number.checked_rem(count) == Some(index))
            .filter_map(|number| u32::try_from(number).ok())
            .collect();
        let is_full = depth == Depth::Full;
        // None for a tensor with a damaged block: there is nothing to compare.
        let mut contents: Vec<Option<Content>> =
            self.header().tensors.iter().map(|_| Some(Content::default())).collect();
        // Bounded by a few blocks per thread; a thread holds its own in its decoder.
        let batch = rayon::current_num_threads().saturating_mul(2).max(1);
        for numbers in chosen.chunks(batch) {
            let read = |number: &u32| {
                self.with_block(*number, |spec, entry, raw| {
                    let kept = if is_full {
                        let mut kept = reserve(raw.len())?;
                        kept.extend_from_slice(raw);
                        kept
                    } else {
                        Vec::new()
                    };
                    Ok((*entry, NonFinite::count(spec.dtype, raw), kept))
                })
            };
            let blocks: Vec<_> = numbers.par_iter().map(read).collect();
            for (number, block) in numbers.iter().zip(blocks) {
                match block {
                    Ok((entry, non_finite, raw)) => {
                        if let Some(Some(content)) = contents.get_mut(narrow(u64::from(entry.descriptor.tensor))) {
                            content.digest.update(&raw);
                            content.non_finite.add(non_finite);
                        }
                    }
                    Err(error) if error.is_environment() => return Err(error),
                    Err(error) => {
                        let damage = self.damage(*number, error)?;
                        if let Some(content) = contents.get_mut(damage.tensor) {
                            *content = None;
                        }
                        report(damage);
                    }
                }
            }
        }
        if is_full {
            for (tensor, content) in contents.iter().enumerate() {
                content.as_ref().map_or(Ok(()), |content| self.agree(tensor, content))?;
            }
        }
        Ok(wide(chosen.len()))
    }

    /// Refuses a tensor that is not what the manifest says of it; `content` is all of its rows.
    pub fn agree(&self, tensor: usize, content: &Content) -> Result<()> {
        let claimed = self.summary(tensor)?;
        let is_so = &claimed.content_digest == content.digest.finalize().as_bytes();
        match is_so && claimed.non_finite == content.non_finite {
            true => Ok(()),
            false => Err(Error::ChecksumMismatch {
                what: format!("content of {}", self.spec(tensor)?.name),
                at: 0,
            }),
        }
    }

    fn damage(&self, number: u32, error: Error) -> Result<Damage> {
        let BlockEntry { offset, descriptor } = *self.entry_of(number)?;
        Ok(Damage {
            block: u64::from(number),
            tensor: narrow(u64::from(descriptor.tensor)),
            offset,
            first_row: descriptor.first_row,
            row_count: u64::from(descriptor.row_count),
            error,
        })
    }
}

/// A partial container, as far as it is sound.
pub struct Recovered {
    pub(crate) header: Header,
    pub(crate) ledger: Ledger,
    durable_bytes: u64,
    is_finished: bool,
}

impl Recovered {
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes up to the end of the last whole block: what follows must be cut off before a [`Writer`](crate::Writer) goes on.
    pub fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    /// Rows of a tensor that are in whole blocks.
    pub fn row_count(&self, tensor: usize) -> u64 {
        self.ledger.row_count(tensor)
    }

    /// The end mark is there too: nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }
}

/// Reads a partial container from its start and keeps everything up to the first byte that is not sound. `header` is what the new run
/// would write: another header means another plan, and is refused. `None` if not even the header is whole.
pub fn recover(source: impl Read, header: &Header) -> Result<Option<Recovered>> {
    let mut stream = match Stream::new(source, true) {
        Ok(stream) => stream,
        Err(error) if error.is_environment() => return Err(error),
        // A header cut short is a run that had just begun; anything else at the start is not ours to write over.
        Err(
            Error::Truncated { .. }
            | Error::NotActs {
                looks_like: Some("an empty file"),
            },
        ) => return Ok(None),
        Err(error) => return Err(error),
    };
    if stream.header() != header {
        return Err(Error::HeaderDiffers(first_difference(stream.header(), header)));
    }
    let is_finished = loop {
        match stream.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(error) if error.is_environment() => return Err(error),
            Err(_) => break false,
        }
    };
    let (header, ledger) = stream.into_parts();
    Ok(Some(Recovered {
        durable_bytes: ledger.offset(),
        header,
        ledger,
        is_finished,
    }))
}

/// Name of the first field in which two headers differ.
pub fn first_difference(found: &Header, expected: &Header) -> String {
    let fields = |header: &Header| {
        serde_json::to_value(header)
            .ok()
            .and_then(|value| value.as_object().cloned())
            .unwrap_or_default()
    };
    let (found, expected) = (fields(found), fields(expected));
    let named = |key: &&String| key.as_str() != "file_id";
    let differs = |key: &&String| found.get(key.as_str()) != expected.get(key.as_str());
    found
        .keys()
        .chain(expected.keys())
        .filter(named)
        .find(differs)
        .cloned()
        .unwrap_or_else(|| "file_id".into())
}

/// A block of a damaged container that verified.
pub struct SalvagedBlock {
    pub tensor: usize,
    pub first_row: u64,
    pub raw: Vec<u8>,
}

/// What [`salvage`] went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SalvageReport {
    pub block_count: u64,
    /// Bytes between the header and the trailer that belong to no block that verified.
    pub lost_bytes: u64,
}

/// Walks a damaged container and hands out, in file order, every block whose digest and decoding hold. Only the header must be whole:
/// without it nothing says what the numbers mean. Trailers are not believed; a container cut anywhere gives all of its whole blocks.
pub fn salvage(path: &Path, map: bool, mut found: impl FnMut(SalvagedBlock) -> Result<()>) -> Result<SalvageReport> {
    let source = Source::new(std::fs::File::open(path).map_err(Error::io("open"))?, map)?;
    let file_bytes = source.len();
    let header_bytes = salvage_header_bytes(&source)?;
    let (header, _) = source.with(0, header_bytes, crate::file::parse_header)?;
    let key = header.key()?;
    let mut next_row: Vec<u64> = header.tensors.iter().map(|_| 0).collect();
    let mut report = SalvageReport::default();
    let mut decoder = crate::codec::Decoder::new();
    let mut at = header_bytes;
    while at < file_bytes {
        match salvage_block(&source, &header, &key, &mut decoder, at)? {
            Some((entry, raw, end)) => {
                let tensor = narrow(u64::from(entry.descriptor.tensor));
                let next = next_row
                    .get_mut(tensor)
                    .filter(|next| entry.descriptor.first_row >= **next);
                // A duplicate of rows already found says nothing new.
                if let Some(next) = next {
                    *next = entry
                        .descriptor
                        .first_row
                        .saturating_add(u64::from(entry.descriptor.row_count));
                    report.block_count = report.block_count.saturating_add(1);
                    found(SalvagedBlock {
                        tensor,
                        first_row: entry.descriptor.first_row,
                        raw,
                    })?;
                }
                at = end;
            }
            None => {
                let next = next_descriptor(&source, at.saturating_add(1))?;
                let is_trailer = crate::frame::MANIFEST_MAGIC.to_le_bytes();
                let trailer = source.with(
                    at,
                    4.min(file_bytes.saturating_sub(at)),
                    |bytes| Ok(bytes == is_trailer),
                )?;
                if !trailer {
                    report.lost_bytes = report
                        .lost_bytes
                        .saturating_add(next.unwrap_or(file_bytes).saturating_sub(at));
                }
                match next {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
    }
    Ok(report)
}

/// The header of a container whose blocks are to be salvaged.
pub fn salvage_header(path: &Path) -> Result<Header> {
    let source = Source::new(std::fs::File::open(path).map_err(Error::io("open"))?, false)?;
    let header_bytes = salvage_header_bytes(&source)?;
    source
        .with(0, header_bytes, crate::file::parse_header)
        .map(|(header, _)| header)
}

fn salvage_header_bytes(source: &Source) -> Result<u64> {
    let text_length = source.with(0, source.len().min(wide(HEADER_HEAD)), header_text_length)?;
    Ok(wide(text_length.saturating_add(HEADER_HEAD).saturating_add(DIGEST)))
}

/// The block at `at`, if it is sound: its entry, raw bytes and end.
fn salvage_block(
    source: &Source,
    header: &Header,
    key: &[u8; DIGEST],
    decoder: &mut crate::codec::Decoder,
    at: u64,
) -> Result<Option<(BlockEntry, Vec<u8>, u64)>> {
    let head = match source.with(at, wide(DESCRIPTOR), |bytes| Descriptor::decode(bytes, at)) {
        Ok(head) => head,
        Err(error) if error.is_environment() => return Err(error),
        Err(_) => return Ok(None),
    };
    let (descriptor, padding) = head;
    let Ok(spec) = check(header, &descriptor, at) else {
        return Ok(None);
    };
    let payload_at = at.saturating_add(wide(DESCRIPTOR)).saturating_add(wide(padding));
    let payload_bytes = u64::from(descriptor.payload_bytes);
    let read = source.with(payload_at, payload_bytes, |payload| {
        if descriptor.digest_of(key, payload) != descriptor.digest {
            return Ok(None);
        }
        let raw_bytes = narrow(u64::from(descriptor.raw_bytes));
        let mut raw = reserve(raw_bytes)?;
        raw.resize(raw_bytes, 0);
        decoder.decode(spec.codec, spec.dtype.bytes(), payload, &mut raw, at)?;
        Ok(Some(raw))
    });
    match read {
        Ok(Some(raw)) => Ok(Some((
            BlockEntry { offset: at, descriptor },
            raw,
            payload_at.saturating_add(payload_bytes),
        ))),
        Ok(None) => Ok(None),
        Err(error) if error.is_environment() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Offset of the next four bytes that could begin a descriptor.
fn next_descriptor(source: &Source, from: u64) -> Result<Option<u64>> {
    const WINDOW: u64 = 1 << 20;
    let magic = BLOCK_MAGIC.to_le_bytes();
    let mut at = from;
    while at.saturating_add(wide(DESCRIPTOR)) <= source.len() {
        let length = WINDOW.min(source.len().saturating_sub(at));
        let hit = source.with(at, length, |bytes| {
            Ok(bytes.windows(4).position(|window| window == magic))
        })?;
        if let Some(position) = hit {
            return Ok(Some(at.saturating_add(wide(position))));
        }
        // A magic may straddle two windows.
        at = at.saturating_add(length.saturating_sub(3).max(1));
    }
    Ok(None)
}

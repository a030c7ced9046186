//! One block: raw rows to payload bytes and back. Owns the compression contexts and the reading of zstd frame headers; knows nothing of files.
//!
//! A zstd frame is looked at by our own parser before libzstd sees it, because libzstd accepts more than the format: windows of gigabytes,
//! frames without a size or checksum, dictionaries, and a declared size that decodes to something else.

use crate::error::resize;
use crate::frame::{Bytes, FRAME_HEAD, STORED_MAGIC, frame_length, narrow, skippable_head, wide};
use crate::{Codec, Error, Result, limits};
use std::hash::Hasher;
use zstd::zstd_safe::CParameter;

const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// The most one zstd block may hold.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;
/// What is tried of a plane before all of it is searched.
const PROBE_BYTES: usize = 64 << 10;

/// The payload of a block and the size of each frame in it.
#[derive(Default)]
pub(crate) struct Payload {
    pub bytes: Vec<u8>,
    /// (compressed, decompressed) as the seek table lists them; at most one per byte of the element.
    pub frames: Vec<(u32, u32)>,
}

/// What the bytes of a plane are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Texture {
    /// Nothing to gain: stored in raw blocks.
    Noise,
    /// Uneven bytes that do not repeat in longer runs: entropy coding does it all.
    Independent,
    /// Everything else.
    Repeating,
}

/// Compresses blocks; one per thread.
pub(crate) struct Encoder {
    level: i32,
    context: Option<zstd::bulk::Compressor<'static>>,
    plane: Vec<u8>,
    probe: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder {
            level: 0,
            context: None,
            plane: Vec::new(),
            probe: Vec::new(),
        }
    }

    /// `raw` must be non-empty and a multiple of `element_bytes`.
    /// `buffer` becomes the payload: fresh memory of this size costs more than the coding does.
    pub fn encode(
        &mut self,
        codec: Codec,
        level: i32,
        element_bytes: usize,
        raw: &[u8],
        mut buffer: Vec<u8>,
    ) -> Result<Payload> {
        buffer.clear();
        let mut payload = Payload {
            bytes: buffer,
            frames: Vec::new(),
        };
        match codec {
            Codec::Stored => {
                let length = raw.len().saturating_add(FRAME_HEAD);
                payload
                    .bytes
                    .try_reserve(length)
                    .map_err(|_| Error::out_of_memory(length))?;
                let length = frame_length("block", raw.len())?;
                payload.bytes.extend_from_slice(&skippable_head(STORED_MAGIC, length));
                payload.bytes.extend_from_slice(raw);
                payload.frames.push((length.saturating_add(8), 0));
            }
            Codec::Zstd => self.frame(level, Texture::Repeating, raw, &mut payload)?,
            Codec::ZstdPlanes if element_bytes == 1 => self.frame(level, Texture::Repeating, raw, &mut payload)?,
            Codec::ZstdPlanes => {
                let mut plane = std::mem::take(&mut self.plane);
                for index in 0..element_bytes {
                    split_plane(raw, element_bytes, index, &mut plane)?;
                    match self.texture(level, &plane)? {
                        Texture::Noise => raw_frame(&plane, &mut payload)?,
                        texture => self.frame(level, texture, &plane, &mut payload)?,
                    }
                }
                self.plane = plane;
            }
        }
        Ok(payload)
    }

    fn context(&mut self, level: i32) -> std::io::Result<&mut zstd::bulk::Compressor<'static>> {
        if self.level != level {
            self.context = None;
        }
        self.level = level;
        let context = match self.context.take() {
            Some(context) => context,
            None => {
                let mut context = zstd::bulk::Compressor::new(level)?;
                context.include_checksum(true)?;
                context.include_contentsize(true)?;
                context
            }
        };
        Ok(self.context.insert(context))
    }

    /// What a part from the middle of a plane says of it. A function of the bytes alone.
    fn texture(&mut self, level: i32, plane: &[u8]) -> Result<Texture> {
        let start = (plane.len() >> 1).saturating_sub(PROBE_BYTES >> 1);
        let part = plane.get(start..start.saturating_add(PROBE_BYTES));
        let Some(part) = part.filter(|_| plane.len() >= 2 * PROBE_BYTES) else {
            return Ok(Texture::Repeating);
        };
        let repeating = self.probe(level, Texture::Repeating, part)?;
        if PROBE_BYTES.saturating_sub(repeating) < PROBE_BYTES / 200 {
            return Ok(Texture::Noise);
        }
        if level != 1 {
            return Ok(Texture::Repeating);
        }
        // The thorough search must save at least 2 % more than the quick one.
        let quick = self.probe(level, Texture::Independent, part)?;
        let repeats = repeating < quick.saturating_sub(quick / 50);
        Ok(if repeats {
            Texture::Repeating
        } else {
            Texture::Independent
        })
    }

    /// Compressed size of `part`.
    fn probe(&mut self, level: i32, texture: Texture, part: &[u8]) -> Result<usize> {
        let mut probe = Payload {
            bytes: std::mem::take(&mut self.probe),
            frames: Vec::new(),
        };
        probe.bytes.clear();
        self.frame(level, texture, part, &mut probe)?;
        self.probe = probe.bytes;
        Ok(self.probe.len())
    }

    fn frame(&mut self, level: i32, texture: Texture, data: &[u8], payload: &mut Payload) -> Result<()> {
        let context = self.context(level).map_err(Error::io("zstd compression context"))?;
        // A level's own window may exceed the limit only for blocks larger than it.
        if wide(data.len()) > limits::ZSTD_WINDOW_BYTES {
            context
                .set_parameter(CParameter::WindowLog(24))
                .map_err(Error::io("zstd window"))?;
        } else {
            context
                .set_parameter(CParameter::WindowLog(0))
                .map_err(Error::io("zstd window"))?;
        }
        // Where nothing repeats, a match finder only finds accidents: a small table costs half the time and gains a percent.
        let hash_log = if level == 1 && texture == Texture::Independent {
            11
        } else {
            0
        };
        context
            .set_parameter(CParameter::HashLog(hash_log))
            .map_err(Error::io("zstd table"))?;
        let start = payload.bytes.len();
        let bound = narrow(limits::zstd_frame_bytes_max(wide(data.len())));
        resize(&mut payload.bytes, start.saturating_add(bound))?;
        let target = payload.bytes.get_mut(start..).unwrap_or_default();
        let length = context
            .compress_to_buffer(data, target)
            .map_err(Error::io("zstd compression"))?;
        payload.bytes.truncate(start.saturating_add(length));
        payload
            .frames
            .push((frame_length("frame", length)?, frame_length("frame", data.len())?));
        Ok(())
    }
}

/// A zstd frame of raw blocks: what zstd itself makes of noise, without the search.
fn raw_frame(data: &[u8], payload: &mut Payload) -> Result<()> {
    let start = payload.bytes.len();
    let size = frame_length("frame", data.len())?;
    payload
        .bytes
        .try_reserve(narrow(limits::zstd_frame_bytes_max(wide(data.len()))))
        .map_err(|_| Error::out_of_memory(data.len()))?;
    payload.bytes.extend_from_slice(&ZSTD_MAGIC.to_le_bytes());
    // Descriptor: 4-byte content size, no single segment, checksum. Window: 2^17, one block.
    payload.bytes.extend_from_slice(&[0b1000_0100, 7 << 3]);
    payload.bytes.extend_from_slice(&size.to_le_bytes());
    let mut blocks = data.chunks(ZSTD_BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let head = (frame_length("block", block.len())? << 3) | last;
        let [low, middle, high, _] = head.to_le_bytes();
        payload.bytes.extend_from_slice(&[low, middle, high]);
        payload.bytes.extend_from_slice(block);
    }
    payload.bytes.extend_from_slice(&content_checksum(data));
    let length = payload.bytes.len().saturating_sub(start);
    payload.frames.push((frame_length("frame", length)?, size));
    Ok(())
}

/// The low 32 bits of XXH64 with seed 0: zstd's checksum.
fn content_checksum(data: &[u8]) -> [u8; 4] {
    let mut hash = twox_hash::XxHash64::with_seed(0);
    hash.write(data);
    let [a, b, c, d, ..] = hash.finish().to_le_bytes();
    [a, b, c, d]
}

/// Byte `index` of every element.
fn split_plane(raw: &[u8], element_bytes: usize, index: usize, plane: &mut Vec<u8>) -> Result<()> {
    fn gather<const N: usize>(raw: &[u8], index: usize, plane: &mut [u8]) {
        let (elements, _) = raw.as_chunks::<N>();
        for (slot, element) in plane.iter_mut().zip(elements) {
            *slot = element.get(index).copied().unwrap_or_default();
        }
    }
    let count = raw.len().checked_div(element_bytes).unwrap_or(0);
    resize(plane, count)?;
    match (element_bytes, index) {
        // Constant indexes let the compiler use shuffles for the common width.
        (2, 0) => gather_const::<2, 0>(raw, plane),
        (2, _) => gather_const::<2, 1>(raw, plane),
        (4, 0) => gather_const::<4, 0>(raw, plane),
        (4, 1) => gather_const::<4, 1>(raw, plane),
        (4, 2) => gather_const::<4, 2>(raw, plane),
        (4, _) => gather_const::<4, 3>(raw, plane),
        _ => gather::<8>(raw, index, plane),
    }
    Ok(())
}

fn gather_const<const N: usize, const I: usize>(raw: &[u8], plane: &mut [u8]) {
    let (elements, _) = raw.as_chunks::<N>();
    for (slot, element) in plane.iter_mut().zip(elements) {
        *slot = element.get(I).copied().unwrap_or_default();
    }
}

/// Decompresses blocks; one per thread.
pub(crate) struct Decoder {
    context: Option<zstd::bulk::Decompressor<'static>>,
    planes: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder {
            context: None,
            planes: Vec::new(),
        }
    }

    /// Fills `out`, whose length is the block's declared raw length, from a payload whose digest has been verified.
    pub fn decode(
        &mut self,
        codec: Codec,
        element_bytes: usize,
        payload: &[u8],
        out: &mut [u8],
        at: u64,
    ) -> Result<()> {
        match codec {
            Codec::Stored => {
                let raw = stored_bytes(payload, out.len(), at)?;
                out.copy_from_slice(raw);
                Ok(())
            }
            Codec::Zstd => self.single(payload, out, at),
            Codec::ZstdPlanes if element_bytes == 1 => self.single(payload, out, at),
            Codec::ZstdPlanes => {
                let mut planes = std::mem::take(&mut self.planes);
                let result = self.planes(element_bytes, payload, out, &mut planes, at);
                self.planes = planes;
                result
            }
        }
    }

    fn single(&mut self, payload: &[u8], out: &mut [u8], at: u64) -> Result<()> {
        let mut rest = payload;
        self.frame(&mut rest, out, at)?;
        end_of_payload(rest, at)
    }

    fn planes(
        &mut self,
        element_bytes: usize,
        payload: &[u8],
        out: &mut [u8],
        planes: &mut Vec<u8>,
        at: u64,
    ) -> Result<()> {
        resize(planes, out.len())?;
        let count = out.len().checked_div(element_bytes).unwrap_or(0);
        let mut rest = payload;
        for plane in planes.chunks_exact_mut(count.max(1)).take(element_bytes) {
            self.frame(&mut rest, plane, at)?;
        }
        end_of_payload(rest, at)?;
        join_planes(element_bytes, planes.get(..out.len()).unwrap_or_default(), count, out);
        Ok(())
    }

    /// Decodes the first frame of `payload` into exactly `out`, and leaves `payload` behind it.
    fn frame(&mut self, payload: &mut &[u8], out: &mut [u8], at: u64) -> Result<()> {
        let length = checked_frame_bytes(payload, wide(out.len()))
            .map_err(|cause| Error::malformed("zstd frame of a block", at, cause))?;
        let (frame, rest) = payload.split_at_checked(length).ok_or(Error::Truncated {
            at,
            expected: "a zstd frame",
        })?;
        let context = match self.context.take() {
            Some(context) => context,
            None => {
                let mut context = zstd::bulk::Decompressor::new().map_err(Error::io("zstd decompression context"))?;
                context.window_log_max(24).map_err(Error::io("zstd window"))?;
                context
            }
        };
        let context = self.context.insert(context);
        let produced = context
            .decompress_to_buffer(frame, out)
            .map_err(|error| Error::malformed("zstd frame of a block", at, error.to_string()))?;
        if produced != out.len() {
            return Err(Error::malformed(
                "zstd frame of a block",
                at,
                format!("{produced} bytes instead of {}", out.len()),
            ));
        }
        *payload = rest;
        Ok(())
    }
}

fn end_of_payload(rest: &[u8], at: u64) -> Result<()> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Error::malformed(
            "block",
            at,
            format!("{} bytes after its last frame", rest.len()),
        ))
    }
}

/// The raw bytes of a `stored` payload.
pub(crate) fn stored_bytes(payload: &[u8], raw_bytes: usize, at: u64) -> Result<&[u8]> {
    let mut source = Bytes(payload);
    let head = source.u32().zip(source.u32());
    match head {
        Some((STORED_MAGIC, length)) if wide(raw_bytes) == u64::from(length) && source.0.len() == raw_bytes => {
            Ok(source.0)
        }
        _ => Err(Error::malformed(
            "stored block",
            at,
            "its frame does not hold the declared bytes",
        )),
    }
}

fn join_planes(element_bytes: usize, planes: &[u8], count: usize, out: &mut [u8]) {
    let (first, rest) = planes.split_at_checked(count).unwrap_or_default();
    match element_bytes {
        2 => {
            let (elements, _) = out.as_chunks_mut::<2>();
            for (element, (low, high)) in elements.iter_mut().zip(first.iter().zip(rest)) {
                *element = [*low, *high];
            }
        }
        4 => {
            let (second, rest) = rest.split_at_checked(count).unwrap_or_default();
            let (third, fourth) = rest.split_at_checked(count).unwrap_or_default();
            let (elements, _) = out.as_chunks_mut::<4>();
            let halves = first.iter().zip(second).zip(third.iter().zip(fourth));
            for (element, ((a, b), (c, d))) in elements.iter_mut().zip(halves) {
                *element = [*a, *b, *c, *d];
            }
        }
        _ => {
            for (index, plane) in planes.chunks_exact(count.max(1)).enumerate() {
                for (element, byte) in out.chunks_exact_mut(element_bytes).zip(plane) {
                    if let Some(slot) = element.get_mut(index) {
                        *slot = *byte;
                    }
                }
            }
        }
    }
}

/// Length of the zstd frame that `payload` begins with, refused unless it is one this format allows and declares `content` bytes.
fn checked_frame_bytes(payload: &[u8], content: u64) -> Result<usize, String> {
    let mut source = Bytes(payload);
    let short = || "it ends inside a frame".to_string();
    let magic = source.u32().ok_or_else(short)?;
    if magic != ZSTD_MAGIC {
        return Err(format!("magic {magic:#010x} is not zstd's"));
    }
    let [flags] = source.array::<1>().ok_or_else(short)?;
    let (size_flag, single_segment, reserved, checksum, dictionary) = (
        flags >> 6,
        flags & 0x20 != 0,
        flags & 0x08 != 0,
        flags & 0x04 != 0,
        flags & 0x03 != 0,
    );
    if reserved || dictionary {
        return Err("it uses a dictionary or a reserved bit".into());
    }
    if !checksum {
        return Err("it carries no checksum".into());
    }
    let mut window = None;
    if !single_segment {
        let [descriptor] = source.array::<1>().ok_or_else(short)?;
        let base = 1u64
            .checked_shl(u32::from(descriptor >> 3).saturating_add(10))
            .unwrap_or(u64::MAX);
        window = Some(base.saturating_add((base >> 3).saturating_mul(u64::from(descriptor & 7))));
    }
    let declared = match (size_flag, single_segment) {
        (0, false) => return Err("it does not declare its content size".into()),
        (0, true) => source.array::<1>().map(|[size]| u64::from(size)),
        (1, _) => source
            .array::<2>()
            .map(|size| u64::from(u16::from_le_bytes(size)).saturating_add(256)),
        (2, _) => source.u32().map(u64::from),
        _ => source.u64(),
    }
    .ok_or_else(short)?;
    if declared != content {
        return Err(format!("it declares {declared} bytes where {content} belong"));
    }
    // A single segment's window is its content.
    let window = window.unwrap_or(declared);
    if window > limits::ZSTD_WINDOW_BYTES {
        return Err(format!(
            "it asks for a window of {window} bytes, limit {}",
            limits::ZSTD_WINDOW_BYTES
        ));
    }
    // BOUND: every turn takes at least 3 bytes of the payload.
    loop {
        let [low, middle, high] = source.array::<3>().ok_or_else(short)?;
        let head = u32::from_le_bytes([low, middle, high, 0]);
        let (last, kind, size) = (head & 1 == 1, (head >> 1) & 3, narrow(u64::from(head >> 3)));
        let stored = match kind {
            0 | 2 => size,
            1 => 1,
            _ => return Err("it has a block of reserved type".into()),
        };
        if size > ZSTD_BLOCK_BYTES {
            return Err(format!("it has a block of {size} bytes, limit {ZSTD_BLOCK_BYTES}"));
        }
        source.take(stored).ok_or_else(short)?;
        if last {
            break;
        }
    }
    source.take(4).ok_or_else(short)?;
    payload.len().checked_sub(source.0.len()).ok_or_else(short)
}

/// The sizes of the zstd frames in a verified payload, for a reader that rebuilds the seek table.
pub(crate) fn frame_sizes(
    codec: Codec,
    element_bytes: usize,
    payload: &[u8],
    raw_bytes: u32,
    at: u64,
) -> Result<Vec<(u32, u32)>> {
    let planes = match codec {
        Codec::Stored => return Ok(vec![(frame_length("block", payload.len())?, 0)]),
        Codec::Zstd => 1,
        Codec::ZstdPlanes => element_bytes,
    };
    let content = raw_bytes.checked_div(frame_length("planes", planes)?).unwrap_or(0);
    let mut sizes = Vec::new();
    let mut rest = payload;
    for _ in 0..planes {
        let length = checked_frame_bytes(rest, u64::from(content))
            .map_err(|cause| Error::malformed("zstd frame of a block", at, cause))?;
        sizes.push((frame_length("frame", length)?, content));
        rest = rest.get(length..).unwrap_or_default();
    }
    end_of_payload(rest, at)?;
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(codec: Codec, element_bytes: usize, raw: &[u8]) -> Payload {
        let payload = Encoder::new().encode(codec, 1, element_bytes, raw, Vec::new()).unwrap();
        let mut out = vec![0; raw.len()];
        Decoder::new()
            .decode(codec, element_bytes, &payload.bytes, &mut out, 0)
            .unwrap();
        assert_eq!(out, raw);
        let sizes = frame_sizes(
            codec,
            element_bytes,
            &payload.bytes,
            u32::try_from(raw.len()).unwrap(),
            0,
        )
        .unwrap();
        assert_eq!(sizes, payload.frames);
        payload
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut hash = blake3::Hasher::new().finalize_xof();
        let mut noise = vec![0; bytes];
        hash.fill(&mut noise);
        noise
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for codec in Codec::ALL {
            for element_bytes in [1, 2, 4, 8] {
                for count in [1usize, 7, 1000, 70_000] {
                    round_trip(codec, element_bytes, &noise(count * element_bytes));
                    round_trip(codec, element_bytes, &vec![7; count * element_bytes]);
                }
            }
        }
    }

    #[test]
    fn a_noise_plane_is_stored_in_a_frame_that_zstd_reads() {
        let plane = noise(300_000);
        assert_eq!(Encoder::new().texture(1, &plane).unwrap(), Texture::Noise);
        let mut payload = Payload::default();
        raw_frame(&plane, &mut payload).unwrap();
        assert_eq!(zstd::decode_all(payload.bytes.as_slice()).unwrap(), plane);
        // Rows of a small vocabulary, as an embedding gives them.
        let vocabulary = noise(300 * 64);
        let rows = plane
            .chunks_exact(2)
            .map(|pick| usize::from(u16::from_le_bytes([pick[0], pick[1]])) % 300);
        let repeated: Vec<u8> = rows
            .take(4000)
            .flat_map(|row| vocabulary[row * 64..][..64].to_vec())
            .collect();
        assert_eq!(Encoder::new().texture(1, &repeated).unwrap(), Texture::Repeating);
        let uneven: Vec<u8> = plane.iter().map(|byte| byte.leading_zeros() as u8).collect();
        assert_eq!(Encoder::new().texture(1, &uneven).unwrap(), Texture::Independent);
    }

    #[test]
    fn a_frame_without_checksum_size_or_with_a_wide_window_is_refused() {
        let data = vec![3u8; 5000];
        let mut context = zstd::bulk::Compressor::new(1).unwrap();
        let plain = context.compress(&data).unwrap();
        assert!(checked_frame_bytes(&plain, 5000).unwrap_err().contains("checksum"));
        context.include_checksum(true).unwrap();
        assert!(checked_frame_bytes(&context.compress(&data).unwrap(), 5000).is_ok());
        assert!(
            checked_frame_bytes(&context.compress(&data).unwrap(), 4999)
                .unwrap_err()
                .contains("declares")
        );
        context.include_contentsize(false).unwrap();
        assert!(checked_frame_bytes(&context.compress(&data).unwrap(), 5000).is_err());
        let wide_window = [0x28, 0xb5, 0x2f, 0xfd, 0x84, 31 << 3, 0x88, 0x13, 0, 0, 1, 0, 0];
        assert!(checked_frame_bytes(&wide_window, 5000).unwrap_err().contains("window"));
        let dictionary = [0x28, 0xb5, 0x2f, 0xfd, 0x85, 7 << 3, 1, 0x88, 0x13, 0, 0, 1, 0, 0];
        assert!(
            checked_frame_bytes(&dictionary, 5000)
                .unwrap_err()
                .contains("dictionary")
        );
    }

    #[test]
    fn a_frame_that_decodes_to_less_than_it_declares_is_refused() {
        // Declares 2^62 bytes and ends at once: libzstd decodes it to nothing without an error.
        let mut lie = vec![0x28, 0xb5, 0x2f, 0xfd, 0xC4, 7 << 3];
        lie.extend_from_slice(&(1u64 << 62).to_le_bytes());
        lie.extend_from_slice(&[1, 0, 0]);
        lie.extend_from_slice(&content_checksum(&[]));
        assert!(Decoder::new().decode(Codec::Zstd, 1, &lie, &mut [0; 16], 0).is_err());
        lie[6..14].copy_from_slice(&16u64.to_le_bytes());
        assert!(Decoder::new().decode(Codec::Zstd, 1, &lie, &mut [0; 16], 0).is_err());
    }
}

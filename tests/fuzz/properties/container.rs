//! What holds for any bytes given to the container's readers: no panic, memory bounded by the bytes, and agreement. Whatever the file
//! reader accepts in full, the pipe reader accepts with the same rows, and the other way round.

use std::path::PathBuf;
use std::sync::OnceLock;

use acts::{Depth, File, Header, MomentsKey, MomentsParts, OpenOptions, Stream};

/// Rows of a container whose claims could make a test slow are not read.
const RAW_BYTES_MAX: u64 = 64 << 20;

fn options() -> OpenOptions {
    OpenOptions {
        allow_partial: true,
        ..OpenOptions::default()
    }
}

/// All rows of all tensors, if the file reader accepts every block.
fn by_file(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let file = File::from_bytes(data.to_vec(), options()).ok()?;
    let tensors = 0..file.header().tensors.len();
    let raw_bytes: u64 = tensors
        .clone()
        .filter_map(|tensor| file.summary(tensor).ok())
        .map(|summary| summary.raw_bytes)
        .sum();
    if raw_bytes > RAW_BYTES_MAX {
        return None;
    }
    let mut is_sound = true;
    file.verify(Depth::Full, |_| is_sound = false).ok()?;
    if !is_sound {
        return None;
    }
    // A salvaged container has holes, which only the stream skips.
    tensors
        .map(|tensor| file.to_bytes(tensor, 0..file.row_count(tensor)).ok())
        .collect()
}

fn by_stream(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut stream = Stream::new(data, true).ok()?;
    let mut rows: Vec<Vec<u8>> = stream.header().tensors.iter().map(|_| Vec::new()).collect();
    let mut total = 0;
    while let Some(block) = stream.next_block().ok()? {
        total += block.raw.len() as u64;
        if total > RAW_BYTES_MAX {
            return None;
        }
        rows[block.tensor].extend_from_slice(&block.raw);
    }
    Some(rows)
}

/// Any bytes as a file.
pub fn open(data: &[u8]) {
    if let Some(rows) = by_file(data) {
        assert_eq!(Some(rows), by_stream(data), "the pipe reader disagrees");
    }
}

/// Any bytes as a pipe.
pub fn stream(data: &[u8]) {
    if let Some(rows) = by_stream(data) {
        let file = by_file(data);
        let is_salvaged = File::from_bytes(data.to_vec(), options()).is_ok_and(|file| file.header().salvaged);
        assert!(is_salvaged || file == Some(rows), "the file reader disagrees");
    }
}

/// Any text as a header: what is accepted writes back to an equal header.
pub fn header(data: &[u8]) {
    if let Ok(header) = Header::from_json(data) {
        let text = header.to_json().expect("a header that was read can be written");
        assert_eq!(Header::from_json(&text).expect("and read again"), header);
    }
}

/// Bytes whose header, block and manifest digests are repaired before they are read, so that what lies behind them is reached.
pub fn repaired(data: &[u8]) {
    let mut data = data.to_vec();
    repair(&mut data);
    open(&data);
    stream(&data);
}

/// Any bytes as a damaged container: what is saved are whole rows of tensors that the header names, in order.
pub fn salvage(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let mut data = data.to_vec();
    repair_header(&mut data);
    let path = super::write(super::place(&PLACE, &[]), "any.acts", &data);
    let Ok(header) = acts::salvage_header(&path) else {
        return assert!(
            acts::salvage(&path, false, |_| Ok(())).is_err(),
            "a header was found that is not there"
        );
    };
    let mut next: Vec<u64> = header.tensors.iter().map(|_| 0).collect();
    let found = acts::salvage(&path, false, |block| {
        let row_bytes = header.tensors[block.tensor].row_bytes()?;
        assert_eq!(block.raw.len() as u64 % row_bytes.max(1), 0, "half a row");
        assert!(block.first_row >= next[block.tensor], "rows that were there before");
        next[block.tensor] = block.first_row + 1;
        Ok(())
    });
    if let Err(error) = found {
        super::check_message(&error);
    }
}

/// Moments and directions of a container whose digests are repaired.
pub fn moments(data: &[u8]) {
    let mut data = data.to_vec();
    repair(&mut data);
    let Ok(file) = File::from_bytes(data, options()) else {
        return;
    };
    for (_, first) in MomentsKey::all(file.header()) {
        if let Err(error) = MomentsParts::read(&file, first) {
            super::check_message(&error);
        }
    }
    for layer in 0..4 {
        if let Ok(direction) = file.direction(layer, 8) {
            assert!(
                (direction.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-9,
                "no unit vector"
            );
        }
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?)).ok()
}

/// The header with its digest; where it ends.
fn repair_header(data: &mut [u8]) -> Option<(Header, usize)> {
    let text = u32_at(data, 20)?;
    let end = 24usize.checked_add(text)?;
    let header = Header::from_json(data.get(24..end)?).ok()?;
    let digest = *blake3::hash(data.get(..end)?).as_bytes();
    data.get_mut(end..end + 32)?.copy_from_slice(&digest);
    Some((header, end))
}

pub fn repair(data: &mut [u8]) -> Option<()> {
    let (header, end) = repair_header(data)?;
    let key = header.key().ok()?;
    let digest: [u8; 32] = data.get(end..end + 32)?.try_into().ok()?;
    let mut at = end + 32;
    loop {
        let length = u32_at(data, at + 4)?;
        match u32_at(data, at)? {
            0x184D_2A51 => {
                let payload_at = at + 8 + length;
                let payload_end = payload_at.checked_add(u32_at(data, at + 36)?)?;
                let body = [data.get(at + 8..at + 40)?, data.get(payload_at..payload_end)?].concat();
                let repaired = *blake3::keyed_hash(&key, &body).as_bytes();
                data.get_mut(at + 40..at + 72)?.copy_from_slice(&repaired);
                at = payload_end;
            }
            0x184D_2A53 => {
                let end = at + 8 + length;
                let seek = *blake3::hash(data.get(end..)?).as_bytes();
                data.get_mut(at + 40..at + 72)?.copy_from_slice(&digest);
                data.get_mut(at + 72..at + 104)?.copy_from_slice(&seek);
                let body = data.get(at..end.checked_sub(32)?)?.to_vec();
                let repaired = *blake3::keyed_hash(&key, &body).as_bytes();
                data.get_mut(end - 32..end)?.copy_from_slice(&repaired);
                return Some(());
            }
            _ => return None,
        }
    }
}

//! A GGUF file, mapped: bytes → checked metadata and tensor ranges. It knows nothing of models.
//!
//! ```text
//! "GGUF"  u32 version (2 or 3)  u64 tensor count  u64 metadata count           little-endian throughout
//! metadata count times:  string key, u32 type, value
//! tensor count times:    string name, u32 rank, u64 × rank dims (fastest first), u32 type, u64 offset from the data's start
//! padding to `general.alignment` (32 where it is silent), then the tensors
//! string: u64 length, UTF-8 bytes;  array: u32 type, u64 count, values
//! ```

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"GGUF";
// BOUND: what a header may claim. Counts are also checked against the bytes that are left, before anything is reserved; a
// vocabulary of half a million tokens with its merges takes 40 MiB, and an element in memory at most 24 times its bytes.
const HEADER_BYTES_MAX: usize = 128 << 20;
const TENSORS_MAX: u64 = 1 << 17;
const KEYS_MAX: u64 = 1 << 14;
const NAME_BYTES_MAX: u64 = 1 << 10;
const TEXT_BYTES_MAX: u64 = 16 << 20;
const ELEMENT_BYTES_MAX: u64 = 2 << 10;
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;
const RANK_MAX: u32 = 4;

/// A value of the metadata. Integers of every width are one kind, and so are floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i128),
    Float(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Flags(Vec<bool>),
}

impl Value {
    /// Zero, false or empty: what a key that is not there would say.
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Integer(value) => *value == 0,
            Self::Float(value) => *value == 0.0,
            Self::Flag(flag) => !flag,
            Self::Text(text) => text.is_empty(),
            Self::Texts(list) => list.is_empty(),
            Self::Integers(list) => list.iter().all(|value| *value == 0),
            Self::Floats(list) => list.iter().all(|value| *value == 0.0),
            Self::Flags(list) => list.iter().all(|flag| !flag),
        }
    }
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

impl Stored {
    /// The type of a number in the file, or the name under which it is refused.
    fn of(code: u32) -> std::result::Result<Self, String> {
        Ok(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::Iq4Nl,
            23 => Self::Iq4Xs,
            30 => Self::Bf16,
            39 => Self::Mxfp4,
            _ => {
                const OTHERS: [(u32, &str); 18] = [
                    (9, "Q8_1"),
                    (15, "Q8_K"),
                    (16, "IQ2_XXS"),
                    (17, "IQ2_XS"),
                    (18, "IQ3_XXS"),
                    (19, "IQ1_S"),
                    (21, "IQ3_S"),
                    (22, "IQ2_S"),
                    (24, "I8"),
                    (25, "I16"),
                    (26, "I32"),
                    (27, "I64"),
                    (28, "F64"),
                    (29, "IQ1_M"),
                    (34, "TQ1_0"),
                    (35, "TQ2_0"),
                    (40, "NVFP4"),
                    (41, "Q1_0"),
                ];
                let named = OTHERS.iter().find(|(other, _)| *other == code).map(|(_, name)| *name);
                return Err(named.map_or_else(|| format!("number {code}"), str::to_owned));
            }
        })
    }

    /// Numbers in a block, and its bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Iq4Nl => (32, 18),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Iq4Xs => (256, 136),
            Self::Mxfp4 => (32, 17),
        }
    }
}

impl Stored {
    /// The numbers of so many bytes, which are whole blocks.
    pub fn count_in(self, byte_count: usize) -> usize {
        let (block, block_bytes) = self.block();
        byte_count / block_bytes * block
    }

    /// The bytes of so many numbers, which are whole blocks.
    pub fn bytes_of(self, count: usize) -> usize {
        let (block, block_bytes) = self.block();
        count / block * block_bytes
    }
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub stored: Stored,
    /// As mathematics has it: the last dimension is contiguous.
    pub shape: Vec<usize>,
    /// Of the file.
    pub bytes: Range<usize>,
}

/// A mapped file whose header was found sound.
pub struct File {
    map: Mmap,
    metadata: HashMap<String, Value>,
    entries: HashMap<String, Entry>,
}

impl File {
    pub fn has_magic(path: &Path) -> bool {
        let mut magic = [0; 4];
        std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == *MAGIC)
    }

    /// Maps the file and checks all of its header; no tensor is read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|cause| Error::io("", cause))?;
        let metadata = file.metadata().map_err(|cause| Error::io("", cause))?;
        if !metadata.is_file() {
            return Err(Error::file("", "is not a regular file"));
        }
        // SAFETY: the map is only read; that another process rewrites the file meanwhile is caught by the digest
        // taken from the map, which callers compare before they publish anything.
        let map = unsafe { Mmap::map(&file) }.map_err(|cause| Error::io("", cause))?;
        let (metadata, entries) = header(&map).map_err(|cause| Error::file("", cause))?;
        Ok(Self { map, metadata, entries })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub fn metadata(&self) -> &HashMap<String, Value> {
        &self.metadata
    }

    pub fn entries(&self) -> &HashMap<String, Entry> {
        &self.entries
    }

    /// The stored bytes of a tensor of this file.
    pub fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.bytes.clone()]
    }
}

type Header = (HashMap<String, Value>, HashMap<String, Entry>);

fn header(bytes: &[u8]) -> std::result::Result<Header, String> {
    let mut reader = Reader {
        bytes: &bytes[..bytes.len().min(HEADER_BYTES_MAX)],
        at: 0,
    };
    match reader.take(4) {
        Ok(magic) if magic == MAGIC => {}
        _ => return Err("is no GGUF file: it does not begin with GGUF".into()),
    }
    let version = reader.u32()?;
    if version != 2 && version != 3 {
        let swapped = (2..=3).contains(&version.swap_bytes());
        return Err(match swapped {
            true => "is big-endian, which is not read".into(),
            false => format!("has version {version}; 2 and 3 are read"),
        });
    }
    let tensor_count = reader.count("tensors", TENSORS_MAX, 24)?;
    let key_count = reader.count("keys", KEYS_MAX, 13)?;
    let metadata = metadata(&mut reader, key_count)?;
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT_DEFAULT,
        Some(Value::Integer(n)) => u64::try_from(*n)
            .ok()
            .filter(|n| n.is_power_of_two() && *n >= 8 && *n <= ALIGNMENT_MAX)
            .ok_or_else(|| format!("general.alignment = {n}, expected a power of two from 8 to {ALIGNMENT_MAX}"))?,
        Some(_) => return Err("general.alignment is no integer".into()),
    };
    let claims = (0..tensor_count)
        .map(|_| claim(&mut reader))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    let entries = entries(claims, data_start, alignment, bytes.len() as u64)?;
    Ok((metadata, entries))
}

fn metadata(reader: &mut Reader, count: u64) -> std::result::Result<HashMap<String, Value>, String> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = reader.text("a key", NAME_BYTES_MAX)?;
        let kind = reader.u32()?;
        let value = reader.value(kind, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key:?} stands twice"));
        }
    }
    Ok(metadata)
}

/// What the header says of a tensor, before it is compared with the others and the file's length.
struct Claim {
    name: String,
    stored: Stored,
    shape: Vec<usize>,
    offset: u64,
    byte_count: u64,
}

fn claim(reader: &mut Reader) -> std::result::Result<Claim, String> {
    let name = reader.text("a tensor's name", NAME_BYTES_MAX)?;
    let refuse = |cause: String| format!("tensor {name:?} {cause}");
    let rank = reader.u32()?;
    if !(1..=RANK_MAX).contains(&rank) {
        return Err(refuse(format!("has rank {rank}, expected 1 to {RANK_MAX}")));
    }
    let mut shape = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let dim = reader.u64()?;
        shape.push(usize::try_from(dim).map_err(|_| refuse(format!("has a dimension of {dim}")))?);
    }
    let contiguous = shape[0];
    shape.reverse();
    let stored = Stored::of(reader.u32()?).map_err(|kind| refuse(format!("has the type {kind}, which is not read")))?;
    let (block, block_bytes) = stored.block();
    if contiguous == 0 || contiguous % block != 0 {
        return Err(refuse(format!("has rows of {contiguous} in blocks of {block}")));
    }
    let byte_count = shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .and_then(|count| (count / block).checked_mul(block_bytes))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| refuse(format!("has the shape {shape:?}")))? as u64;
    let offset = reader.u64()?;
    Ok(Claim {
        name,
        stored,
        shape,
        offset,
        byte_count,
    })
}

/// Tensors lie within the file, aligned, and do not overlap.
fn entries(
    mut claims: Vec<Claim>,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> std::result::Result<HashMap<String, Entry>, String> {
    claims.sort_by_key(|claim| claim.offset);
    let mut entries = HashMap::with_capacity(claims.len());
    let mut free_from = 0;
    for claim in claims {
        let refuse = |cause: String| format!("tensor {:?} {cause}", claim.name);
        let end = claim.offset.checked_add(claim.byte_count);
        let end_in_file = end.and_then(|end| end.checked_add(data_start));
        let (Some(end), Some(end_in_file)) = (end, end_in_file.filter(|end| *end <= file_bytes)) else {
            return Err(refuse(format!(
                "claims {} bytes at {} of its data; the file ends at {file_bytes}",
                claim.byte_count, claim.offset
            )));
        };
        if claim.offset % alignment != 0 {
            return Err(refuse(format!(
                "lies at {}, not a multiple of {alignment}",
                claim.offset
            )));
        }
        if claim.offset < free_from {
            return Err(refuse("overlaps the one before it".into()));
        }
        free_from = end;
        let bytes = (data_start + claim.offset) as usize..end_in_file as usize;
        let entry = Entry {
            stored: claim.stored,
            shape: claim.shape,
            bytes,
        };
        if entries.insert(claim.name.clone(), entry).is_some() {
            return Err(format!("tensor {:?} stands twice", claim.name));
        }
    }
    Ok(entries)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> std::result::Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..count).ok_or_else(|| {
            format!(
                "its header claims {count} bytes at byte {} of {} (limit {HEADER_BYTES_MAX})",
                self.at,
                self.bytes.len()
            )
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> std::result::Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> std::result::Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things, each of at least `least_bytes`, that the rest of the file can hold.
    fn count(&mut self, things: &str, most: u64, least_bytes: u64) -> std::result::Result<u64, String> {
        let count = self.u64()?;
        let left = (self.bytes.len() - self.at) as u64;
        match count <= most && count.saturating_mul(least_bytes) <= left {
            true => Ok(count),
            false => Err(format!("claims {count} {things} in {left} bytes (limit {most})")),
        }
    }

    fn text(&mut self, what: &str, most: u64) -> std::result::Result<String, String> {
        let length = self.u64()?;
        if length > most {
            return Err(format!("{what} of {length} bytes, limit {most}"));
        }
        let bytes = self.take(length as usize)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn value(&mut self, kind: u32, key: &str) -> std::result::Result<Value, String> {
        Ok(match kind {
            0..=5 | 10 | 11 => Value::Integer(self.integer(kind)?),
            6 | 12 => Value::Float(self.float(kind)?),
            7 => Value::Flag(self.flag(key)?),
            8 => Value::Text(self.text(key, TEXT_BYTES_MAX)?),
            9 => self.list(key)?,
            _ => return Err(format!("{key} has the value type {kind}, which is unknown")),
        })
    }

    fn integer(&mut self, kind: u32) -> std::result::Result<i128, String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => self.u64()?.into(),
            _ => i64::from_le_bytes(self.array()?).into(),
        })
    }

    fn float(&mut self, kind: u32) -> std::result::Result<f64, String> {
        Ok(match kind {
            6 => f32::from_le_bytes(self.array()?).into(),
            _ => f64::from_le_bytes(self.array()?),
        })
    }

    fn flag(&mut self, key: &str) -> std::result::Result<bool, String> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(format!("{key} is neither true nor false")),
        }
    }

    fn list(&mut self, key: &str) -> std::result::Result<Value, String> {
        let kind = self.u32()?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(format!("{key} nests arrays, which is not read")),
            _ => return Err(format!("{key} has elements of type {kind}, which is unknown")),
        };
        // BOUND: every element takes bytes of the file.
        let count = self.count(key, u64::MAX, width)?;
        let each = 0..count;
        Ok(match kind {
            6 | 12 => Value::Floats(
                each.map(|_| self.float(kind).map(|value| value as f32))
                    .collect::<std::result::Result<_, _>>()?,
            ),
            7 => Value::Flags(each.map(|_| self.flag(key)).collect::<std::result::Result<_, _>>()?),
            8 => Value::Texts(
                each.map(|_| self.text(key, ELEMENT_BYTES_MAX))
                    .collect::<std::result::Result<_, _>>()?,
            ),
            _ => Value::Integers(
                each.map(|_| {
                    let value = self.integer(kind)?;
                    i64::try_from(value).map_err(|_| format!("{key} holds {value}, beyond 2^63"))
                })
                .collect::<std::result::Result<_, _>>()?,
            ),
        })
    }
}

//! Safetensors files, mapped: bytes → checked names, shapes and ranges → tensors.
//!
//! The header is validated here before anything is taken from it: distinct names, known types, products and offsets
//! without overflow, tensors that cover the data exactly, without holes and without overlap.
//!
//! ```text
//! 0      8 bytes   length n of the header, little-endian
//! 8      n bytes   JSON: name → {dtype, shape, data_offsets: [start, end)}, relative to byte 8 + n
//! 8 + n  the rest  the tensors, row-major, little-endian
//! ```

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor, op::BackpropOp};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::weights::Source;
use crate::wrapper;

/// BOUND: a header of a million tensors takes less.
const HEADER_BYTES_MAX: usize = 64 << 20;
const RANK_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    Bf16,
}

impl Stored {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    #[inline(always)]
    fn read(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Self::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            Self::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        }
    }
}

struct Entry {
    file: usize,
    /// None for a type that is never a parameter (an index buffer); asking for such a tensor is refused.
    dtype: Option<Stored>,
    dtype_name: String,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A tensor as it is stored.
pub struct Raw<'a> {
    pub dtype: &'a str,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// The mapped weight files of one model.
pub struct Safetensors {
    /// Each with its name.
    files: Vec<(String, Mmap)>,
    entries: HashMap<String, Entry>,
    dtype: DType,
    device: Device,
}

impl Safetensors {
    /// Maps the weight files and validates their headers; tensors will be given in `dtype` on `device`.
    pub fn open(directory: &Directory, dtype: DType, device: &Device) -> Result<Self> {
        Self::of(directory, directory.weight_files()?, dtype, device)
    }

    /// The same of other files than a model's.
    pub fn of(directory: &Directory, file_names: Vec<String>, dtype: DType, device: &Device) -> Result<Self> {
        let mut files = Vec::new();
        let mut entries = HashMap::new();
        for file_name in file_names {
            let file = directory.open_file(&file_name)?;
            // SAFETY: the map is only read; that another process rewrites the file meanwhile is caught by the digest
            // taken from the map, which callers compare before they publish anything.
            let map = unsafe { Mmap::map(&file) }.map_err(|cause| Error::io(&file_name, cause))?;
            for (name, entry) in header(&file_name, files.len(), &map)? {
                if entries.contains_key(&name) {
                    return Err(Error::tensor(&name, format!("stands twice, again in {file_name}")));
                }
                entries.insert(name, entry);
            }
            files.push((file_name, map));
        }
        Ok(Self {
            files,
            entries,
            dtype,
            device: device.clone(),
        })
    }

    /// The decoder's tensors of a wrapper's, under the names of a decoder's own checkpoint.
    pub fn text_part(mut self) -> Result<Self> {
        let mut entries = HashMap::new();
        for (name, entry) in self.entries.drain() {
            let Some(own) = wrapper::text_name(&name) else {
                match wrapper::is_foreign(&name) {
                    true => continue,
                    false => return Err(Error::tensor(&name, "is of no part of the model that is known here")),
                }
            };
            if entries.insert(own.clone(), entry).is_some() {
                return Err(Error::tensor(&own, "stands twice, under two names"));
            }
        }
        self.entries = entries;
        Ok(self)
    }

    /// The bytes of a tensor of any type, as they are stored.
    pub fn raw(&self, name: &str) -> Result<Option<Raw<'_>>> {
        let Some(entry) = self.entries.get(name) else {
            return Ok(None);
        };
        let (file, map) = &self.files[entry.file];
        let bytes = map
            .get(entry.bytes.clone())
            .ok_or_else(|| Error::file(file, "is shorter than its header says"))?;
        Ok(Some(Raw {
            dtype: &entry.dtype_name,
            shape: &entry.shape,
            bytes,
        }))
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// What the first file says of itself.
    pub fn metadata(&self) -> Map<String, Value> {
        let (name, map) = &self.files[0];
        let header = header_text(name, map).ok().and_then(|text| json::document(text).ok());
        match header.and_then(|mut header| header.remove("__metadata__")) {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        }
    }

    /// The name under which a tensor lies in the files: base models leave the prefix out, and a tied embedding may be
    /// stored as the head only.
    fn stored_name<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let bare = name.split_once('.').map_or(name, |(_, rest)| rest);
        let head = match name {
            "model.embed_tokens.weight"
            | "transformer.wte.weight"
            | "model.decoder.embed_tokens.weight"
            | "transformer.word_embeddings.weight" => "lm_head.weight",
            "gpt_neox.embed_in.weight" => "embed_out.weight",
            _ => name,
        };
        [name, bare, head]
            .into_iter()
            .find(|name| self.entries.contains_key(*name))
    }
}

impl Source for Safetensors {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn files(&self) -> Vec<&[u8]> {
        self.files.iter().map(|(_, map)| &map[..]).collect()
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        let asked: HashSet<_> = asked.iter().filter_map(|name| self.stored_name(name)).collect();
        // the first by name, so that the message is always the same
        let foreign = self
            .entries
            .keys()
            .filter(|name| !asked.contains(name.as_str()) && !is_silent(name))
            .min();
        match foreign {
            Some(name) => Err(Error::tensor(name, "is not part of this architecture")),
            None => Ok(()),
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(entry) = self.stored_name(name).and_then(|stored| self.entries.get(stored)) else {
            return Err(Error::tensor(name, "is missing"));
        };
        if entry.shape != shape {
            return Err(Error::tensor(
                name,
                format!("has shape {:?}, expected {shape:?}", entry.shape),
            ));
        }
        let Some(stored) = entry.dtype else {
            return Err(Error::tensor(
                name,
                format!("has type {}, expected F32, F16 or BF16", entry.dtype_name),
            ));
        };
        let (file, map) = &self.files[entry.file];
        let bytes = map
            .get(entry.bytes.clone())
            .ok_or_else(|| Error::file(file, "is shorter than its header says"))?;
        let tensor = decode(name, bytes, stored, self.dtype, shape)?;
        Ok(tensor.to_device(&self.device)?)
    }
}

/// Buffers that old checkpoints carry, and a head beside the embedding it is tied to.
fn is_silent(name: &str) -> bool {
    const SUFFIXES: [&str; 7] = [
        ".rotary_emb.inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        "lm_head.weight",
        "embed_out.weight",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Converts in parallel and refuses what is not finite.
fn decode(name: &str, bytes: &[u8], stored: Stored, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let (storage, bad) = match dtype {
        DType::F32 => {
            let (values, bad) = convert(bytes, stored, 0.0, |x| x, f32::is_finite);
            (CpuStorage::F32(values), bad)
        }
        DType::F16 => {
            let (values, bad) = convert(bytes, stored, f16::ZERO, f16::from_f32, f16::is_finite);
            (CpuStorage::F16(values), bad)
        }
        DType::BF16 => {
            let (values, bad) = convert(bytes, stored, bf16::ZERO, bf16::from_f32, bf16::is_finite);
            (CpuStorage::BF16(values), bad)
        }
        other => return Err(Error::tensor(name, format!("cannot be computed in {other:?}"))),
    };
    if let Some(at) = bad {
        let value = stored.read(&bytes[at * stored.bytes()..]);
        return Err(Error::tensor(
            name,
            match value.is_finite() {
                true => format!("holds {value} at element {at}, beyond the range of {dtype:?}"),
                false => format!("holds {value} at element {at}"),
            },
        ));
    }
    Ok(Tensor::from_storage(
        Storage::Cpu(storage),
        Shape::from(shape),
        BackpropOp::none(),
        false,
    ))
}

/// The values in another type, and the first that is not finite in it.
fn convert<T: Copy + Send + Sync>(
    bytes: &[u8],
    stored: Stored,
    zero: T,
    narrow: impl Fn(f32) -> T + Sync,
    is_finite: impl Fn(T) -> bool + Sync,
) -> (Vec<T>, Option<usize>) {
    const CHUNK: usize = 1 << 16;
    let width = stored.bytes();
    let mut values = vec![zero; bytes.len() / width];
    let bad = values
        .par_chunks_mut(CHUNK)
        .zip(bytes.par_chunks(CHUNK * width))
        .enumerate()
        .filter_map(|(chunk, (values, bytes))| {
            let mut all_finite = true;
            for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(width)) {
                *value = narrow(stored.read(bytes));
                all_finite &= is_finite(*value);
            }
            let bad = || values.iter().position(|value| !is_finite(*value));
            match all_finite {
                true => None,
                false => bad().map(|at| chunk * CHUNK + at),
            }
        })
        .min();
    (values, bad)
}

/// Validates the header of file number `index`.
fn header(file: &str, index: usize, bytes: &[u8]) -> Result<Vec<(String, Entry)>> {
    let text = header_text(file, bytes)?;
    let data_start = 8 + text.len();
    let map = json::document(text).map_err(|cause| Error::file(file, format!("header: {cause}")))?;
    let mut entries = Vec::with_capacity(map.len());
    for (name, value) in map.iter().filter(|(name, _)| *name != "__metadata__") {
        let entry = entry(value, index, data_start, bytes.len() - data_start)
            .map_err(|cause| Error::tensor(name, format!("{cause} in {file}")))?;
        entries.push((name.clone(), entry));
    }
    entries.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    let mut covered = data_start;
    for (name, entry) in &entries {
        let cause = match entry.bytes.start.cmp(&covered) {
            Ordering::Less => "overlaps the tensor before it",
            Ordering::Greater => "leaves a hole before it",
            Ordering::Equal => {
                covered = entry.bytes.end;
                continue;
            }
        };
        return Err(Error::tensor(name, format!("{cause} in {file}")));
    }
    match bytes.len() - covered {
        0 => Ok(entries),
        rest => Err(Error::file(file, format!("has {rest} bytes that belong to no tensor"))),
    }
}

/// The JSON at the beginning of a file.
fn header_text<'f>(file: &str, bytes: &'f [u8]) -> Result<&'f [u8]> {
    let refuse = |cause: String| Err(Error::file(file, cause));
    if [&b"PK\x03\x04"[..], b"\x80\x02", b"\x80\x04"]
        .iter()
        .any(|magic| bytes.starts_with(magic))
    {
        return refuse("pickle is not read: it can run code; convert the checkpoint to safetensors".into());
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return refuse(format!("is {} bytes long, too short for safetensors", bytes.len()));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > HEADER_BYTES_MAX {
        return refuse(format!("its header claims {length} bytes, limit {HEADER_BYTES_MAX}"));
    }
    match rest.get(..length) {
        Some(text) => Ok(text),
        None => refuse(format!("its header claims {length} bytes, {} are there", rest.len())),
    }
}

/// One tensor's line of the header, checked against the size of the data.
fn entry(value: &Value, file: usize, data_start: usize, data_len: usize) -> std::result::Result<Entry, String> {
    let numbers = |key: &str| -> Option<Vec<usize>> {
        let list = value.get(key)?.as_array()?;
        list.iter()
            .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
            .collect()
    };
    let dtype_name = value.get("dtype").and_then(Value::as_str).ok_or("has no dtype")?;
    let shape = numbers("shape").ok_or("has no shape")?;
    let offsets = numbers("data_offsets").unwrap_or_default();
    let &[start, end] = offsets.as_slice() else {
        return Err("has no data_offsets".into());
    };
    if shape.len() > RANK_MAX {
        return Err(format!("has a rank above {RANK_MAX}"));
    }
    if start > end || end > data_len {
        return Err(format!("claims bytes {start}..{end} of {data_len}"));
    }
    let (dtype, width) = match dtype_name {
        "F32" => (Some(Stored::F32), 4),
        "F16" => (Some(Stored::F16), 2),
        "BF16" => (Some(Stored::Bf16), 2),
        "F64" | "I64" | "U64" => (None, 8),
        "I32" | "U32" => (None, 4),
        "I16" | "U16" => (None, 2),
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => (None, 1),
        other => return Err(format!("has the unknown type {other:?}")),
    };
    let size = shape.iter().try_fold(width, |size: usize, &dim| size.checked_mul(dim));
    if size != Some(end - start) {
        return Err(format!("has shape {shape:?} of {dtype_name} in {} bytes", end - start));
    }
    Ok(Entry {
        file,
        dtype,
        dtype_name: dtype_name.to_owned(),
        shape,
        bytes: data_start + start..data_start + end,
    })
}

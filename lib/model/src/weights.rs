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

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor, op::BackpropOp};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

use crate::directory::Directory;
use crate::error::{Error, Result};

/// BOUND: a header of a million tensors takes less.
const HEADER_BYTES_MAX: usize = 64 << 20;
const RANK_MAX: usize = 8;

/// Where a decoder gets its parameters: a checkpoint's files, or anything else that knows names and shapes.
pub trait Source {
    /// The tensor `name`, which must have this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;
}

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
}

struct Entry {
    file: usize,
    /// None for a type that is never a parameter (an index buffer); asking for such a tensor is refused.
    dtype: Option<Stored>,
    dtype_name: String,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// The mapped weight files of one model.
pub struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    entries: HashMap<String, Entry>,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// Maps the weight files and validates their headers; tensors will be given in `dtype` on `device`.
    pub fn open(directory: &Directory, dtype: DType, device: &Device) -> Result<Self> {
        let mut files = Vec::new();
        let mut entries = HashMap::new();
        for name in directory.weight_files()? {
            let path = directory.resolve(&name)?;
            let file = File::open(&path).map_err(|cause| Error::io(&path, cause))?;
            // SAFETY: the map is only read; that another process rewrites the file meanwhile is caught by the digest
            // taken from the map, which callers compare before they publish anything.
            let map = unsafe { Mmap::map(&file) }.map_err(|cause| Error::io(&path, cause))?;
            for (name, entry) in header(&path, &map, files.len())? {
                if entries.contains_key(&name) {
                    return Err(Error::tensor(
                        &name,
                        format!("stands twice, again in {}", path.display()),
                    ));
                }
                entries.insert(name, entry);
            }
            files.push((path, map));
        }
        Ok(Self {
            files,
            entries,
            dtype,
            device: device.clone(),
        })
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The stored names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The stored size.
    pub fn byte_count(&self) -> u64 {
        self.files.iter().map(|(_, map)| map.len() as u64).sum()
    }

    /// BLAKE3 over the config and the mapped files, each with its length before it, in order.
    pub fn digest(&self, config: &[u8]) -> blake3::Hash {
        self.digest_by(config, |hasher, bytes| {
            hasher.update_rayon(bytes);
        })
    }

    /// The same on the calling thread alone: to run beside a computation.
    pub fn digest_on_one_thread(&self, config: &[u8]) -> blake3::Hash {
        self.digest_by(config, |hasher, bytes| {
            hasher.update(bytes);
        })
    }

    fn digest_by(&self, config: &[u8], update: impl Fn(&mut blake3::Hasher, &[u8])) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for bytes in std::iter::once(config).chain(self.files.iter().map(|(_, map)| &map[..])) {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            update(&mut hasher, bytes);
        }
        hasher.finalize()
    }

    /// Refuses tensors that no part of the decoder asked for: half a model, or another one.
    pub fn refuse_foreign(&self, asked: &[String]) -> Result<()> {
        let asked: std::collections::HashSet<_> = asked.iter().filter_map(|name| self.stored_name(name)).collect();
        for name in self.names() {
            // buffers that old checkpoints carry, and a head beside the embedding it is tied to
            let silent = [
                ".rotary_emb.inv_freq",
                ".attn.bias",
                ".attn.masked_bias",
                ".attention.bias",
            ]
            .iter()
            .chain(&[".attention.masked_bias", "lm_head.weight", "embed_out.weight"])
            .any(|suffix| name.ends_with(suffix));
            if !silent && !asked.contains(name) {
                return Err(Error::tensor(name, "is not part of this architecture"));
            }
        }
        Ok(())
    }

    /// The name under which a tensor lies in the files: base models leave the prefix out, and a tied embedding may be
    /// stored as the head only.
    fn stored_name<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let bare = name.split_once('.').map_or(name, |(_, rest)| rest);
        let head = match name {
            "model.embed_tokens.weight" | "transformer.wte.weight" => "lm_head.weight",
            "gpt_neox.embed_in.weight" => "embed_out.weight",
            _ => name,
        };
        [name, bare, head]
            .into_iter()
            .find(|name| self.entries.contains_key(*name))
    }
}

impl Source for Weights {
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
        let (path, map) = &self.files[entry.file];
        let bytes = map
            .get(entry.bytes.clone())
            .ok_or_else(|| Error::file(path, "is shorter than its header says"))?;
        let tensor = decode(name, bytes, stored, self.dtype, shape)?;
        Ok(tensor.to_device(&self.device)?)
    }
}

/// Converts in parallel and refuses what is not finite.
fn decode(name: &str, bytes: &[u8], stored: Stored, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    const CHUNK: usize = 1 << 16;
    let count = bytes.len() / stored.bytes();
    fn fill<T: Copy + Send + Sync>(
        bytes: &[u8],
        width: usize,
        count: usize,
        read: impl Fn(&[u8]) -> T + Sync,
        finite: impl Fn(&T) -> bool + Sync,
        zero: T,
    ) -> (Vec<T>, Option<usize>) {
        let mut values = vec![zero; count];
        let bad = values
            .par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(CHUNK * width))
            .enumerate()
            .filter_map(|(chunk, (values, bytes))| {
                let mut all_finite = true;
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(width)) {
                    *value = read(bytes);
                    all_finite &= finite(value);
                }
                match all_finite {
                    true => None,
                    false => values
                        .iter()
                        .position(|value| !finite(value))
                        .map(|at| chunk * CHUNK + at),
                }
            })
            .min();
        (values, bad)
    }
    let f32_of = |bytes: &[u8]| match stored {
        Stored::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        Stored::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        Stored::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
    };
    let width = stored.bytes();
    let (storage, bad) = match dtype {
        DType::F32 => {
            let (values, bad) = fill(bytes, width, count, f32_of, |x| x.is_finite(), 0.0);
            (CpuStorage::F32(values), bad)
        }
        DType::F16 => {
            let (values, bad) = fill(
                bytes,
                width,
                count,
                |b| f16::from_f32(f32_of(b)),
                |x| x.is_finite(),
                f16::ZERO,
            );
            (CpuStorage::F16(values), bad)
        }
        DType::BF16 => {
            let (values, bad) = fill(
                bytes,
                width,
                count,
                |b| bf16::from_f32(f32_of(b)),
                |x| x.is_finite(),
                bf16::ZERO,
            );
            (CpuStorage::BF16(values), bad)
        }
        other => return Err(Error::tensor(name, format!("cannot be computed in {other:?}"))),
    };
    if let Some(at) = bad {
        let value = f32_of(&bytes[at * width..]);
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

/// Validates one file's header.
fn header(path: &Path, bytes: &[u8], file: usize) -> Result<Vec<(String, Entry)>> {
    let refuse = |cause: String| Error::file(path, cause);
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") || bytes.starts_with(b"\x80\x04") {
        return Err(refuse(
            "pickle is not read: it can run code; convert the checkpoint to safetensors".into(),
        ));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(refuse(format!(
            "is {} bytes long, too short for safetensors",
            bytes.len()
        )));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > HEADER_BYTES_MAX {
        return Err(refuse(format!(
            "its header claims {length} bytes, limit {HEADER_BYTES_MAX}"
        )));
    }
    let (Some(text), Some(data)) = (rest.get(..length), rest.get(length..)) else {
        return Err(refuse(format!(
            "its header claims {length} bytes, {} are there",
            rest.len()
        )));
    };
    let map = json::document(text).map_err(|cause| refuse(format!("header: {cause}")))?;
    let mut entries = Vec::with_capacity(map.len());
    for (name, value) in map {
        if name == "__metadata__" {
            continue;
        }
        let refuse = |cause: &str| Error::tensor(&name, format!("{cause} in {}", path.display()));
        let dtype_name = value
            .get("dtype")
            .and_then(|dtype| dtype.as_str())
            .ok_or_else(|| refuse("has no dtype"))?;
        let numbers = |key: &str| -> Option<Vec<usize>> {
            let list = value.get(key)?.as_array()?;
            list.iter()
                .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
                .collect()
        };
        let shape = numbers("shape").ok_or_else(|| refuse("has no shape"))?;
        let offsets = numbers("data_offsets").ok_or_else(|| refuse("has no data_offsets"))?;
        let &[start, end] = offsets.as_slice() else {
            return Err(refuse("has no data_offsets"));
        };
        if shape.len() > RANK_MAX {
            return Err(refuse("has a rank above 8"));
        }
        if start > end || end > data.len() {
            return Err(refuse(&format!("claims bytes {start}..{end} of {}", data.len())));
        }
        let (dtype, width) = match dtype_name {
            "F32" => (Some(Stored::F32), 4),
            "F16" => (Some(Stored::F16), 2),
            "BF16" => (Some(Stored::Bf16), 2),
            "F64" | "I64" | "U64" => (None, 8),
            "I32" | "U32" => (None, 4),
            "I16" | "U16" => (None, 2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => (None, 1),
            other => return Err(refuse(&format!("has the unknown type {other:?}"))),
        };
        let size = shape.iter().try_fold(width, |size: usize, &dim| size.checked_mul(dim));
        if size != Some(end - start) {
            return Err(refuse(&format!(
                "has shape {shape:?} of {dtype_name} in {} bytes",
                end - start
            )));
        }
        let bytes = 8 + length + start..8 + length + end;
        entries.push((
            name.clone(),
            Entry {
                file,
                dtype,
                dtype_name: dtype_name.to_owned(),
                shape,
                bytes,
            },
        ));
    }
    entries.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    let mut covered = 8 + length;
    for (name, entry) in &entries {
        if entry.bytes.start != covered {
            let what = if entry.bytes.start < covered {
                "overlaps the tensor before it"
            } else {
                "leaves a hole before it"
            };
            return Err(Error::tensor(name, format!("{what} in {}", path.display())));
        }
        covered = entry.bytes.end;
    }
    if covered != bytes.len() {
        return Err(refuse(format!(
            "has {} bytes that belong to no tensor",
            bytes.len() - covered
        )));
    }
    Ok(entries)
}

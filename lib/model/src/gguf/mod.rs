//! GGUF: a model in one file. It is read as the Hugging Face directory that it stands for: config.json and the tokenizer's files
//! are made from its metadata, and its tensors are found under Hugging Face's names, undoing what its converter did to them. So
//! the families, the tokenizer and the trainer need not know of it.

mod architecture;
mod blocks;
mod config;
mod file;
mod keys;
mod matrix;
#[cfg(target_arch = "x86_64")]
mod registers;
mod vocabulary;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::weights::{Matrix, Source};
use architecture::{Architecture, Change, Place};
use file::{Entry, File, Stored, Value};

/// A mapped GGUF file as a model.
pub struct Gguf {
    file: Arc<File>,
    architecture: &'static Architecture,
    dtype: DType,
    device: Device,
    as_stored: bool,
}

impl Gguf {
    /// Whether a file is one, by its first bytes.
    pub fn is_at(path: &Path) -> bool {
        path.is_file() && File::has_magic(path)
    }

    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let file = Arc::new(File::open(path)?);
        let refuse = |cause: &str| Err(Error::file("", cause));
        match file.metadata().get("general.type") {
            None => {}
            Some(Value::Text(kind)) if kind == "model" => {}
            Some(_) => return refuse("is no model: its general.type says so"),
        }
        if matches!(file.metadata().get("split.count"), Some(Value::Integer(count)) if *count > 1) {
            return refuse("is one of several files of a split model: merge them first (llama-gguf-split --merge)");
        }
        if matches!(file.metadata().get("general.quantization_version"), Some(Value::Integer(version)) if *version != 2)
        {
            return refuse("holds blocks of another general.quantization_version than 2, which alone is read");
        }
        let architecture = Architecture::of(&file)?;
        let device = device.clone();
        Ok(Self {
            file,
            architecture,
            dtype,
            device,
            as_stored: false,
        })
    }

    /// Matrices will stay as they are stored.
    pub fn keeping_blocks(self) -> Self {
        Self {
            as_stored: true,
            ..self
        }
    }

    /// The files of a Hugging Face directory that are made from the metadata, by name.
    pub fn stands_for(&self) -> Result<BTreeMap<&'static str, Vec<u8>>> {
        let config = self.architecture.config(&self.file)?;
        let made = vocabulary::files(&self.file)?;
        let made = made.into_iter().chain([("config.json", config.into())]);
        let text = |value: serde_json::Value| serde_json::to_vec(&value).map_err(|cause| Error::file("", cause));
        made.map(|(name, value)| Ok((name, text(value)?))).collect()
    }

    fn entry(&self, name: &str) -> Result<(&Entry, Place)> {
        let missing = || Error::tensor(name, "is missing");
        let place = self.architecture.place(name, &self.file).ok_or_else(missing)?;
        let entry = self.file.entries().get(&place.name).ok_or_else(missing)?;
        Ok((entry, place))
    }

    /// What Hugging Face keeps in one tensor of all experts, (experts, in, out) or (experts, out), of `stored`, which the file has by
    /// output; two are put together in pairs.
    fn of_experts(&self, name: &str, stored: &[String], shape: &[usize]) -> Result<Tensor> {
        let (outputs, rest) = match shape {
            [rest @ .., outputs] if outputs.is_multiple_of(stored.len()) => (outputs / stored.len(), rest),
            _ => return Err(Error::tensor(name, format!("is no pair of tensors: {shape:?}"))),
        };
        let own_shape: Vec<usize> = [&rest[..1], &[outputs], &rest[1..]].concat(); // (experts, out[, in])
        let one = |stored: &String| {
            let entry = self.file.entries().get(stored);
            let entry = entry.ok_or_else(|| Error::tensor(name, format!("is missing: there is no {stored}")))?;
            if entry.shape != own_shape {
                let cause = format!("has shape {:?}, expected {own_shape:?}", entry.shape);
                return Err(Error::tensor(stored, cause));
            }
            let tensor = numbers(
                stored,
                &self.file.bytes()[entry.bytes.clone()],
                entry.stored,
                &own_shape,
            )?;
            Ok(if rest.len() == 2 { tensor.t()? } else { tensor })
        };
        let parts = stored.iter().map(one).collect::<Result<Vec<_>>>()?;
        let tensor = Tensor::stack(&parts, shape.len())?.reshape(shape)?;
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// Which bytes of the file are a tensor's, which must have this shape.
    fn place_of(&self, name: &str, entry: &Entry, place: &Place, shape: &[usize]) -> Result<Range<usize>> {
        let bytes = entry.bytes.clone();
        let Some(elements) = &place.elements else {
            let mut own_shape = entry.shape.clone();
            if place.change == Change::Turned {
                own_shape.reverse();
            }
            return match own_shape == shape {
                true => Ok(bytes),
                false => Err(Error::tensor(
                    name,
                    format!("has shape {own_shape:?}, expected {shape:?}"),
                )),
            };
        };
        let (stored, whole) = (entry.stored, &entry.shape);
        let is_part = elements.len() == shape.iter().product::<usize>()
            && elements.end <= whole.iter().product()
            && (shape.len() == 1 || whole.last() == shape.last())
            && [elements.start, elements.end]
                .iter()
                .all(|at| at.is_multiple_of(stored.block().0));
        match is_part {
            true => Ok(bytes.start + stored.bytes_of(elements.start)..bytes.start + stored.bytes_of(elements.end)),
            false => Err(Error::tensor(
                name,
                format!("is no part {shape:?} of {}, which has shape {whole:?}", place.name),
            )),
        }
    }
}

impl Source for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(stored) = Architecture::of_experts(name) {
            return self.of_experts(name, &stored, shape);
        }
        let (entry, place) = self.entry(name)?;
        let bytes = &self.file.bytes()[self.place_of(name, entry, &place, shape)?];
        let stored_shape = if place.elements.is_some() { shape } else { &entry.shape };
        let tensor = numbers(name, bytes, entry.stored, stored_shape)?;
        let tensor = undo(tensor, place.change).map_err(|cause| Error::tensor(name, cause))?;
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Option<Arc<dyn Matrix>>> {
        let (entry, place) = self.entry(name)?;
        let is_smaller = entry.stored.bytes_of(shape[1]) < shape[1] * self.dtype.size_in_bytes();
        if !self.as_stored || !is_smaller {
            return Ok(None);
        }
        let own_shape = match place.change {
            Change::Turned => [shape[1], shape[0]],
            _ => shape,
        };
        let bytes = self.place_of(name, entry, &place, &own_shape)?;
        refuse_infinite(
            name,
            blocks::first_infinite(&self.file.bytes()[bytes.clone()], entry.stored),
        )?;
        let matrix = matrix::Matrix {
            file: self.file.clone(),
            bytes,
            stored: entry.stored,
            shape: shape.into(),
            order: order(place.change, shape[0]).map_err(|cause| Error::tensor(name, cause))?,
        };
        Ok(Some(Arc::new(matrix)))
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        let stored = |name: &&str| match Architecture::of_experts(name) {
            Some(stored) => stored,
            None => Vec::from_iter(self.architecture.place(name, &self.file).map(|place| place.name)),
        };
        let asked: HashSet<String> = asked.iter().flat_map(stored).collect();
        let read_as_keys = [
            "rope_freqs.weight",
            "rope_factors_long.weight",
            "rope_factors_short.weight",
        ];
        let foreign = self.file.entries().keys();
        let foreign = foreign.filter(|name| !asked.contains(*name) && !read_as_keys.contains(&name.as_str()));
        match foreign.min() {
            Some(name) => Err(Error::tensor(name, "is not part of this architecture")),
            None => Ok(()),
        }
    }

    fn files(&self) -> Vec<&[u8]> {
        vec![self.file.bytes()]
    }
}

/// The numbers of whole blocks.
fn numbers(name: &str, bytes: &[u8], stored: Stored, shape: &[usize]) -> Result<Tensor> {
    let values = blocks::dequantised(bytes, stored);
    let found = values.par_iter().position_first(|value| !value.is_finite());
    refuse_infinite(name, found.map(|at| (at, values[at])))?;
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn refuse_infinite(name: &str, found: Option<(usize, f32)>) -> Result<()> {
    match found {
        None => Ok(()),
        Some((at, number)) => Err(Error::tensor(name, format!("holds {number} at element {at}"))),
    }
}

fn undo(tensor: Tensor, change: Change) -> Result<Tensor> {
    match change {
        Change::Turned => Ok(tensor.t()?.contiguous()?),
        Change::PlusOne => Ok((tensor - 1.0)?),
        _ => match order(change, tensor.dim(0)?)? {
            None => Ok(tensor),
            Some(order) => Ok(tensor.index_select(&Tensor::from_vec(order, tensor.dim(0)?, &Device::Cpu)?, 0)?),
        },
    }
}

/// Which stored row stands where Hugging Face has the first, the second, …; none where all stand alike.
fn order(change: Change, rows: usize) -> Result<Option<Vec<u32>>> {
    let order: Vec<usize> = match change {
        Change::None | Change::Turned | Change::PlusOne => return Ok(None),
        Change::Paired { head_count } => {
            let half = of_heads(rows, 2 * head_count)?;
            let of_head = |head: usize| (0..2 * half).map(move |at| 2 * head * half + at % half * 2 + at / half);
            (0..head_count).flat_map(of_head).collect()
        }
        Change::Stacked {
            head_count,
            kv_head_count,
        } => {
            let head = of_heads(rows, head_count + 2 * kv_head_count)?;
            let queries = of_heads(head_count, kv_head_count)? * head;
            let of_group = |group: usize| {
                let key = (head_count + group) * head;
                let value = key + kv_head_count * head;
                let queries = group * queries..(group + 1) * queries;
                queries.chain(key..key + head).chain(value..value + head)
            };
            (0..kv_head_count).flat_map(of_group).collect()
        }
    };
    Ok(Some(order.into_iter().map(|row| row as u32).collect()))
}

/// The share of each of `count` heads.
fn of_heads(rows: usize, count: usize) -> Result<usize> {
    match count > 0 && rows > 0 && rows.is_multiple_of(count) {
        true => Ok(rows / count),
        false => Err(Error::file(
            "",
            format!("has {rows} rows, which its {count} heads do not divide"),
        )),
    }
}

#[cfg(test)]
mod tests;

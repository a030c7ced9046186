//! GGUF: a model in one file. It is read as the Hugging Face directory that it stands for: config.json and the tokenizer's files
//! are made from its metadata, and its tensors are found under Hugging Face's names, undoing what its converter did to them. So
//! the families, the tokenizer and the trainer need not know of it.

mod architecture;
mod blocks;
mod config;
mod file;
mod keys;
mod vocabulary;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::weights::Source;
use architecture::{Architecture, Change};
use file::{Entry, File, Value};

/// A mapped GGUF file as a model.
pub struct Gguf {
    file: File,
    architecture: &'static Architecture,
    dtype: DType,
    device: Device,
}

impl Gguf {
    /// Whether a file is one, by its first bytes.
    pub fn is_at(path: &Path) -> bool {
        path.is_file() && File::has_magic(path)
    }

    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let file = File::open(path)?;
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
        })
    }

    /// The files of a Hugging Face directory that are made from the metadata, by name.
    pub fn stands_for(&self) -> Result<BTreeMap<&'static str, Vec<u8>>> {
        let config = self.architecture.config(&self.file)?;
        let made = vocabulary::files(&self.file)?;
        let made = made.into_iter().chain([("config.json", config.into())]);
        let text = |value: serde_json::Value| serde_json::to_vec(&value).map_err(|cause| Error::file("", cause));
        made.map(|(name, value)| Ok((name, text(value)?))).collect()
    }

    fn entry(&self, name: &str) -> Option<(&Entry, Change)> {
        let (stored, change) = self.architecture.stored(name, &self.file)?;
        Some((self.file.entries().get(&stored)?, change))
    }
}

impl Source for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some((entry, change)) = self.entry(name) else {
            return Err(Error::tensor(name, "is missing"));
        };
        let mut own_shape = entry.shape.clone();
        if change == Change::Turned {
            own_shape.reverse();
        }
        if own_shape != shape {
            return Err(Error::tensor(
                name,
                format!("has shape {own_shape:?}, expected {shape:?}"),
            ));
        }
        let values = blocks::dequantise(self.file.bytes_of(entry), entry.stored)?;
        if let Some(at) = values.par_iter().position_first(|value| !value.is_finite()) {
            return Err(Error::tensor(name, format!("holds {} at element {at}", values[at])));
        }
        let tensor = Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu)?;
        let tensor = undo(tensor, change).map_err(|cause| Error::tensor(name, cause))?;
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn refuse_unused(&self, asked: &[&str]) -> Result<()> {
        let asked: HashSet<String> = asked
            .iter()
            .filter_map(|name| Some(self.architecture.stored(name, &self.file)?.0))
            .collect();
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

fn undo(tensor: Tensor, change: Change) -> Result<Tensor> {
    match change {
        Change::None => Ok(tensor),
        Change::Turned => Ok(tensor.t()?.contiguous()?),
        Change::PlusOne => Ok((tensor - 1.0)?),
        // (head, half, 2, in) → (head, 2, half, in)
        Change::Paired { head_count } => regrouped(tensor, &[head_count, 0, 2], (1, 2)),
        // (3, head, dim, in) → (head, 3, dim, in)
        Change::Stacked { head_count } => regrouped(tensor, &[3, head_count, 0], (0, 1)),
    }
}

/// The rows taken as groups of groups, of which two levels change places; the level that is 0 has what is left.
fn regrouped(tensor: Tensor, levels: &[usize; 3], (one, other): (usize, usize)) -> Result<Tensor> {
    let shape = tensor.shape().clone();
    let rows = shape.dims().first().copied().unwrap_or(0);
    let known: usize = levels.iter().filter(|level| **level > 0).product();
    if known == 0 || rows == 0 || rows % known != 0 {
        return Err(Error::file(
            "",
            format!("has {rows} rows, which its heads do not divide"),
        ));
    }
    let mut grouped: Vec<usize> = levels
        .iter()
        .map(|&level| if level == 0 { rows / known } else { level })
        .collect();
    grouped.push(tensor.elem_count() / rows);
    let swapped = tensor.reshape(grouped)?.transpose(one, other)?;
    Ok(swapped.contiguous()?.reshape(shape)?)
}

#[cfg(test)]
mod tests;

//! GGUF: a model in one file. It is read as the Hugging Face directory that it stands for: config.json, tokenizer.json and
//! tokenizer_config.json are made from its metadata, and its tensors are found under Hugging Face's names, undoing what its
//! converter did to them. So the families, the tokenizer and the trainer need not know of it.

mod architecture;
mod blocks;
mod file;
mod vocabulary;

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
        let text = |value: &serde_json::Value| serde_json::to_vec_pretty(value).map_err(|cause| Error::file("", cause));
        let config = self.architecture.config(&self.file)?;
        let mut files = BTreeMap::from([("config.json", text(&config.into())?)]);
        if let Some((tokenizer, settings)) = vocabulary::files(&self.file)? {
            files.insert("tokenizer.json", text(&tokenizer)?);
            files.insert("tokenizer_config.json", text(&settings)?);
        }
        Ok(files)
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
        Change::Paired { head_count } => {
            let shape = tensor.shape().clone();
            let rows = shape.dims().first().copied().unwrap_or(0);
            if head_count == 0 || rows % (2 * head_count) != 0 {
                let cause = format!("has {rows} rows for {head_count} heads");
                return Err(Error::file("", cause));
            }
            let half = rows / (2 * head_count);
            let width = tensor.elem_count() / rows;
            // (head, half, 2, in) → (head, 2, half, in)
            let paired = tensor.reshape((head_count, half, 2, width))?.transpose(1, 2)?;
            Ok(paired.contiguous()?.reshape(shape)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/gguf")
            .join(name)
    }

    /// `types.safetensors` holds what the `gguf` package makes of the same blocks.
    #[test]
    fn every_stored_type_has_the_values_of_the_reference() {
        let file = File::open(&fixture("types.gguf")).unwrap();
        let golden = candle_core::safetensors::load(fixture("types.safetensors"), &Device::Cpu).unwrap();
        assert_eq!(golden.len(), 13);
        for (name, expected) in &golden {
            let entry = &file.entries()[name];
            let values = blocks::dequantise(file.bytes_of(entry), entry.stored).unwrap();
            let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(values, expected, "{name}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_in_its_header_or_tensors_is_refused() {
        let bytes = std::fs::read(fixture("llama.gguf")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cut.gguf");
        let lengths = (0..bytes.len()).step_by(bytes.len() / 97).chain([bytes.len() - 1]);
        for length in lengths {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(File::open(&path).is_err(), "cut at {length} of {}", bytes.len());
        }
    }

    /// Every byte of the header changed, one at a time: refused or read, never a panic.
    #[test]
    fn a_header_with_any_byte_changed_is_no_panic() {
        let bytes = std::fs::read(fixture("llama.gguf")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("changed.gguf");
        for at in 4..2_000.min(bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            std::fs::write(&path, &changed).unwrap();
            if let Ok(gguf) = Gguf::open(&path, DType::F32, &Device::Cpu) {
                let _ = gguf.stands_for();
            }
        }
    }
}

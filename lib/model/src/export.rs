//! What other programs load, written: config.json, the tokenizer's files and safetensors, each synced before it counts.

use std::fs::File;
use std::io::{BufWriter, Error as IoError, Write};
use std::path::Path;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::directory::Directory;
use crate::error::{Error, Result};

/// Files that belong to a model beside its weights and its config.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// A tensor that a file will hold.
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
}

/// Writes config.json: what `text` says, and the type of what is written.
pub fn config(directory: &Path, text: &[u8], dtype: DType) -> Result<()> {
    let mut config = json::document(text).map_err(|cause| Error::file("config.json", cause))?;
    // under the key that is there (transformers 5 writes `dtype`)
    let key = match config.contains_key("dtype") {
        true => "dtype",
        false => "torch_dtype",
    };
    config.insert(key.into(), dtype_word(dtype).into());
    json(directory, "config.json", &config.into())
}

fn dtype_word(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// Copies what belongs to a model beside its weights and its config.
pub fn companions(directory: &Path, from: &Directory) -> Result<()> {
    for name in COMPANIONS {
        if let Some(bytes) = from.read_optional(name)? {
            file(directory, name, &bytes)?;
        }
    }
    Ok(())
}

/// Writes a JSON file as people read it.
pub fn json(directory: &Path, name: &str, value: &Value) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|cause| Error::file(name, cause))?;
    text.push(b'\n');
    file(directory, name, &text)
}

/// Writes a small file.
pub fn file(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(directory.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|cause| Error::io(name, cause))
}

/// Writes a safetensors file; `data` gives the bytes of an entry, one at a time in memory.
pub fn safetensors(
    directory: &Path,
    name: &str,
    entries: &[Entry],
    mut data: impl FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let text = header(entries, Map::from_iter([("format".into(), "pt".into())]))?;
    let failed = |cause: IoError| Error::io(name, cause);
    let file = File::create(directory.join(name)).map_err(failed)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    for index in 0..entries.len() {
        file.write_all(&data(index)?).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|cause| failed(cause.into_error()))?;
    file.sync_all().map_err(failed)
}

/// The header of a safetensors file, padded, without its length: what is said of the file, and its tensors in this order.
pub fn header(entries: &[Entry], metadata: Map<String, Value>) -> Result<Vec<u8>> {
    let mut header = Map::from_iter([("__metadata__".into(), metadata.into())]);
    let mut offset = 0;
    for entry in entries {
        let end = offset + entry.shape.iter().product::<usize>() * entry.dtype.size_in_bytes();
        let dtype = match entry.dtype {
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
            other => return Err(Error::tensor(&entry.name, format!("{other:?} is not written"))),
        };
        header.insert(
            entry.name.clone(),
            json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).map_err(|cause| Error::file("header", cause))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}

/// A CPU tensor's elements in `dtype`, little-endian.
pub fn bytes(tensor: &Tensor, dtype: DType) -> Result<Vec<u8>> {
    let flat = tensor.to_dtype(dtype)?.flatten_all()?;
    Ok(match dtype {
        DType::F64 => little_endian(flat.to_vec1::<f64>()?, f64::to_le_bytes),
        DType::BF16 => little_endian(flat.to_vec1::<bf16>()?, bf16::to_le_bytes),
        DType::F16 => little_endian(flat.to_vec1::<f16>()?, f16::to_le_bytes),
        _ => little_endian(flat.to_vec1::<f32>()?, f32::to_le_bytes),
    })
}

fn little_endian<T: bytemuck::NoUninit, const N: usize>(values: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        return bytemuck::cast_slice(&values).to_vec();
    }
    values.into_iter().flat_map(bytes).collect()
}

//! Directories that other programs load: a model, or a PEFT adapter.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use model::{DType, Tensor};
use process::{Error, Result, ResultExt};
use serde_json::{Map, Value, json};

use crate::learner::Learner;
use crate::origin::Origin;
use crate::recipe::Lora;

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

/// config.json, the tokenizer's files, and the weights in `dtype`.
pub fn model(directory: &Path, learner: &Learner, origin: &Origin, dtype: DType) -> Result<()> {
    config(directory, origin, dtype)?;
    let parameters = learner.decoder.parameters();
    let entries: Vec<Entry> = parameters
        .iter()
        .map(|parameter| Entry {
            name: parameter.name.clone(),
            shape: parameter.stored_shape(),
            dtype,
        })
        .collect();
    safetensors(&directory.join("model.safetensors"), &entries, |index| {
        bytes(&learner.merged(&parameters[index])?, dtype)
    })
}

/// What PEFT loads onto the base model.
pub fn adapter(directory: &Path, learner: &Learner, origin: &Origin, lora: &Lora, dtype: DType) -> Result<()> {
    companions(directory, origin)?;
    let mut targets: Vec<&str> = learner.adapted.iter().map(|adapted| adapted.target()).collect();
    targets.sort_unstable();
    targets.dedup();
    let transposed = learner.adapted.iter().any(|adapted| adapted.weight.transposed);
    let base = origin.checkpoint.as_ref().map(|_| origin.path.to_string_lossy());
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.unwrap_or_default(),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": true,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
    });
    write_json(&directory.join("adapter_config.json"), &config)?;
    let trainable = &learner.trainable;
    let entries: Vec<Entry> = trainable
        .iter()
        .map(|trainable| Entry {
            name: trainable.name.clone(),
            shape: trainable.tensor.dims().to_vec(),
            dtype,
        })
        .collect();
    safetensors(&directory.join("adapter_model.safetensors"), &entries, |index| {
        bytes(&trainable[index].tensor.to_device(&model::Device::Cpu)?, dtype)
    })
}

fn config(directory: &Path, origin: &Origin, dtype: DType) -> Result<()> {
    let mut config: Map<String, Value> = serde_json::from_slice(&origin.config_text).at("config.json")?;
    // the type of what is written, under the key that is there (transformers 5 writes `dtype`)
    let key = if config.contains_key("dtype") {
        "dtype"
    } else {
        "torch_dtype"
    };
    config.insert(key.into(), dtype_word(dtype).into());
    write_json(&directory.join("config.json"), &config)?;
    companions(directory, origin)
}

fn companions(directory: &Path, origin: &Origin) -> Result<()> {
    for name in COMPANIONS {
        if let Some(bytes) = origin.companions.read_optional(name).at(name)? {
            write(&directory.join(name), &bytes)?;
        }
    }
    Ok(())
}

fn dtype_word(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// A tensor that a file will hold.
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
}

/// Writes a safetensors file, one tensor in memory at a time, synced.
pub fn safetensors(
    path: &Path,
    entries: &[Entry],
    mut data: impl FnMut(usize) -> candle_core::Result<Vec<u8>>,
) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for entry in entries {
        let end = offset + entry.shape.iter().product::<usize>() * entry.dtype.size_in_bytes();
        let dtype = match entry.dtype {
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
            other => return Err(Error::bug(&entry.name, format!("{other:?} is not written"))),
        };
        header.insert(
            entry.name.clone(),
            json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).at(path.display())?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let file = File::create(path).at(path.display())?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(text.len() as u64).to_le_bytes()).at(path.display())?;
    file.write_all(&text).at(path.display())?;
    for (index, entry) in entries.iter().enumerate() {
        let bytes = data(index).at(&entry.name)?;
        file.write_all(&bytes).at(path.display())?;
    }
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .at(path.display())?;
    file.sync_all().at(path.display())
}

/// A CPU tensor's elements in `dtype`, little-endian.
pub fn bytes(tensor: &Tensor, dtype: DType) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.to_dtype(dtype)?.flatten_all()?;
    Ok(match dtype {
        DType::F64 => flat
            .to_vec1::<f64>()?
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        DType::BF16 => flat
            .to_vec1::<half::bf16>()?
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        DType::F16 => flat
            .to_vec1::<half::f16>()?
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        _ => flat
            .to_vec1::<f32>()?
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    })
}

pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).at(path.display())?;
    text.push(b'\n');
    write(path, &text)
}

/// Writes a small file, synced.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).at(path.display())?;
    file.write_all(bytes).at(path.display())?;
    file.sync_all().at(path.display())
}

//! Directories that other programs load: a model, or a PEFT adapter.

use std::path::Path;

use model::export::{self, Entry};
use model::{DType, Parameter};
use process::{Result, ResultExt};
use serde_json::json;

use crate::learner::Learner;
use crate::origin::Origin;
use crate::recipe::Lora;

/// config.json, the tokenizer's files, and the weights in `dtype`.
pub fn model(directory: &Path, learner: &Learner, origin: &Origin, dtype: DType) -> Result<()> {
    let subject = directory.display();
    export::config(directory, &origin.config_text, dtype).at(&subject)?;
    export::companions(directory, &origin.companions).at(&subject)?;
    let parameters = learner.decoder.parameters();
    let entry = |parameter: &Parameter| Entry {
        name: parameter.name.clone(),
        shape: parameter.stored_shape(),
        dtype,
    };
    let entries: Vec<Entry> = parameters.iter().map(entry).collect();
    let data = |index: usize| export::bytes(&learner.merged(&parameters[index])?, dtype);
    export::safetensors(directory, "model.safetensors", &entries, data).at(&subject)
}

/// What PEFT loads onto the base model.
pub fn adapter(directory: &Path, learner: &Learner, origin: &Origin, lora: &Lora, dtype: DType) -> Result<()> {
    let subject = directory.display();
    export::companions(directory, &origin.companions).at(&subject)?;
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
    export::json(directory, "adapter_config.json", &config).at(&subject)?;
    let trainable = &learner.trainable;
    let entries: Vec<Entry> = trainable
        .iter()
        .map(|trainable| Entry {
            name: trainable.name.clone(),
            shape: trainable.tensor.dims().to_vec(),
            dtype,
        })
        .collect();
    let data = |index: usize| export::bytes(&trainable[index].tensor.to_device(&model::Device::Cpu)?, dtype);
    export::safetensors(directory, "adapter_model.safetensors", &entries, data).at(&subject)
}

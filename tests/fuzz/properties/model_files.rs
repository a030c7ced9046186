//! What holds for any bytes read as a GGUF file or as an adapter's weights: a refusal with a message of bounded length, or a model; no panic.

use std::path::Path;

use model::{Checkpoint, Options};

/// BOUND: a small file may describe a large model, which is refused only when its tensors are asked for.
const PARAMETERS_MAX: u64 = 1 << 20;

pub fn check_gguf(data: &[u8], directory: &Path) {
    let path = directory.join("any.gguf");
    std::fs::write(&path, data).expect("a place for the file");
    match Checkpoint::open(&path, &Options::default()) {
        Err(error) => check_message(&error),
        Ok(checkpoint) => run(&checkpoint),
    }
}

/// `adapter` holds an adapter_config.json of the model at `base`.
pub fn check_adapter(data: &[u8], base: &Path, adapter: &Path) {
    std::fs::write(adapter.join("adapter_model.safetensors"), data).expect("a place for the file");
    let options = Options {
        adapters: vec![adapter.to_path_buf()],
        other_base: true,
        ..Options::default()
    };
    match Checkpoint::open(base, &options) {
        Err(error) => check_message(&error),
        Ok(checkpoint) => run(&checkpoint),
    }
}

fn run(checkpoint: &Checkpoint) {
    let refused = [
        checkpoint.tokenizer_if_any().err(),
        checkpoint.template().err(),
        checkpoint.parameters().err(),
    ];
    refused.iter().flatten().for_each(check_message);
    if refused[2].is_none()
        && checkpoint.config().parameter_count() <= PARAMETERS_MAX
        && let Err(error) = checkpoint.load()
    {
        check_message(&error);
    }
}

fn check_message(error: &model::Error) {
    let message = error.to_string();
    assert!(message.len() < 4000, "{message}");
}

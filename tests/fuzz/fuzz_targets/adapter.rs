//! Any bytes as the weights of an adapter.

#![no_main]

#[path = "../properties/model_files.rs"]
#[allow(dead_code)]
mod model_files;

use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let adapter = std::env::temp_dir().join(format!("flowlens-fuzz-adapter-{}", std::process::id()));
    std::fs::create_dir_all(&adapter).expect("a place for the file");
    let settings = "adapter_config.json";
    std::fs::copy(fixtures.join("adapters/patterns").join(settings), adapter.join(settings)).expect("its settings");
    model_files::check_adapter(data, &fixtures.join("models/llama"), &adapter);
});

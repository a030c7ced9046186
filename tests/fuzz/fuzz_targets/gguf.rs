//! Any bytes as a GGUF file.

#![no_main]

#[path = "../properties/model_files.rs"]
#[allow(dead_code)]
mod model_files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let directory = std::env::temp_dir().join(format!("flowlens-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a place for the file");
    model_files::check_gguf(data, &directory);
});

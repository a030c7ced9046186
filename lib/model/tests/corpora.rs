//! The corpora of the fuzz targets `gguf` and `adapter`, replayed, and each of their files damaged at random places.

#[path = "../../../tests/fuzz/properties/model_files.rs"]
mod model_files;

use std::fs;
use std::path::PathBuf;

use model_files::{check_adapter, check_gguf};

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

/// Every file of a corpus, and copies of it in which a byte is another one.
fn inputs(corpus: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(tests().join("fuzz/corpus").join(corpus)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 4);
    let mut inputs = Vec::new();
    for path in paths {
        let bytes = fs::read(path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] = damaged[at].wrapping_add(1 + (at % 254) as u8);
            inputs.push(damaged);
        }
        inputs.push(bytes);
    }
    inputs
}

#[test]
fn any_bytes_as_a_gguf_file_are_refused_or_a_model() {
    let directory = tempfile::tempdir().unwrap();
    inputs("gguf")
        .iter()
        .for_each(|bytes| check_gguf(bytes, directory.path()));
}

#[test]
fn any_bytes_as_an_adapters_weights_are_refused_or_an_adapter() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "adapter_config.json";
    let from = tests().join("fixtures/adapters/patterns").join(settings);
    fs::copy(from, directory.path().join(settings)).unwrap();
    let base = tests().join("fixtures/models/llama");
    inputs("adapter")
        .iter()
        .for_each(|bytes| check_adapter(bytes, &base, directory.path()));
}

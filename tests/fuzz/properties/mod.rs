//! Every reader of foreign bytes that a library offers, and what holds for any bytes given to it: no panic, memory within a bound, an
//! error that says what is wrong, and that what was read can be written and read again. The fuzz program `any` and the ordinary test that
//! replays corpus/ run the same table; a reader is one line of it, and seeds in corpus/NAME.

pub mod container;
pub mod memory;
pub mod model_files;
pub mod records_line;
pub mod steered;
pub mod tools;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use records::dataset::InputFormat;

/// A name, and the property that any bytes must have.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("adapter", model_files::adapter),
    ("adapter_settings", model_files::adapter_settings),
    ("chat_template", model_files::template),
    ("config", model_files::config),
    ("container_header", container::header),
    ("container_moments", container::moments),
    ("container_open", container::open),
    ("container_repaired", container::repaired),
    ("container_salvage", container::salvage),
    ("container_stream", container::stream),
    ("dataset_auto", |data| records_line::dataset(data, InputFormat::Auto)),
    ("dataset_csv", |data| records_line::dataset(data, InputFormat::Csv)),
    ("dataset_json", |data| records_line::dataset(data, InputFormat::Json)),
    ("dataset_jsonl", |data| records_line::dataset(data, InputFormat::Jsonl)),
    ("dataset_parquet", records_line::parquet),
    ("dataset_text", |data| records_line::dataset(data, InputFormat::Text)),
    ("dataset_tsv", |data| records_line::dataset(data, InputFormat::Tsv)),
    ("gguf", model_files::gguf),
    ("journal", steered::journal),
    ("json", records_line::json),
    ("quantised", model_files::quantised),
    ("records_line", records_line::check),
    ("safetensors", model_files::weights),
    ("safetensors_index", model_files::index),
    ("soft_prompt", model_files::soft_prompt),
    ("steering_plan", steered::plan),
    ("tokenizer", model_files::tokenizer),
    ("tokenizer_config", model_files::tokenizer_config),
    ("tokenizer_vocab", model_files::tokenizer_vocab),
];

/// A directory of this process for the files of a target, made ready once: files of tests/fixtures, a directory each.
fn place(cell: &'static OnceLock<PathBuf>, fixtures: &[&str]) -> &'static Path {
    cell.get_or_init(|| {
        let directory = scratch();
        for name in fixtures {
            let from = self::fixtures().join(name);
            let to = directory.join(from.file_name().expect("a file"));
            std::fs::copy(from, to).expect("a file of tests/fixtures");
        }
        directory
    })
}

/// Where all directories lie; whoever sets it removes it.
pub static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// A new directory.
pub fn scratch() -> PathBuf {
    let root = ROOT.get().cloned().unwrap_or_else(std::env::temp_dir);
    tempfile::tempdir_in(root).expect("a place for files").keep()
}

pub fn fixtures() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = here.ancestors().find(|directory| directory.join("fixtures").is_dir());
    tests.expect("tests/fixtures").join("fixtures")
}

/// Bytes as a file that a reader opens.
fn write(directory: &Path, name: &str, data: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, data).expect("a place for the file");
    path
}

/// A refusal is one line of bounded length, and says something.
fn check_message(error: &impl std::fmt::Display) {
    let message = error.to_string();
    assert!(!message.is_empty() && message.len() < 4000, "{message:?}");
}

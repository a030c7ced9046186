//! What holds for any bytes as a file of a model: a refusal with a message of bounded length, or a model; no panic.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use model::{Bos, Checkpoint, DType, Device, Directory, Options, SoftPrompt, Template, Tokenizer};

use super::{check_message, fixtures, place, write};

/// BOUND: a small file may describe a large model, which is refused only when its tensors are asked for.
const PARAMETERS_MAX: u64 = 1 << 20;
/// BOUND: templates that run for ever are the confinement's business; here each costs a process.
const TEXTS: [&str; 4] = [
    "",
    "Hello, wörld! \n\t12 <s>",
    "a\u{301}\u{ac00}\u{1f600} ſt",
    "aaaaaaaaaaaaaaaaaaaaaaaa b",
];

pub fn gguf(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    run(&write(place(&PLACE, &[]), "any.gguf", data), &Options::default());
}

pub fn config(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["models/llama/model.safetensors"]);
    write(directory, "config.json", data);
    run(directory, &Options::default());
}

pub fn weights(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["models/llama/config.json"]);
    write(directory, "model.safetensors", data);
    run(directory, &Options::default());
}

pub fn quantised(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["quantised/nf4/model.safetensors"]);
    write(directory, "config.json", data);
    run(directory, &Options::default());
}

pub fn index(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["models/llama/config.json"]);
    let _ = std::fs::copy(
        fixtures().join("models/llama/model.safetensors"),
        directory.join("model-00001-of-00001.safetensors"),
    );
    write(directory, "model.safetensors.index.json", data);
    run(directory, &Options::default());
}

pub fn adapter(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["adapters/patterns/adapter_config.json"]);
    write(directory, "adapter_model.safetensors", data);
    run_adapted(directory);
}

pub fn adapter_settings(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["adapters/patterns/adapter_model.safetensors"]);
    write(directory, "adapter_config.json", data);
    run_adapted(directory);
}

pub fn soft_prompt(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let path = write(place(&PLACE, &[]), "soft.safetensors", data);
    if let Err(error) = SoftPrompt::read(&path, 4, DType::F32, &Device::Cpu) {
        check_message(&error);
    }
}

fn run_adapted(adapter: &Path) {
    let options = Options {
        adapters: vec![adapter.to_path_buf()],
        other_base: true,
        ..Options::default()
    };
    run(&fixtures().join("models/llama"), &options);
}

fn run(path: &Path, options: &Options) {
    let checkpoint = match Checkpoint::open(path, options) {
        Err(error) => return check_message(&error),
        Ok(checkpoint) => checkpoint,
    };
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

pub fn tokenizer(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &[]);
    write(directory, "tokenizer.json", data);
    tokenize(directory);
}

/// Vocabulary and merges of the older form, parted by a NUL.
pub fn tokenizer_vocab(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &[]);
    let mut parts = data.splitn(2, |byte| *byte == 0);
    write(directory, "vocab.json", parts.next().unwrap_or_default());
    write(directory, "merges.txt", parts.next().unwrap_or_default());
    write(
        directory,
        "tokenizer_config.json",
        br#"{"tokenizer_class":"GPT2Tokenizer"}"#,
    );
    tokenize(directory);
}

pub fn tokenizer_config(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &["../fuzz/corpus/tokenizer/words"]);
    let _ = std::fs::rename(directory.join("words"), directory.join("tokenizer.json"));
    write(directory, "tokenizer_config.json", data);
    tokenize(directory);
    if let Err(error) = Template::open(&Directory::any(directory, false).expect("it is there")) {
        check_message(&error);
    }
}

fn tokenize(directory: &Path) {
    let directory = Directory::any(directory, false).expect("it is there");
    let tokenizer = match Tokenizer::open(&directory) {
        Err(error) => return check_message(&error),
        Ok(tokenizer) => tokenizer,
    };
    for text in TEXTS {
        for bos in [Bos::Auto, Bos::On, Bos::Off] {
            match tokenizer.encode(text, bos) {
                Err(error) => check_message(&error),
                Ok(ids) => drop(
                    tokenizer
                        .decode(&ids, bos == Bos::Off)
                        .map_err(|error| check_message(&error)),
                ),
            }
        }
        match tokenizer.spans(text) {
            Err(error) => check_message(&error),
            // a span is used to cut the text
            Ok(spans) => spans
                .iter()
                .for_each(|(_, bytes)| assert!(bytes.end <= text.len(), "{bytes:?} of {text:?}")),
        }
    }
}

/// The engine runs in a process of its own, where a fuzzer sees no coverage: seeds matter more here than elsewhere.
pub fn template(data: &[u8]) {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        let directory = super::scratch();
        let file = std::fs::read(fixtures().join("../fuzz/corpus/tokenizer/words")).expect("a seed");
        write(&directory, "tokenizer.json", &file);
        Tokenizer::open(&Directory::any(&directory, false).expect("it is there")).expect("a sound tokenizer")
    });
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Template::parse(text) {
        Err(error) => check_message(&error),
        Ok(template) => {
            let turns = [("system", "Be brief."), ("user", "Hi, {{ 1 }}")];
            if let Err(error) = template.render(&turns, tokenizer, true) {
                check_message(&error);
            }
        }
    }
}

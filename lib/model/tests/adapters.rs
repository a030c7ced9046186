//! Adapters against PEFT: small random ones and the logits that it computes with them, made by `scripts/parity/adapters.py`.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Batch, Checkpoint, Device, Options, Tape, Tensor};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn adapter(name: &str) -> PathBuf {
    fixtures().join("adapters").join(name)
}

fn base(name: &str) -> PathBuf {
    fixtures().join("models").join(name)
}

fn open(base: &Path, adapters: &[PathBuf]) -> model::Result<Checkpoint> {
    let options = Options {
        adapters: adapters.to_vec(),
        ..Options::default()
    };
    Checkpoint::open(base, &options)
}

/// The largest difference of the logits on the base's golden sequences, relative to the largest logit.
fn difference(checkpoint: &Checkpoint, base: &Path, golden: &Path) -> f32 {
    let load = |path: &Path| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let golden = &load(golden)["logits"];
    let input = load(&base.join("golden.safetensors"));
    let ids: Vec<i64> = input["token_ids"].to_vec1().unwrap();
    let mut ids = ids.into_iter().map(|id| id as u32);
    let lengths: Vec<i64> = input["lengths"].to_vec1().unwrap();
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&n| ids.by_ref().take(n as usize).collect())
        .collect();
    let decoder = checkpoint.load().unwrap();
    let normed = decoder
        .forward(&Tape::off(), &Batch::pack(&sequences), &mut (), None)
        .unwrap();
    let logits = decoder.logits(&Tape::off(), &normed).unwrap();
    let largest = |tensor: &Tensor| {
        let values = tensor.abs().unwrap().flatten_all().unwrap();
        values.max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    largest(&(&logits - golden).unwrap()) / largest(golden)
}

#[test]
fn every_kind_of_adapter_gives_the_logits_of_peft() {
    let bases: Value = serde_json::from_slice(&fs::read(adapter("bases.json")).unwrap()).unwrap();
    assert_eq!(bases.as_object().unwrap().len(), 8);
    for (name, on) in bases.as_object().unwrap() {
        let base = base(on.as_str().unwrap());
        let checkpoint = open(&base, &[adapter(name)]).unwrap();
        let most = difference(&checkpoint, &base, &adapter(name).join("golden.safetensors"));
        println!("{name:22} {most:.1e}");
        assert!(most <= 1e-5, "{name}: {most}");
        let without = open(&base, &[]).unwrap();
        assert!(
            difference(&without, &base, &adapter(name).join("golden.safetensors")) > 1e-2,
            "{name}"
        );
        assert_ne!(checkpoint.digest(), without.digest());
    }
}

#[test]
fn several_adapters_add_up() {
    let base = base("llama");
    let both = [adapter("patterns"), adapter("rank-stabilised")];
    let checkpoint = open(&base, &both).unwrap();
    let most = difference(&checkpoint, &base, &adapter("both.safetensors"));
    assert!(most <= 1e-5, "{most}");
    let turned = [both[1].clone(), both[0].clone()];
    assert_ne!(checkpoint.digest(), open(&base, &turned).unwrap().digest());
}

#[test]
fn an_adapter_of_a_gguf_file_is_that_of_the_directory() {
    let file = fixtures().join("gguf/llama.gguf");
    let checkpoint = open(&file, &[adapter("patterns")]);
    let said = checkpoint.err().unwrap().to_string();
    assert!(said.contains("made for \"somewhere/llama\""), "{said}");
    let options = Options {
        adapters: vec![adapter("patterns")],
        other_base: true,
        ..Options::default()
    };
    let checkpoint = Checkpoint::open(&file, &options).unwrap();
    let most = difference(
        &checkpoint,
        &base("llama"),
        &adapter("patterns").join("golden.safetensors"),
    );
    assert!(most <= 1e-5, "{most}");
}

/// A copy of an adapter with another adapter_config.json.
fn changed(name: &str, change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter(name).join(file), directory.path().join(file)).unwrap();
    }
    let path = directory.path().join("adapter_config.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut settings);
    fs::write(&path, settings.to_string()).unwrap();
    directory
}

#[test]
fn what_does_not_fit_is_refused_and_named() {
    let refusal = |base: &str, directory: &tempfile::TempDir| {
        let loaded = open(&self::base(base), &[directory.path().into()]).and_then(|checkpoint| checkpoint.load());
        match loaded {
            Ok(_) => panic!("such an adapter is taken"),
            Err(refusal) => refusal.to_string(),
        }
    };
    let said = refusal("qwen2", &changed("patterns", |_| {}));
    assert!(
        said.contains("adapter_config.json: says that it was made for"),
        "{said}"
    );
    let said = refusal("llama", &changed("patterns", |settings| settings["r"] = json!(5)));
    assert!(
        said.contains("lora_A.weight: has shape [4, 16], expected [5, 16]"),
        "{said}"
    );
    let unnamed = |settings: &mut Value| settings["base_model_name_or_path"] = Value::Null;
    let said = refusal("qwen3", &changed("patterns", unnamed));
    assert!(said.contains("expected ["), "{said}");
    let said = refusal("gpt2", &changed("patterns", unnamed));
    assert!(
        said.contains("is changed by the adapter, and the model has no such tensor"),
        "{said}"
    );
    let pickled = changed("patterns", |_| {});
    fs::rename(
        pickled.path().join("adapter_model.safetensors"),
        pickled.path().join("adapter_model.bin"),
    )
    .unwrap();
    let said = refusal("llama", &pickled);
    assert!(said.contains("adapter_model.safetensors"), "{said}");
}

/// Cut or changed anywhere, an adapter is refused or taken; and never a panic.
#[test]
fn damaged_weights_are_refused_or_taken() {
    let bytes = fs::read(adapter("patterns").join("adapter_model.safetensors")).unwrap();
    let directory = changed("patterns", |_| {});
    let path = directory.path().join("adapter_model.safetensors");
    let load = || {
        let checkpoint = open(&base("llama"), &[directory.path().into()])?;
        checkpoint.load().map(|_| ())
    };
    for length in (0..bytes.len()).step_by(61) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(load().is_err(), "cut at {length}");
    }
    for at in (0..bytes.len()).step_by(41) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x11;
        fs::write(&path, &changed).unwrap();
        let _ = load();
    }
}

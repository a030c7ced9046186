//! lm-merge as a process: what it writes, and what it leaves alone.

use std::fs;
use std::path::PathBuf;

use harness::{Run, TempDir, temp_dir, worded_model, workspace};
use serde_json::Value;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(temp_dir());
        worded_model("llama", &place.path("llama"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn merge(&self, args: &[&str]) -> Run {
        let run = Run::new(env!("CARGO_BIN_EXE_lm-merge"))
            .arg("--model")
            .arg(self.path("llama"));
        run.args(args).arg("-o").arg(self.path("out"))
    }
}

fn adapter(name: &str) -> String {
    workspace()
        .join("tests/fixtures/adapters")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn without_an_adapter_the_weights_are_the_bases() {
    let place = Place::new();
    let records = place.merge(&[]).output().expect(0).records();
    let load = |name: &str| {
        candle_core::safetensors::load(place.path(name).join("model.safetensors"), &candle_core::Device::Cpu).unwrap()
    };
    let (base, made) = (load("llama"), load("out"));
    assert_eq!(base.len(), made.len());
    for (name, tensor) in &base {
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(tensor), values(&made[name]), "{name}");
    }
    assert_eq!(records[1]["type"], "merged");
    let count: usize = base.values().map(|tensor| tensor.elem_count()).sum();
    assert_eq!(records[1]["parameter_count"], count);
    assert_eq!(records[1]["adapter_count"], 0);
}

#[test]
fn the_type_written_is_the_one_asked_for_and_config_json_says_it() {
    let place = Place::new();
    place.merge(&["--store-dtype", "bf16"]).output().expect(0);
    let config: Value = serde_json::from_slice(&fs::read(place.path("out/config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
    let made = candle_core::safetensors::load(place.path("out/model.safetensors"), &candle_core::Device::Cpu).unwrap();
    assert!(made.values().all(|tensor| tensor.dtype() == candle_core::DType::BF16));
}

#[test]
fn a_head_that_an_adapter_parts_from_the_embedding_is_written_of_its_own() {
    let place = Place::new();
    worded_model("qwen2", &place.path("qwen2"));
    let run = Run::new(env!("CARGO_BIN_EXE_lm-merge"))
        .arg("--model")
        .arg(place.path("qwen2"));
    run.args(["--adapter", &adapter("embedding")])
        .arg("-o")
        .arg(place.path("out"))
        .output()
        .expect(0);
    let config: Value = serde_json::from_slice(&fs::read(place.path("out/config.json")).unwrap()).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    let made = candle_core::safetensors::load(place.path("out/model.safetensors"), &candle_core::Device::Cpu).unwrap();
    assert!(made.contains_key("lm_head.weight"));
}

#[test]
fn what_exists_stays_unless_it_is_to_be_replaced() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/mine"), "kept").unwrap();
    place.merge(&[]).output().refused(5, "exists");
    assert!(place.path("out/mine").exists());
    place.merge(&["--force"]).output().expect(0);
    assert!(!place.path("out/mine").exists() && place.path("out/model.safetensors").exists());
    let onto = Run::new(env!("CARGO_BIN_EXE_lm-merge"))
        .arg("--model")
        .arg(place.path("llama"));
    onto.arg("--force")
        .arg("-o")
        .arg(place.path("llama"))
        .output()
        .refused(2, "the output is also an input");
    assert!(place.path("llama/model.safetensors").exists());
}

#[test]
fn a_refused_adapter_leaves_nothing() {
    let place = Place::new();
    place
        .merge(&["--adapter", &adapter("transposed"), "--other-base"])
        .output()
        .refused(3, "is changed by the adapter");
    place
        .merge(&["--adapter", &adapter("nowhere")])
        .output()
        .refused(4, "nowhere");
    let left: Vec<_> = fs::read_dir(place.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["llama"]);
}

#[test]
fn an_average_holds_its_share_of_both_models() {
    let place = Place::new();
    let lora = adapter("decomposed");
    let values = |name: &str| {
        let file = place.path(name).join("model.safetensors");
        let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
        let mut values: Vec<(String, Vec<f32>)> = tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()))
            .collect();
        values.sort_by(|one, other| one.0.cmp(&other.0));
        values
    };
    place.merge(&["--adapter", &lora]).output().expect(0);
    std::fs::rename(place.path("out"), place.path("tuned")).unwrap();
    let tuned = place.path("tuned").display().to_string();
    let records = place
        .merge(&["--average", &tuned, "--average-share", "0.25"])
        .output()
        .expect(0)
        .records();
    assert_eq!(records[1]["average"]["share"], 0.25);
    let (base, tuned, made) = (values("llama"), values("tuned"), values("out"));
    let mut changed_count = 0;
    for ((name, base), ((_, tuned), (_, made))) in base.iter().zip(tuned.iter().zip(&made)) {
        for (base, (tuned, made)) in base.iter().zip(tuned.iter().zip(made)) {
            assert!((made - (0.75 * base + 0.25 * tuned)).abs() < 1e-6, "{name}");
            changed_count += usize::from(base != tuned);
        }
    }
    assert!(changed_count > 0, "the adapter changes nothing");
    fs::remove_dir_all(place.path("out")).unwrap();
    worded_model("gpt2", &place.path("gpt2"));
    let other = place.path("gpt2").display().to_string();
    place
        .merge(&["--average", &other])
        .output()
        .refused(3, "other names or shapes");
    place
        .merge(&["--average", &other, "--average-share", "1.5"])
        .output()
        .refused(2, "from 0 to 1");
}

#[test]
fn one_bit_of_so_many_weights_is_flipped() {
    let place = Place::new();
    let weights = |name: &str| {
        let path = place.path(name).join("model.safetensors");
        candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap()
    };
    let flips = ["--flip-rate", "0.01", "--flip-seed", "3"];
    let records = place.merge(&flips).output().expect(0).records();
    let (base, made) = (weights("llama"), weights("out"));
    let (mut hit, mut count) = (0, 0);
    for (name, tensor) in &base {
        let bits = |tensor: &candle_core::Tensor| -> Vec<u32> {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        for (before, after) in bits(tensor).into_iter().zip(bits(&made[name])) {
            let changed = (before ^ after).count_ones();
            assert!(changed <= 1, "{changed} bits of a weight of {name}");
            hit += changed;
            count += 1;
        }
    }
    assert_eq!(records[1]["flipped_count"], hit);
    assert!((count / 200..count / 50).contains(&hit), "{hit} of {count}");
    place
        .merge(&["--flip-rate", "2", "--force"])
        .output()
        .refused(2, "from 0 to 1");
}

//! Quantised matrices against what made them: `scripts/parity/quantised.py`.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::bits;
use crate::{Checkpoint, Options};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quantised")
}

/// What `scripts/parity/mxfp4.py` writes.
fn mxfp4() -> PathBuf {
    fixtures().join("../mxfp4")
}

#[test]
fn every_scheme_gives_the_numbers_of_its_reference() {
    let mut cases: Vec<_> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let text = equals_its_golden(&case, 7);
        assert!(text.get("quantization_config").is_none() && text["hidden_size"] == 32);
    }
    let text = equals_its_golden(&mxfp4(), 2);
    assert!(text.get("quantization_config").is_none() && text["hidden_size"] == 64);
}

/// Loads a case, compares the tensors that its golden has, of which there are `count`, and gives its config.
fn equals_its_golden(case: &Path, count: usize) -> Value {
    let checkpoint = Checkpoint::open(case, &Options::default()).unwrap();
    let decoder = checkpoint.load().unwrap();
    let golden = candle_core::safetensors::load(case.join("golden.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(golden.len(), count);
    for (name, golden) in &golden {
        let mut parameters = decoder.parameters().iter();
        let own = parameters.find(|parameter| parameter.name == *name).unwrap();
        let stored = match own.transposed {
            true => own.tensor.t().unwrap(),
            false => own.tensor.clone(),
        };
        assert_eq!(stored.dims(), golden.dims());
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (own, theirs) in numbers(&stored).into_iter().zip(numbers(golden)) {
            let far = (own - theirs).abs();
            assert!(
                far <= 1e-7 * theirs.abs().max(1e-3),
                "{}: {name}: {own} for {theirs}",
                case.display()
            );
        }
    }
    serde_json::from_slice(checkpoint.config_text()).unwrap()
}

#[test]
fn a_scale_of_eight_bits_is_a_power_of_two() {
    let pairs = [
        (127, 1.0),
        (130, 8.0),
        (1, f32::MIN_POSITIVE),
        (0, f32::MIN_POSITIVE / 2.0),
    ];
    for (byte, value) in pairs {
        assert_eq!(bits::e8m0(byte), value, "{byte}");
    }
    assert!(bits::e8m0(255).is_nan());
}

#[test]
fn eight_bits_are_the_floats_they_are_meant_to_be() {
    let pairs = [
        (0x00, 0.0),
        (0x01, 0.001953125),
        (0x07, 0.013671875),
        (0x08, 0.015625),
        (0x38, 1.0),
        (0x7e, 448.0),
        (0xc4, -3.0),
    ];
    for (byte, value) in pairs {
        assert_eq!(bits::e4m3(byte), value, "{byte:#x}");
    }
    assert!(bits::e4m3(0x7f).is_nan() && bits::e4m3(0xff).is_nan());
}

/// What is said to a copy of a case whose config says something else.
fn changed(case: &str, change: impl Fn(&mut Value)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let from = fixtures().join(case);
    fs::copy(
        from.join("model.safetensors"),
        directory.path().join("model.safetensors"),
    )
    .unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let loaded = Checkpoint::open(directory.path(), &Options::default()).and_then(|checkpoint| checkpoint.load());
    match loaded {
        Ok(_) => panic!("{case} is taken"),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let cases = [
        ("gptq", "bits", json!(3)),
        ("gptq", "checkpoint_format", json!("marlin")),
        ("awq", "version", json!("gemv")),
        ("awq", "quant_method", json!("hqq")),
        ("nf4", "load_in_4bit", json!(false)),
        ("fp8-rows", "format", json!("pack-quantized")),
        ("fp8-blocks", "fmt", json!("e5m2")),
        ("fp8-blocks", "weight_block_size", json!([0, 128])),
    ];
    for (case, key, value) in cases {
        let said = changed(case, |config| config["quantization_config"][key] = value.clone());
        assert!(said.contains(key) && !said.contains('\n'), "{said}");
    }
    let said = changed("fp8-blocks", |config| {
        config["quantization_config"]["weight_block_size"] = json!([128, 128]);
    });
    assert!(said.contains("weight_scale_inv: has shape"), "{said}");
    let said = changed("gptq", |config| config["quantization_config"]["bits"] = json!(8));
    assert!(said.contains("qweight: is I32"), "{said}");
    let said = changed("nf4", |config| config["intermediate_size"] = json!(48));
    assert!(said.contains("is of another shape"), "{said}");
    let said = changed("awq", |config| config["quantization_config"] = Value::Null);
    assert!(said.contains("is missing"), "{said}");
    let mxfp4 = "../mxfp4";
    let said = changed(mxfp4, |config| config["quantization_config"] = Value::Null);
    assert!(said.contains("gate_up_proj: is missing"), "{said}");
    let said = changed(mxfp4, |config| config["intermediate_size"] = json!(48));
    assert!(said.contains("_blocks: is U8"), "{said}");
    let said = changed(mxfp4, |config| config["num_local_experts"] = json!(2));
    assert!(said.contains("[3,"), "{said}");
}

/// Cut or changed anywhere, a file is refused or taken; and never a panic.
#[test]
fn damaged_files_are_refused_or_taken() {
    for case in ["fp8-blocks", "nf4-nested", "fp4", "gptq", "awq", "../mxfp4"] {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(
            fixtures().join(case).join("config.json"),
            directory.path().join("config.json"),
        )
        .unwrap();
        let bytes = fs::read(fixtures().join(case).join("model.safetensors")).unwrap();
        for at in (8..bytes.len()).step_by(97) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            fs::write(directory.path().join("model.safetensors"), &changed).unwrap();
            let _ = Checkpoint::open(directory.path(), &Options::default()).and_then(|checkpoint| checkpoint.load());
        }
    }
}

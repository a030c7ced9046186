//! Every operation at every site against PyTorch hooks (`scripts/parity/steering.py`), through the container: written, read, and applied.
//! `STEERING_PARITY=DIR` compares a model of one's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use acts::Header;
use model::{Batch, Checkpoint, Decoder, KvCache, Options, Site, Steering, Tape, Tensor};
use process::{Existing, Output};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use steering::{How, Made, Mode, Op, Operation, Plan};

const SITES: [&str; 14] = [
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "mlp_gate",
    "attn_in",
    "mlp_in",
    "mlp_act",
    "q_proj",
    "k_proj",
    "v",
    "attn_proj",
    "mlp_proj",
];
/// Where the two best logits are closer than this, rounding may choose.
const MARGIN: f32 = 1e-3;

struct Case {
    checkpoint: Checkpoint,
    decoder: Decoder,
    prompts: Vec<Vec<u32>>,
    layers: Vec<usize>,
    golden: HashMap<String, Vec<f64>>,
}

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn numbers(bytes: &[u8]) -> HashMap<String, Vec<f64>> {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let read = |view: &safetensors::tensor::TensorView| -> Vec<f64> {
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => data
                .chunks_exact(4)
                .map(|x| f32::from_le_bytes(x.try_into().expect("4 bytes")).into())
                .collect(),
            _ => data
                .chunks_exact(8)
                .map(|x| i64::from_le_bytes(x.try_into().expect("8 bytes")) as f64)
                .collect(),
        }
    };
    let tensors = file.tensors();
    tensors.iter().map(|(name, view)| (name.clone(), read(view))).collect()
}

impl Case {
    fn open(model: &Path, golden: &Path) -> Case {
        let checkpoint = Checkpoint::open(model, &Options::default()).expect("a model");
        let golden = numbers(&std::fs::read(golden).expect("a golden file"));
        let mut ids = golden["token_ids"].iter().map(|&id| id as u32);
        let prompts = golden["lengths"]
            .iter()
            .map(|&n| ids.by_ref().take(n as usize).collect());
        Case {
            decoder: checkpoint.load().expect("weights"),
            prompts: prompts.collect(),
            layers: golden["layers"].iter().map(|&layer| layer as usize).collect(),
            golden,
            checkpoint,
        }
    }

    /// The operation of a line of operations.json at a site.
    fn operation(&self, line: &Value, site: &str) -> Operation {
        let width = site.parse::<Site>().expect("a site").width(self.checkpoint.config());
        let wave = |a: &Value| -> Vec<f64> {
            let a = a.as_f64().expect("a number");
            let entry = |j: usize| ((a * (j + 1) as f64).sin() * 1e3).round_ties_even() / 1e3;
            (0..width).map(entry).collect()
        };
        let mut text = line.clone();
        let keys = text.as_object_mut().expect("an object");
        let waves = keys.remove("waves").expect("waves");
        let gate = keys.get_mut("gate").and_then(|gate| gate.as_object_mut());
        let gate = gate.and_then(|gate| gate.remove("wave"));
        keys.insert("site".into(), site.into());
        keys.insert("layers".into(), json!(self.layers));
        keys.entry("positions").or_insert("all".into());
        let mut operation: Operation = serde_json::from_value(text).expect("an operation");
        operation.vectors = waves.as_array().expect("waves").iter().map(wave).collect();
        let is_magnitude = operation.op == Op::Sparsify || operation.mode == Some(Mode::Elements);
        if let (true, Some(factors)) = (is_magnitude, operation.vectors.first_mut()) {
            factors.iter_mut().for_each(|factor| *factor = factor.abs());
        }
        if let (Some(found), Some(made)) = (&mut operation.gate, &gate) {
            found.direction = wave(made);
        }
        operation
    }

    /// Steered by a plan that went through a file.
    fn steering(&self, operation: Operation, scale: f64) -> Steering {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("plan.acts");
        let plan = Plan {
            made: Made::of(&self.checkpoint),
            operations: vec![operation],
        };
        let output = Output::create_binary(&path, Existing::Refuse, &[]).expect("an output");
        let header = Header::new("test", "1", "sha256:0", None);
        plan.write(output, header)
            .expect("written")
            .commit()
            .expect("committed");
        let read = Plan::read(&path).expect("the plan again");
        assert_eq!(read, plan);
        let mut steering = Steering::new(self.checkpoint.config(), self.checkpoint.device());
        let layers: Vec<usize> = (0..self.checkpoint.config().layer_count()).collect();
        let how = How {
            scale,
            layers: &layers,
            allow_other_model: false,
        };
        read.steer(&mut steering, &self.checkpoint, how)
            .expect("a fitting plan");
        steering
    }

    fn logits(&self, steering: &Steering, batch: &Batch, cache: Option<&mut KvCache>) -> Vec<Vec<f32>> {
        let tape = Tape::off();
        let normed = self
            .decoder
            .forward(&tape, batch, &mut steering.probe(), cache)
            .expect("a pass");
        let last = Tensor::new(batch.last_rows(), self.decoder.device()).expect("rows");
        let logits = self
            .decoder
            .logits(&tape, &normed.index_select(&last, 0).expect("rows"));
        logits.expect("logits").to_vec2().expect("numbers")
    }

    /// Decoded one by one behind a cache.
    fn greedy(&self, steering: &Steering, count: usize) -> Vec<f64> {
        let mut cache = KvCache::new();
        let mut next = self.prompts[0].clone();
        let mut tokens = Vec::new();
        for _ in 0..count {
            let logits = self
                .logits(steering, &Batch::pack(&[&next]), Some(&mut cache))
                .remove(0);
            let best = (0..logits.len()).reduce(|best, at| if logits[at] > logits[best] { at } else { best });
            let best = best.expect("a vocabulary");
            tokens.push(best as f64);
            next = vec![best as u32];
        }
        tokens
    }

    /// The largest difference of any logit, and how many token sequences were compared.
    fn compare(&self, name: &str, line: &Value) -> (f64, usize) {
        let (mut most, mut compared) = (0f64, 0);
        let is_known = |site: &&str| self.golden.contains_key(&format!("{name}.{site}.logits"));
        for site in SITES.into_iter().filter(is_known) {
            let key = |what: &str| &self.golden[&format!("{name}.{site}.{what}")];
            let steering = self.steering(self.operation(line, site), 1.0);
            let logits = self.logits(&steering, &Batch::pack(&self.prompts), None).concat();
            assert_eq!(logits.len(), key("logits").len());
            for (found, wanted) in logits.iter().zip(key("logits")) {
                most = most.max((f64::from(*found) - wanted).abs());
            }
            if key("margin")[0] > f64::from(MARGIN) {
                assert_eq!(
                    self.greedy(&steering, key("tokens").len()),
                    *key("tokens"),
                    "{name} at {site}"
                );
                compared += 1;
            }
        }
        (most, compared)
    }
}

fn operations() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(goldens().join("operations.json")).expect("operations.json");
    serde_json::from_str(&text).expect("JSON")
}

/// At least so many token sequences are compared.
fn compare(label: &str, case: &Case, least: usize) {
    let mut compared = 0;
    for (name, line) in operations() {
        if !SITES
            .iter()
            .any(|site| case.golden.contains_key(&format!("{name}.{site}.logits")))
        {
            continue;
        }
        let (most, count) = case.compare(&name, &line);
        println!("{label:10} {name:18} logits within {most:.1e}, tokens equal at {count} sites");
        assert!(most <= 1e-4, "{label}, {name}: {most}");
        compared += count;
    }
    assert!(
        compared >= least,
        "{label}: only {compared} have a clear winner at every step"
    );
}

#[test]
fn every_operation_at_every_site_equals_hooks_in_pytorch() {
    for name in ["llama", "gemma2", "gpt2"] {
        let model = harness::workspace().join("tests/fixtures/models").join(name);
        compare(
            name,
            &Case::open(&model, &goldens().join(format!("{name}.safetensors"))),
            90,
        );
    }
}

#[test]
fn a_model_of_ones_own_equals_hooks_in_pytorch() {
    let Some(dir) = std::env::var_os("STEERING_PARITY").map(PathBuf::from) else {
        return harness::skip(
            "steering",
            "STEERING_PARITY names no directory of scripts/parity/steering.py",
        );
    };
    let model = std::fs::read_to_string(dir.join("model")).expect("the model's path");
    compare(
        "own",
        &Case::open(Path::new(&model), &dir.join("golden.safetensors")),
        1,
    );
}

#[test]
fn at_scale_zero_no_bit_changes() {
    let model = harness::workspace().join("tests/fixtures/models/llama");
    let case = Case::open(&model, &goldens().join("llama.safetensors"));
    let batch = Batch::pack(&case.prompts);
    let bits = |steering: &Steering| -> Vec<u32> {
        let logits = case.logits(steering, &batch, None).concat();
        logits.iter().map(|x| x.to_bits()).collect()
    };
    let plain = bits(&Steering::new(case.checkpoint.config(), case.checkpoint.device()));
    for (name, line) in operations() {
        let steered = |scale| bits(&case.steering(case.operation(&line, "resid_mid"), scale));
        assert_eq!(steered(0.0), plain, "{name}");
        assert_ne!(steered(1.0), plain, "{name}");
    }
}

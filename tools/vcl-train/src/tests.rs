//! The mathematics of a step: against PyTorch's autograd and AdamW (goldens made by scripts/parity/train/goldens.py), and against
//! itself packed and unpacked, accumulated and whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use model::ops::{Gradients, through_candle};
use model::optimiser::{AdamW, AdamWOptions, gradient_norm};
use model::{Checkpoint, DType, Decoder, Options, Tensor};
use ranks::World;
use serde::Deserialize;

use crate::auxiliary::Auxiliaries;
use crate::learner::Learner;
use crate::micro::{Micro, Rows};
use crate::objective::Supervised;
use crate::order;
use crate::recipe::Lora;
use crate::sample::{Sample, Sequence};
use crate::schedule::{Schedule, ScheduleName};
use crate::share::Share;
use crate::trainer::Trainer;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn decoder() -> Decoder {
    decoder_in(DType::F32)
}

fn decoder_in(dtype: DType) -> Decoder {
    let options = Options {
        dtype,
        ..Options::default()
    };
    Checkpoint::open(&goldens().join("model"), &options)
        .unwrap()
        .load()
        .unwrap()
}

#[derive(Deserialize)]
struct Row {
    token_ids: Vec<u32>,
    learned: Vec<bool>,
}

fn batches() -> Vec<Vec<Sample>> {
    let text = std::fs::read(goldens().join("batches.json")).unwrap();
    let batches: Vec<Vec<Row>> = serde_json::from_slice(&text).unwrap();
    let sample = |row: Row| Sample {
        id: String::new(),
        sequences: vec![Sequence {
            token_ids: row.token_ids,
            learned: row.learned,
        }],
    };
    batches
        .into_iter()
        .map(|rows| rows.into_iter().map(sample).collect())
        .collect()
}

fn trainer(learner: Learner, aux: &str) -> Trainer {
    let tensors = learner.tensors();
    Trainer {
        optimiser: AdamW::new(&tensors, AdamWOptions::default()).unwrap(),
        share: Share::new(World::alone(), &tensors),
        learner,
        objective: Box::new(Supervised),
        auxiliaries: Auxiliaries::new(&[aux.parse().unwrap()], 4).unwrap(),
        gradients: Gradients::default(),
        spare: Vec::new(),
        recompute: false,
        clip: 1.0,
    }
}

/// One slot of micro-batches of `size` samples.
fn micros(samples: &[Sample], size: usize) -> Vec<Vec<Micro<'_>>> {
    slots(samples, 1, size)
}

/// So many slots of micro-batches of `size` samples.
fn slots(samples: &[Sample], count: usize, size: usize) -> Vec<Vec<Micro<'_>>> {
    let numbers: Vec<usize> = (0..samples.len()).collect();
    let pack = |chunk: &[usize]| Micro::pack(chunk.iter().map(|&at| &samples[at]).collect());
    order::slots(&numbers, count)
        .map(|slot| slot.chunks(size).map(pack).collect())
        .collect()
}

fn gradients(trainer: &mut Trainer, samples: &[Sample], size: usize) -> Vec<Tensor> {
    trainer.differentiate(&micros(samples, size), 1).unwrap();
    let tensors = trainer.learner.tensors();
    let gradient = |tensor: &Tensor| trainer.gradients.tensor(tensor).unwrap();
    tensors
        .iter()
        .map(|tensor| gradient(tensor).expect("every parameter has a gradient"))
        .collect()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    flat(a)
        .iter()
        .zip(flat(b))
        .map(|(&a, b)| f64::from(a) * f64::from(b))
        .sum()
}

fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap();
    (dot(&difference, &difference) / dot(b, b).max(1e-24)).sqrt()
}

fn cosine(a: &[Tensor], b: &[Tensor]) -> f64 {
    let sum = |x: &[Tensor], y: &[Tensor]| x.iter().zip(y).map(|(x, y)| dot(x, y)).sum::<f64>();
    sum(a, b) / (sum(a, a) * sum(b, b)).sqrt()
}

const GOLDEN_VCL: &str = "vcl:k=2,gamma=3,window=0.3-0.8";

#[test]
fn gradients_of_every_parameter_equal_those_of_pytorch() {
    golden_gradients();
}

#[test]
fn the_way_of_other_devices_has_the_gradients_of_pytorch_too() {
    through_candle(golden_gradients);
}

fn golden_gradients() {
    let expected = candle_core::safetensors::load(goldens().join("gradients.safetensors"), &Device::Cpu).unwrap();
    let first = &batches()[0];
    let specs = [
        ("plain", "none"),
        ("plain", "vcl:gamma=0,k=2,window=0.3-0.8"),
        ("vcl", GOLDEN_VCL),
    ];
    for (prefix, spec) in specs {
        for recompute in [false, true] {
            let mut trainer = trainer(Learner::full(decoder()), spec);
            trainer.recompute = recompute;
            let found = gradients(&mut trainer, first, 5);
            assert_eq!(found.len() * 2, expected.len());
            for (trainable, gradient) in trainer.learner.trainable.iter().zip(&found) {
                let error = relative_error(gradient, &expected[&format!("{prefix}.{}", trainable.name)]);
                assert!(error <= 1e-4, "{prefix} {}: {error}", trainable.name);
            }
        }
    }
}

#[derive(Deserialize)]
struct GoldenStep {
    loss: f64,
    c_k: f64,
    grad_norm: f64,
}

#[test]
fn twenty_steps_track_pytorch() {
    golden_steps(DType::F32, 1, (1e-4, 1e-4));
}

#[test]
fn twenty_steps_of_several_slots_track_pytorch() {
    for slot_count in [2, 4] {
        golden_steps(DType::F32, slot_count, (1e-4, 1e-4));
    }
}

#[test]
fn the_way_of_other_devices_tracks_pytorch_too() {
    through_candle(|| golden_steps(DType::F32, 4, (1e-4, 1e-4)));
}

/// What another device does by default, and the CPU where it is asked to: weights and activations in bf16, f32 masters.
#[test]
fn twenty_steps_in_bf16_with_f32_masters_stay_near_pytorchs_in_f32() {
    through_candle(|| golden_steps(DType::BF16, 1, (3e-2, 0.3)));
    golden_steps(DType::BF16, 1, (3e-2, 0.3));
}

/// `tolerance` of losses and C_k, and of gradient norms.
fn golden_steps(dtype: DType, slot_count: usize, tolerance: (f64, f64)) {
    let text = std::fs::read(goldens().join("losses.json")).unwrap();
    let mut golden: HashMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let expected: Vec<GoldenStep> = serde_json::from_value(golden.remove("steps").unwrap()).unwrap();
    let mut trainer = trainer(Learner::full(decoder_in(dtype)), GOLDEN_VCL);
    let schedule = Schedule {
        name: ScheduleName::Linear,
        peak: 3e-3,
        warmup_steps: 3,
        steps: 20,
    };
    for (index, (samples, expected)) in batches().iter().zip(&expected).enumerate() {
        let step = index as u64 + 1;
        let found = trainer
            .step(&slots(samples, slot_count, 5), step, schedule.rate(step))
            .unwrap();
        let c_k = found.aux.reports["vcl"]["c_k"].as_f64().unwrap();
        assert_eq!(found.aux.loss, 3.0 * c_k);
        let close = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance * b.abs();
        assert!(
            close(found.loss, expected.loss, tolerance.0),
            "step {step}: loss {} {}",
            found.loss,
            expected.loss
        );
        assert!(
            close(c_k, expected.c_k, tolerance.0),
            "step {step}: C_k {c_k} {}",
            expected.c_k
        );
        assert!(
            close(found.grad_norm, expected.grad_norm, tolerance.1),
            "step {step}: {} {}",
            found.grad_norm,
            expected.grad_norm
        );
    }
}

#[test]
fn accumulation_and_packing_change_no_gradient() {
    let samples = &batches()[1];
    let specs = [
        "none",
        "vcl:gamma=0",
        GOLDEN_VCL,
        "vcl:k=2,gamma=3,window=0.3-0.8,pool=layer,rows=all",
        "vcl:k=1,gamma=5,window=0.3-0.8,sign=concentrate,rows=last",
    ];
    for spec in specs {
        let mut trainer = trainer(Learner::full(decoder()), spec);
        let whole = gradients(&mut trainer, samples, 5);
        // one sequence at a time is unpacked, two are accumulated over ragged micro-batches
        for size in [1, 2] {
            let parts = gradients(&mut trainer, samples, size);
            let (cosine, error) = (cosine(&whole, &parts), relative_error(&parts[0], &whole[0]));
            assert!(
                cosine >= 0.999_999 && error < 1e-4,
                "{spec} by {size}: cosine {cosine}, error {error}"
            );
        }
    }
}

#[test]
fn the_auxiliary_gradient_is_not_lost_in_the_noise_of_the_main_one() {
    let samples = &batches()[2];
    let [plain, with] = ["none", GOLDEN_VCL].map(|spec| {
        let mut trainer = trainer(Learner::full(decoder()), spec);
        gradients(&mut trainer, samples, 5)
    });
    assert!(cosine(&plain, &with) < 0.999);
}

#[test]
fn only_adapters_learn_and_merged_equals_applied() {
    let lora = Lora {
        rank: 3,
        alpha: 6.0,
        targets: None,
    };
    let mut trainer = trainer(Learner::lora(decoder(), &lora, 7).unwrap(), GOLDEN_VCL);
    assert_eq!(trainer.learner.trainable.len(), 2 * 7 * 4);
    let before: Vec<Tensor> = trainer
        .learner
        .decoder
        .parameters()
        .iter()
        .map(|p| p.tensor.copy().unwrap())
        .collect();
    for (index, samples) in batches().iter().take(3).enumerate() {
        trainer.step(&micros(samples, 5), index as u64 + 1, 1e-2).unwrap();
        let Trainer { learner, gradients, .. } = &trainer;
        for (parameter, before) in learner.decoder.parameters().iter().zip(&before) {
            assert!(
                gradients.get(&parameter.tensor).is_none(),
                "{} is frozen",
                parameter.name
            );
            assert_eq!(relative_error(&parameter.tensor, before), 0.0);
        }
        assert!(gradient_norm(&learner.tensors(), gradients).unwrap() > 0.0);
    }
    // the merged weights, in a decoder without adapters, give the same loss
    let held_out = &batches()[9];
    let merged = self::trainer(Learner::full(decoder()), "none");
    let (applied, count) = trainer.evaluate(held_out).unwrap();
    let (unchanged, _) = merged.evaluate(held_out).unwrap();
    let learner = &trainer.learner;
    let parameters = learner.decoder.parameters().iter();
    for (parameter, own) in parameters.zip(merged.learner.decoder.parameters()) {
        model::ops::change(&own.tensor, &learner.merged(parameter).unwrap()).unwrap();
    }
    let (found, _) = merged.evaluate(held_out).unwrap();
    assert!((found - applied).abs() < 1e-4 * count as f64, "{found} {applied}");
    assert!((unchanged - applied).abs() > 1e-2, "training changed something");
}

#[test]
fn packing_keeps_whose_row_is_whose() {
    let samples = batches().remove(0);
    let micro = &micros(&samples, 5)[0][0];
    let mut expected: [Vec<u32>; 3] = Default::default();
    let mut row = 0;
    for sample in &samples {
        let sequence = &sample.sequences[0];
        for (position, &learned) in sequence.learned.iter().enumerate() {
            let is_last = position + 1 == sequence.token_ids.len();
            for (expected, is_row) in expected.iter_mut().zip([learned, is_last, true]) {
                expected.extend(is_row.then_some(row));
            }
            row += 1;
        }
    }
    for (rows, expected) in [Rows::Completion, Rows::Last, Rows::All].into_iter().zip(&expected) {
        assert_eq!(micro.rows(rows), *expected, "{rows:?}");
    }
    let loss_token_count: usize = samples.iter().map(Sample::loss_token_count).sum();
    assert_eq!(micro.targets.len(), loss_token_count);
    assert_eq!(
        micro.samples.iter().map(|sample| sample.token_count()).sum::<usize>(),
        micro.batch.row_count()
    );
}

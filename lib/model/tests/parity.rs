//! Every family against transformers: small random models and what they compute at every site, made by
//! `scripts/parity/models.py` and committed. One line per family is printed (`--nocapture`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use model::ops::{Gradients, Learning, Targets, cross_entropy};
use model::{
    Batch, Bos, Checkpoint, Config, DType, Decoder, Device, Directory, KvCache, Options, Patch, Point, Probe,
    ProbeResult, Site, Tape, Taps, Tensor, Tokenizer,
};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models")
}

/// The names of the models, one directory each.
fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<_> = directories
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

struct Case {
    decoder: Decoder,
    batch: Batch,
    golden: HashMap<String, Tensor>,
}

fn case(name: &str, dtype: DType) -> Case {
    case_of(name, &fixtures().join(name), dtype)
}

/// The checkpoint at `path`, to be held to the golden of `name`.
fn case_of(name: &str, path: &Path, dtype: DType) -> Case {
    let golden =
        candle_core::safetensors::load(fixtures().join(name).join("golden.safetensors"), &Device::Cpu).unwrap();
    let ids: Vec<i64> = golden["token_ids"].to_vec1().unwrap();
    let mut ids = ids.into_iter().map(|id| id as u32);
    let lengths: Vec<i64> = golden["lengths"].to_vec1().unwrap();
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&n| ids.by_ref().take(n as usize).collect())
        .collect();
    let options = Options {
        dtype,
        ..Options::default()
    };
    Case {
        decoder: Checkpoint::open(path, &options).unwrap().load().unwrap(),
        batch: Batch::pack(&sequences),
        golden,
    }
}

/// The largest difference, relative to the largest reference value of its row.
fn difference(ours: &Tensor, reference: &Tensor) -> f32 {
    assert_eq!(ours.dims(), reference.dims());
    let ours = ours.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let reference = reference.to_vec2::<f32>().unwrap();
    let rows = ours.iter().zip(&reference).map(|(ours, reference)| {
        let scale = reference.iter().fold(0f32, |most, x| most.max(x.abs()));
        ours.iter().zip(reference).fold(0f32, |most, (a, b)| {
            assert!(a.is_finite());
            most.max((a - b).abs() / scale)
        })
    });
    rows.fold(0.0, f32::max)
}

/// Every site that the golden has (it has no `mlp_act` and `mlp_up`, which follow from others), in one ragged batch: the largest difference and where.
fn largest(case: &Case) -> (f32, String) {
    largest_but(case, &[])
}

/// As [`largest`], some sites left out.
fn largest_but(case: &Case, left_out: &[Site]) -> (f32, String) {
    let layers = case.decoder.config().layer_count();
    let points: Vec<_> = Site::ALL
        .into_iter()
        .filter(|site| site.exists(case.decoder.config()))
        .filter(|site| ![Site::Logits, Site::MlpAct, Site::MlpUp].contains(site) && !left_out.contains(site))
        .flat_map(|site| (0..if site.layered() { layers } else { 1 }).map(move |layer| Point::new(site, layer)))
        .collect();
    let mut taps = Taps::new(points.iter().copied());
    let normed = case
        .decoder
        .forward(&Tape::off(), &case.batch, &mut taps, None)
        .unwrap();
    let logits = case.decoder.logits(&Tape::off(), &normed).unwrap();
    let mut all = vec![(difference(&logits, &case.golden["logits"]), "logits".to_owned())];
    for point in points {
        let golden = &case.golden[&point.to_string()];
        all.push((difference(taps.get(point).unwrap(), golden), point.to_string()));
    }
    let uncompared = 3 + left_out.len() * layers;
    assert_eq!(
        all.len(),
        case.golden.len() - uncompared,
        "a golden site was not compared"
    );
    all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn every_family_equals_transformers_at_every_site_in_f32() {
    for name in cases() {
        let (most, at) = largest(&case(&name, DType::F32));
        println!("{name:22} {most:.1e} at {at}");
        assert!(most <= 1e-5, "{name}: {most} at {at}");
    }
}

/// Whoever replaces the activated gate by itself, so that the product behind it is one of its own.
struct Copied(Taps);

impl Probe for Copied {
    fn wants(&self, point: Point) -> bool {
        self.0.wants(point)
    }
    fn visit(&mut self, point: Point, value: &Tensor) -> ProbeResult {
        self.0.visit(point, value)?;
        let is_gate = point.site == Site::MlpAct;
        is_gate.then(|| value.copy()).transpose()
    }
}

#[test]
fn the_hidden_layer_is_the_activated_gate_times_up_in_every_family() {
    for name in cases() {
        let case = case(&name, DType::F32);
        let config = case.decoder.config();
        if !Site::MlpIn.exists(config) {
            continue; // each expert has one
        }
        let at = |site| Point::new(site, 1);
        let mut probe = Copied(Taps::new([Site::MlpAct, Site::MlpUp, Site::MlpIn].map(at)));
        let normed = case
            .decoder
            .forward(&Tape::off(), &case.batch, &mut probe, None)
            .unwrap();
        let seen = |site| probe.0.get(at(site)).unwrap();
        let hidden = match Site::MlpUp.exists(config) {
            true => (seen(Site::MlpAct) * seen(Site::MlpUp)).unwrap(),
            false => seen(Site::MlpAct).clone(),
        };
        assert_eq!(difference(&hidden, seen(Site::MlpIn)), 0.0, "{name}");
        assert!(difference(&normed, &case.golden["final_norm"]) <= 1e-5, "{name}");
    }
}

/// The same weights, written as GGUF by `scripts/parity/gguf_fixtures.py`.
#[test]
fn a_gguf_file_equals_transformers_at_every_site() {
    let folder = fixtures().join("../gguf");
    let is_there = |name: &String| folder.join(format!("{name}.gguf")).exists();
    let names: Vec<_> = cases().into_iter().filter(is_there).collect();
    assert_eq!(names.len(), 31);
    for name in names {
        // its files have no key for the scale of Gemma's scores, so the queries themselves hold it
        let scaled: &[Site] = match name.as_str() {
            "gemma2" => &[Site::QProj, Site::Q],
            "gemma3" => &[Site::Q],
            _ => &[],
        };
        let (most, at) = largest_but(
            &case_of(&name, &folder.join(format!("{name}.gguf")), DType::F32),
            scaled,
        );
        println!("{name:22} {most:.1e} at {at}, from GGUF");
        assert!(most <= 1e-5, "{name}: {most} at {at}");
    }
}

#[test]
fn the_way_of_other_devices_equals_transformers_too() {
    for name in cases() {
        let (most, at) = model::ops::through_candle(|| largest(&case(&name, DType::F32)));
        println!("{name:22} {most:.1e} at {at}, through candle's operations");
        assert!(most <= 1e-5, "{name}: {most} at {at}");
    }
}

#[test]
fn half_precision_is_no_further_off_than_twice_transformers_own() {
    half_precision();
}

#[test]
fn half_precision_the_way_of_other_devices_is_no_further_off_either() {
    model::ops::through_candle(half_precision);
}

fn half_precision() {
    for name in cases() {
        for (index, dtype) in [DType::BF16, DType::F16].into_iter().enumerate() {
            let case = case(&name, dtype);
            let theirs: Vec<f32> = case.golden["half_deviation"].to_vec1().unwrap();
            let (most, at) = largest(&case);
            println!(
                "{name:22} {dtype:?} {most:.1e} at {at}, transformers {:.1e}",
                theirs[index]
            );
            assert!(most <= 2.0 * theirs[index], "{name} {dtype:?}: {most} at {at}");
        }
    }
}

#[test]
fn a_cached_pass_equals_a_whole_one_in_every_family() {
    cached_passes();
    model::ops::through_candle(cached_passes);
}

fn cached_passes() {
    for name in cases() {
        let case = case(&name, DType::F32);
        let sequences: Vec<_> = (0..case.batch.sequence_count())
            .map(|i| &case.batch.token_ids()[case.batch.rows(i)])
            .collect();
        let long = [sequences[0], sequences[2]];
        let mut cache = KvCache::new();
        let largest_scores = Point::new(Site::AttnLogitMax, 1);
        let mut taps = Taps::new([largest_scores]);
        let mut run = |batch: &Batch, cache: &mut KvCache| {
            case.decoder
                .forward(&Tape::off(), batch, &mut taps, Some(cache))
                .unwrap()
        };
        run(&Batch::pack(&long.map(|ids| &ids[..ids.len() - 2])), &mut cache);
        run(
            &Batch::pack(&long.map(|ids| &ids[ids.len() - 2..ids.len() - 1])),
            &mut cache,
        );
        let last = run(&Batch::pack(&long.map(|ids| &ids[ids.len() - 1..])), &mut cache);
        for (name_of, found) in [
            ("final_norm".into(), &last),
            (largest_scores.to_string(), taps.get(largest_scores).unwrap()),
        ] {
            let golden = &case.golden[&name_of];
            let last_rows = [4, 17].map(|row| golden.narrow(0, row, 1).unwrap());
            let most = difference(found, &Tensor::cat(&last_rows, 0).unwrap());
            assert!(most <= 1e-5, "{name}: {most} at {name_of}");
        }
    }
}

/// What each parameter gets from the mean negative log-likelihood of every next token, and that mean.
fn gradients(case: &Case, checkpointing: bool) -> (f64, Gradients) {
    let learning = Learning::of(case.decoder.parameters().iter().map(|parameter| &parameter.tensor));
    let tape = Tape::recording(learning.into()).with_checkpoints(checkpointing);
    let normed = case.decoder.forward(&tape, &case.batch, &mut (), None).unwrap();
    let ids = case.batch.token_ids();
    let rows = (0..case.batch.sequence_count()).flat_map(|index| case.batch.rows(index).skip(1));
    let (rows, token_ids): (Vec<u32>, Vec<u32>) = rows.map(|row| (row as u32 - 1, ids[row])).unzip();
    let targets = Targets {
        rows: &rows,
        token_ids: &token_ids,
        weight: 1.0 / rows.len() as f64,
    };
    let mut gradients = Gradients::default();
    let found = cross_entropy(
        &tape,
        &normed,
        case.decoder.head().unwrap(),
        targets,
        Some(&mut gradients),
    )
    .unwrap();
    let seeds = vec![(normed, found.hidden_gradient.unwrap())];
    tape.backward(seeds, &mut gradients).unwrap();
    let sum: f64 = found.row_nats.iter().map(|nats| f64::from(*nats)).sum();
    (sum / rows.len() as f64, gradients)
}

/// Of each tensor's gradient its length and its product with the tensor, from PyTorch.
#[test]
fn gradients_are_pytorchs() {
    let mut count = 0;
    for name in cases() {
        let Ok(text) = std::fs::read_to_string(fixtures().join(&name).join("gradients.json")) else {
            continue;
        };
        count += 1;
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let case = case(&name, DType::F32);
        for through in [false, true] {
            let run = || gradients(&case, !through);
            let (loss, own) = if through {
                model::ops::through_candle(run)
            } else {
                run()
            };
            assert!(
                (loss / golden["loss"].as_f64().unwrap() - 1.0).abs() < 1e-5,
                "{name}: {loss}"
            );
            let lengths = golden["tensors"].as_object().unwrap().values();
            let longest = lengths.map(|of| of[0].as_f64().unwrap()).fold(0.0, f64::max);
            let mut most = (0f64, "");
            for parameter in case.decoder.parameters() {
                let theirs = &golden["tensors"][parameter.name.as_str()];
                let [length, product] = [0, 1].map(|at| theirs[at].as_f64().unwrap_or(f64::NAN));
                let slopes = own
                    .tensor(&parameter.tensor)
                    .unwrap()
                    .unwrap_or_else(|| panic!("{}", parameter.name));
                let number = |x: Tensor| f64::from(x.sum_all().unwrap().to_scalar::<f32>().unwrap());
                let own_length = number(slopes.sqr().unwrap()).sqrt();
                let own_product = number((&slopes * &parameter.tensor).unwrap());
                // a product may cancel, and a gradient vanish (of a bias of keys): they are measured by what they could be
                let length_or_noise = length.max(1e-3 * longest);
                let size = number(parameter.tensor.sqr().unwrap()).sqrt() * length_or_noise;
                let far = ((own_length - length).abs() / length_or_noise).max((own_product - product).abs() / size);
                assert!(far.is_finite(), "{name}: {}", parameter.name);
                if far > most.0 {
                    most = (far, &parameter.name);
                }
            }
            println!("{name:22} gradients {:.1e} at {}", most.0, most.1);
            assert!(most.0 <= 1e-4, "{name}: {most:?}");
        }
    }
    assert!(count >= 21, "{count}");
}

#[test]
fn an_expert_that_no_row_chose_learns_nothing_and_says_so() {
    for name in ["mixtral", "qwen3_moe", "olmoe"] {
        let mut case = case(name, DType::F32);
        case.batch = Batch::pack(&[[3u32, 4]]);
        for checkpointing in [false, true] {
            let (_, own) = gradients(&case, checkpointing);
            let slopes = case.decoder.parameters().iter().map(|parameter| {
                let slopes = own.tensor(&parameter.tensor).unwrap().unwrap();
                slopes.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
            });
            let idle = slopes.filter(|slope| *slope == 0.0).count();
            assert!((3..50).contains(&idle), "{name}: {idle}");
        }
    }
}

/// Of matrices that are one tensor, an expert that no row chose has zeros.
#[test]
fn an_expert_that_no_row_chose_learns_nothing_of_what_all_share() {
    for name in ["gpt_oss", "llama4"] {
        let mut case = case(name, DType::F32);
        case.batch = Batch::pack(&[[3u32, 4]]);
        for (checkpointing, through) in [(false, false), (true, false), (false, true)] {
            let run = || gradients(&case, checkpointing).1;
            let own = if through {
                model::ops::through_candle(run)
            } else {
                run()
            };
            let all = case.decoder.parameters().iter();
            for stack in all.filter(|parameter| parameter.tensor.rank() == 3) {
                let slopes = own.tensor(&stack.tensor).unwrap().unwrap();
                let lengths = slopes.abs().unwrap().sum((1, 2)).unwrap().to_vec1::<f32>().unwrap();
                let idle = lengths.iter().filter(|length| **length == 0.0).count();
                assert!(
                    (1..lengths.len()).contains(&idle),
                    "{name}: {}: {lengths:?}",
                    stack.name
                );
            }
        }
    }
}

#[test]
fn another_choice_of_experts_takes_the_place_of_the_routers() {
    let case = case("qwen3_moe", DType::F32);
    let at = Point::new(Site::ExpertChoice, 1);
    let out = Point::new(Site::MlpOut, 1);
    let run = |choices: Option<Tensor>| {
        let mut taps = Taps::new([at, out]);
        let rows = (0..case.batch.row_count()).collect();
        let pass = |probe: &mut dyn Probe| {
            case.decoder.forward(&Tape::off(), &case.batch, probe, None).unwrap();
        };
        match choices {
            None => pass(&mut taps),
            Some(values) => pass(&mut (
                Patch {
                    point: at,
                    rows,
                    values,
                },
                &mut taps,
            )),
        }
        [at, out].map(|point| taps.get(point).unwrap().clone())
    };
    let [choices, plain] = run(None);
    let turned = Tensor::cat(&[choices.narrow(1, 1, 1).unwrap(), choices.narrow(1, 0, 1).unwrap()], 1).unwrap();
    let [_, same] = run(Some(turned));
    assert!(difference(&same, &plain) < 1e-6);
    let other = Tensor::zeros_like(&choices).unwrap();
    let [seen, changed] = run(Some(other.clone()));
    assert_eq!(seen.to_vec2::<u32>().unwrap(), other.to_vec2::<u32>().unwrap());
    assert!(difference(&changed, &plain) > 1e-2);
}

#[test]
fn under_a_steady_tape_a_decoding_step_has_the_bits_it_has_alone() {
    let case = case("llama", DType::F32);
    let prompts: Vec<Vec<u32>> = (0..9)
        .map(|i| (0..=i % 4 + 1).map(|at| 3 + (5 * i + at) % 40).collect())
        .collect();
    // the last token of each prompt after the others, in one batch; logits of each sequence
    let step = |prompts: &[Vec<u32>]| {
        let tape = Tape::off().steady();
        let mut cache = KvCache::new();
        for prompt in prompts {
            let mut own = KvCache::new();
            let head = Batch::pack(&[&prompt[..prompt.len() - 1]]);
            case.decoder.forward(&tape, &head, &mut (), Some(&mut own)).unwrap();
            cache.extend(own);
        }
        let last: Vec<_> = prompts.iter().map(|prompt| &prompt[prompt.len() - 1..]).collect();
        let normed = case
            .decoder
            .forward(&tape, &Batch::pack(&last), &mut (), Some(&mut cache))
            .unwrap();
        case.decoder.logits(&tape, &normed).unwrap().to_vec2::<f32>().unwrap()
    };
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let together = step(&prompts);
    for (prompt, logits) in prompts.iter().zip(&together) {
        assert_eq!(bits(&step(std::slice::from_ref(prompt))[0]), bits(logits), "{prompt:?}");
    }
}

#[test]
fn the_parameters_named_without_loading_are_the_ones_a_file_holds() {
    for name in cases() {
        let case = case(&name, DType::F32);
        let config = case.decoder.config();
        let expected = config.parameters();
        let loaded: Vec<_> = case
            .decoder
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.stored_shape()))
            .collect();
        assert_eq!(expected, loaded, "{name}");
        let checkpoint = Checkpoint::open(&fixtures().join(&name), &Options::default()).unwrap();
        for (tensor, shape) in expected {
            assert_eq!(checkpoint.weight(&tensor, &shape).unwrap().dims(), shape, "{name}");
        }
    }
}

#[test]
fn every_family_has_a_model_here_and_its_name_in_the_manual() {
    let here: Vec<_> = cases()
        .iter()
        .map(|name| case(name, DType::F32).decoder.config().family)
        .collect();
    let manual = std::fs::read_to_string(fixtures().join("../../../man/flowlens.7")).unwrap();
    let named: Vec<_> = manual.split_whitespace().collect();
    for family in Config::families() {
        assert!(here.contains(&family) && named.contains(&family), "{family}");
    }
}

/// Notes where it was called, and wants one site only.
struct Witness {
    site: Site,
    seen: Vec<Point>,
}

impl Probe for Witness {
    fn wants(&self, point: Point) -> bool {
        point.site == self.site
    }
    fn visit(&mut self, point: Point, _: &Tensor) -> ProbeResult {
        self.seen.push(point);
        Ok(None)
    }
}

/// Where a probe that wants `site` alone is called in one pass.
fn seen<'m>(case: &'m Case, site: Site, tape: &Tape<'m>, cache: Option<&mut KvCache>) -> Vec<Point> {
    let mut witness = Witness { site, seen: Vec::new() };
    case.decoder.forward(tape, &case.batch, &mut witness, cache).unwrap();
    witness.seen
}

#[test]
fn every_site_of_every_family_is_visited_once_per_layer_when_it_is_wanted_alone() {
    for name in cases() {
        let case = case(&name, DType::F32);
        let config = case.decoder.config();
        let learning = || Learning::of(case.decoder.parameters().iter().map(|parameter| &parameter.tensor));
        // logits are computed for chosen rows only, outside the pass that a probe follows
        let sites = Site::ALL
            .into_iter()
            .filter(|&site| site.exists(config) && site != Site::Logits);
        for site in sites {
            let layers = if site.layered() { config.layer_count() } else { 1 };
            let expected: Vec<_> = (0..layers).map(|layer| Point::new(site, layer)).collect();
            assert_eq!(seen(&case, site, &Tape::off(), None), expected, "{name}");
            assert_eq!(
                seen(&case, site, &Tape::off(), Some(&mut KvCache::new())),
                expected,
                "{name}"
            );
            let checkpointing = Tape::recording(learning().into()).with_checkpoints(true);
            assert_eq!(seen(&case, site, &checkpointing, None), expected, "{name}");
        }
    }
}

#[test]
fn real_tokenizers_give_the_ids_of_the_reference_on_awkward_text() {
    let Some(tokenizers) = harness::data("tokenizers") else {
        return;
    };
    let text = std::fs::read_to_string(fixtures().join("tokenizers.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, ids) in golden["ids"].as_object().unwrap() {
        let tokenizer = Tokenizer::open(&Directory::any(&tokenizers.join(name), false).unwrap()).unwrap();
        for (text, ids) in golden["texts"].as_array().unwrap().iter().zip(ids.as_array().unwrap()) {
            let text = text.as_str().unwrap();
            let expected: Vec<u32> = ids
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(tokenizer.encode(text, Bos::Auto).unwrap(), expected, "{name}: {text:?}");
        }
    }
}

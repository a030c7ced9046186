//! stable-regions as a process: curves against transformers, the paper's targets, builders, joins, and what it refuses.

use harness::Run;
use model::Config;
use numerics::rng::Rng;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_stable-regions"))
}

fn fixture(family: &str) -> PathBuf {
    harness::workspace().join("tests/fixtures/models").join(family)
}

fn write(directory: &Path, name: &str, rows: &[Value]) -> PathBuf {
    let path = directory.join(name);
    let lines: Vec<String> = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(&path, lines.concat()).unwrap();
    path
}

fn pair(id: &str, a: &[u32], b: &[u32]) -> Value {
    json!({"id": id, "tokens_a": a, "tokens_b": b})
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn of_type<'r>(rows: &'r [Value], kind: &str) -> Vec<&'r Value> {
    rows.iter().filter(|row| row["type"] == kind).collect()
}

fn some_pairs(count: u64, length: u64) -> Vec<Value> {
    let rng = Rng::new(5, "test pairs");
    let tokens = |unit: u64| -> Vec<u32> { (0..length).map(|i| 3 + rng.below(unit, i, 40) as u32).collect() };
    (0..count)
        .map(|i| pair(&format!("p{i}"), &tokens(2 * i), &tokens(2 * i + 1)))
        .collect()
}

/// A Llama with the usual random start, normal weights of deviation 0.02: what training begins from.
fn untrained(directory: &Path) -> PathBuf {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "vocab_size": 48,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2});
    let text = config.to_string();
    let rng = Rng::new(9, "weights");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (unit, (name, shape)) in Config::parse(text.as_bytes())
        .unwrap()
        .parameters()
        .into_iter()
        .enumerate()
    {
        let start = data.len();
        for i in 0..shape.iter().product::<usize>() {
            let value = if shape.len() == 1 {
                1.0
            } else {
                0.02 * rng.normal(unit as u64, i as u64) as f32
            };
            data.extend(value.to_le_bytes());
        }
        header.insert(
            name,
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let path = directory.join("untrained");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("config.json"), text).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path.join("model.safetensors"), bytes).unwrap();
    path
}

#[test]
fn curves_equal_those_of_transformers_hooks_in_three_families() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("golden.json")).unwrap();
    let directory = harness::temp_dir();
    let mut compared = 0;
    for family in ["llama", "gpt2", "gpt_neox"] {
        for read in ["pre-norm", "post-norm"] {
            let cases: Vec<&Value> = golden
                .iter()
                .filter(|case| case["model"] == family && case["read"] == read)
                .collect();
            let pairs: Vec<Value> = cases
                .iter()
                .filter(|case| case["layer"] == 0)
                .map(|case| (*case).clone())
                .collect();
            let path = write(directory.path(), "pairs.jsonl", &pairs);
            let done = tool()
                .arg("--model")
                .arg(fixture(family))
                .arg("--pairs")
                .arg(&path)
                .args([
                    "--read",
                    read,
                    "--layer",
                    "0,1",
                    "--steps",
                    "11",
                    "--distance",
                    "l2,relative,kl,logit",
                ])
                .output()
                .expect(0);
            let rows = done.records();
            for case in cases {
                for distance in ["l2", "relative", "kl", "logit"] {
                    let same = |row: &&&Value| {
                        row["id"] == case["id"] && row["layer_index"] == case["layer"] && row["distance"] == distance
                    };
                    let regions = of_type(&rows, "region");
                    let row = regions.iter().find(same).unwrap();
                    if case["curves"][distance].is_null() {
                        assert!(row["skipped"].is_string(), "{row}");
                        continue;
                    }
                    let (ours, theirs) = (numbers(&row["curve"]), numbers(&case["curves"][distance]));
                    assert_eq!(ours.len(), theirs.len());
                    for (x, y) in ours.iter().zip(&theirs) {
                        assert!((x - y).abs() < 1e-4, "{family} {read} {distance}: {x} against {y}");
                    }
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "{compared} curves");
}

#[test]
fn a_curve_begins_at_zero_and_ends_at_one() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(4, 6));
    for path in ["linear", "slerp", "arc"] {
        let done = tool()
            .arg("--model")
            .arg(fixture("llama"))
            .arg("--pairs")
            .arg(&pairs)
            .args(["--path", path, "--steps", "9", "--distance", "l2,relative"])
            .output()
            .expect(0);
        let rows = done.records();
        for row in of_type(&rows, "region") {
            let curve = numbers(&row["curve"]);
            assert_eq!((curve[0], curve[8]), (0.0, 1.0), "{row}");
            let alpha = numbers(&row["alpha"]);
            let steepest = curve.windows(2).map(|v| (v[1] - v[0]) * 8.0).fold(f64::MIN, f64::max);
            assert!((row["max_slope"].as_f64().unwrap() - steepest).abs() < 1e-9);
            assert_eq!((alpha[0], alpha[8]), (0.0, 1.0));
        }
    }
}

#[test]
fn bisection_finds_what_a_fine_grid_shows_in_fewer_passes() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(5, 6));
    let run = |more: &[&str]| {
        let done = tool()
            .arg("--model")
            .arg(fixture("llama"))
            .arg("--pairs")
            .arg(&pairs)
            .args(more)
            .output()
            .expect(0);
        let rows = done.records();
        of_type(&rows, "region").into_iter().cloned().collect::<Vec<_>>()
    };
    let coarse = run(&["--steps", "6", "--bisect", "1e-5"]);
    let fine = run(&["--steps", "1001"]);
    for (coarse, fine) in coarse.iter().zip(&fine) {
        let (alpha, curve) = (numbers(&fine["alpha"]), numbers(&fine["curve"]));
        let step = numerics::regions::first_crossing(&curve, 0.5).unwrap();
        let shown = numerics::regions::interpolated(&alpha, &curve, step, 0.5);
        let found = coarse["boundary_alpha"].as_f64().unwrap();
        assert!((found - shown).abs() < 1e-4, "{found} against {shown}");
    }
}

#[test]
fn a_random_start_answers_almost_in_a_straight_line() {
    let directory = harness::temp_dir();
    let model = untrained(directory.path());
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(20, 8));
    let done = tool()
        .arg("--model")
        .arg(&model)
        .arg("--pairs")
        .arg(&pairs)
        .args(["--read", "pre-norm", "--summary"])
        .output()
        .expect(0);
    let rows = done.records();
    let slope = of_type(&rows, "region_summary")[0]["max_slope_median"]
        .as_f64()
        .unwrap();
    assert!((0.999..1.1).contains(&slope), "{slope}");
}

#[test]
fn the_trained_model_is_sharper_than_an_untrained_one_and_reads_its_texts() {
    let Some(trained) = harness::data("models/stories260k") else {
        return;
    };
    let directory = harness::temp_dir();
    let text = directory.path().join("text.txt");
    fs::write(&text, "Once upon a time there was a little girl who lived near the forest with her mother and a small red dog.\n\
                      The big cat sat on the table and looked at the birds, but the birds flew away to the old tree by the river.\n")
        .unwrap();
    let done = tool()
        .arg("--model")
        .arg(&trained)
        .args(["--random", "12", "--summary", "--baseline", "--gate-flips"])
        .arg(&text)
        .output()
        .expect(0);
    let rows = done.records();
    let summaries = of_type(&rows, "region_summary");
    assert_eq!(summaries.len(), 2, "one for the pairs, one for the random direction");
    assert!(
        summaries[0]["max_slope_median"].as_f64().unwrap() > 1.2,
        "{}",
        summaries[0]
    );
    assert!(summaries[0]["gate_flip_count_median"].as_f64().unwrap() > 10.0);
    assert_eq!(summaries[1]["baseline"], "random");

    // Pairs that differ in the last token only, and the token at both ends.
    let list = directory.path().join("list.tsv");
    fs::write(&list, "The cat sat on the\ttable\tmat\tsimilar\nShe was\tvery\thappy\n").unwrap();
    let done = tool()
        .arg("--model")
        .arg(&trained)
        .arg("--last-token")
        .arg(&list)
        .arg("--keep-going")
        .output();
    assert!(done.code == 0 || done.code == 6, "{}", done.stderr);
    let rows = done.records();
    let regions = of_type(&rows, "region");
    assert_eq!(regions.len(), 2);
    let measured: Vec<_> = regions.iter().filter(|row| row["skipped"].is_null()).collect();
    assert!(
        measured
            .iter()
            .all(|row| row["token_a"].is_string() && row["token_b"].is_string())
    );
    let differing = regions
        .iter()
        .filter(|row| {
            row["skipped"]
                .as_str()
                .is_some_and(|why| why.contains("differ in more than the last"))
        })
        .count();
    assert_eq!(measured.len() + differing, 2);
}

#[test]
fn listed_pairs_read_back_give_the_same_curves() {
    let Some(trained) = harness::data("models/stories260k") else {
        return;
    };
    let directory = harness::temp_dir();
    let prompts = write(
        directory.path(),
        "prompts.jsonl",
        &[
            json!({"id": "s1", "prompt": "The boy went to the park", "label": "safe"}),
            json!({"id": "u1", "prompt": "The man hit the dog", "label": "unsafe"}),
            json!({"id": "s2", "prompt": "The girl ate an apple", "label": "safe"}),
            json!({"id": "u2", "prompt": "A boy broke the window", "label": "unsafe"}),
        ],
    );
    let base = |run: Run| run.arg("--model").arg(&trained).args(["--steps", "7"]);
    let across = base(tool()).args(["--across", "label"]).arg(&prompts);
    let direct = across.output().expect(0).records();
    let listed = base(tool())
        .args(["--across", "label", "--list-pairs"])
        .arg(&prompts)
        .output()
        .expect(0);
    let path = directory.path().join("listed.jsonl");
    fs::write(&path, &listed.stdout).unwrap();
    let again = base(tool()).arg("--pairs").arg(&path).output().expect(0).records();
    let curves = |rows: &[Value]| {
        of_type(rows, "region")
            .iter()
            .map(|row| (row["id"].clone(), row["curve"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(curves(&direct).len(), 2);
    assert_eq!(curves(&direct), curves(&again));
    for row in of_type(&direct, "region") {
        assert!(row["id_a"].as_str().unwrap().starts_with('s') && row["id_b"].as_str().unwrap().starts_with('u'));
        assert_eq!(row["group"], "safe/unsafe");
    }
}

#[test]
fn a_plane_has_its_prompts_at_its_corners_and_goes_into_a_container() {
    let directory = harness::temp_dir();
    let triples = write(
        directory.path(),
        "triples.jsonl",
        &[json!({"id": "t", "tokens_a": [3, 4, 5, 6], "tokens_b": [7, 8, 9], "tokens_c": [10, 11, 12, 13]})],
    );
    let target = directory.path().join("slices.acts");
    let done = tool()
        .arg("--model")
        .arg(fixture("llama"))
        .arg("--slice")
        .arg(&triples)
        .args(["--slice-steps", "7", "--slice-fields"])
        .arg(&target)
        .output()
        .expect(0);
    let rows = done.records();
    let slice = of_type(&rows, "slice")[0];
    let field = |name: &str| -> Vec<Vec<f64>> { slice[name].as_array().unwrap().iter().map(numbers).collect() };
    // Seven samples from -0.25 to 1.25: 0 is the second, 1 the sixth. Fields go to 1 at their largest.
    // The third prompt lies where its angle puts it, seldom on a sample.
    assert!(field("field_a")[1][1] < 1e-4 && field("field_b")[1][5] < 1e-4);
    for name in ["field_a", "field_b", "field_c"] {
        let most = field(name).into_iter().flatten().fold(0.0, f64::max);
        assert!((most - 1.0).abs() < 1e-6);
    }
    let tensors = of_type(&rows, "tensor");
    assert_eq!(tensors.len(), 3);
    let file = acts::File::open(&target, acts::OpenOptions::default()).unwrap();
    let stored = file.to_vec::<f32>(file.tensor("slice.a").unwrap(), 0..7).unwrap();
    let shown: Vec<f32> = field("field_a").concat().into_iter().map(|x| x as f32).collect();
    assert_eq!(stored, shown);
}

#[test]
fn shards_share_the_pairs_out_and_change_no_curve() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(12, 5));
    let run = |shard: Option<&str>| {
        let mut run = tool()
            .arg("--model")
            .arg(fixture("llama"))
            .arg("--pairs")
            .arg(&pairs)
            .args(["--steps", "5"]);
        if let Some(shard) = shard {
            run = run.args(["--shard", shard]);
        }
        let rows = run.output().expect(0).records();
        (
            rows[0]["plan_digest"].clone(),
            of_type(&rows, "region")
                .into_iter()
                .map(|row| (row["id"].to_string(), numbers(&row["curve"])))
                .collect::<Vec<_>>(),
        )
    };
    let (digest, whole) = run(None);
    let mut parts = Vec::new();
    for shard in ["0/3", "1/3", "2/3"] {
        let (of_shard, rows) = run(Some(shard));
        assert_eq!(of_shard, digest);
        assert!(rows.len() < 12);
        parts.extend(rows);
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut whole = whole;
    whole.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(parts.len(), 12);
    for (part, whole) in parts.iter().zip(&whole) {
        assert_eq!(part.0, whole.0);
        assert!(part.1.iter().zip(&whole.1).all(|(x, y)| (x - y).abs() < 1e-5));
    }
}

#[test]
fn merged_shards_are_one_run_and_what_is_missing_is_named() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(12, 5));
    let base = || {
        let run = tool().arg("--model").arg(fixture("llama")).arg("--pairs").arg(&pairs);
        run.args(["--steps", "5", "--distance", "l2,relative", "--baseline"])
    };
    let shards: Vec<PathBuf> = ["0/2", "1/2"]
        .iter()
        .map(|shard| {
            let path = directory.path().join(format!("{}.jsonl", &shard[..1]));
            fs::write(&path, base().args(["--shard", shard]).output().expect(0).stdout).unwrap();
            path
        })
        .collect();
    let whole = base().output().expect(0).records();
    let merged = base().arg("--merge").args(&shards).output().expect(0).records();
    let ids = |rows: &[Value]| {
        rows.iter()
            .map(|row| {
                (
                    row["type"].clone(),
                    row["id"].clone(),
                    row["distance"].clone(),
                    row["baseline"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&whole), ids(&merged));
    base()
        .arg("--merge")
        .arg(&shards[0])
        .output()
        .refused(3, "shard 1/2 is missing");
    base()
        .arg("--merge")
        .args([&shards[0], &shards[0]])
        .output()
        .refused(3, "in two shards");
    base()
        .args(["--seed", "2", "--merge"])
        .args(&shards)
        .output()
        .refused(5, "another plan");
}

#[test]
fn checkpoints_are_compared_pair_by_pair() {
    let directory = harness::temp_dir();
    let model = untrained(directory.path());
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(8, 5));
    let done = tool()
        .arg("--model")
        .arg(&model)
        .arg(fixture("llama"))
        .arg(&model)
        .arg("--pairs")
        .arg(&pairs)
        .args(["--summary"])
        .output()
        .expect(0);
    let rows = done.records();
    let compares = of_type(&rows, "region_compare");
    assert_eq!(compares.len(), 2);
    assert!(compares[0]["max_slope_delta"].as_f64().unwrap() > 0.0);
    assert!(compares[0]["max_slope_delta_low"].as_f64() <= compares[0]["max_slope_delta_high"].as_f64());
    assert_eq!(compares[1]["max_slope_delta"], json!(0.0));
}

#[test]
fn verdicts_join_by_prompt_id() {
    let directory = harness::temp_dir();
    let mut pairs = some_pairs(4, 5);
    for (index, pair) in pairs.iter_mut().enumerate() {
        pair["id_a"] = json!(format!("{index}"));
    }
    let pairs = write(directory.path(), "pairs.jsonl", &pairs);
    let verdict = |id: &str, judge: &str, verdict: &str| json!({"type": "verdict", "id": id, "bench": "xstest", "attempt_index": 0, "label": "safe", "judge": judge, "verdict": verdict});
    let verdicts = write(
        directory.path(),
        "verdicts.jsonl",
        &[
            verdict("0", "flowlens", "refusal"),
            verdict("1", "flowlens", "compliance"),
            verdict("2", "flowlens", "compliance"),
            verdict("0", "prefix", "compliance"),
        ],
    );
    let run = || {
        tool()
            .arg("--model")
            .arg(fixture("llama"))
            .arg("--pairs")
            .arg(&pairs)
            .args(["--steps", "5", "--verdicts"])
            .arg(&verdicts)
    };
    run().output().refused(2, "--judge");
    let rows = run().args(["--judge", "flowlens"]).output().expect(0).records();
    let regions = of_type(&rows, "region");
    assert_eq!(regions[0]["verdict_a"], "refusal");
    assert!(regions[3]["verdict_a"].is_null());
    let table = of_type(&rows, "region_verdict");
    assert_eq!(
        table
            .iter()
            .map(|row| (row["verdict"].as_str().unwrap(), row["pair_count"].as_u64().unwrap()))
            .collect::<Vec<_>>(),
        [("refusal", 1), ("compliance", 2)]
    );
}

#[test]
fn pairs_that_are_none_are_refused_by_id_or_skipped_and_counted() {
    let directory = harness::temp_dir();
    let model = fixture("llama");
    let cases = [
        (
            pair("equal", &[3, 4, 5], &[3, 4, 5]),
            "pair equal: A and B have the same activation",
        ),
        (pair("short", &[3], &[4, 5]), "pair short: prompt a has 1 token"),
        (
            pair("long", &[3; 65], &[4, 5]),
            "pair long: prompt a has 65 tokens, the model's limit is 64",
        ),
        (
            pair("foreign", &[3, 4], &[3, 48]),
            "pair foreign: prompt b holds token id 48, the vocabulary has 48",
        ),
        (
            json!({"id": "text", "a": "x y", "b": "z"}),
            "pair text: prompt a: the model has no tokenizer",
        ),
    ];
    for (bad, message) in cases {
        let pairs = write(directory.path(), "pairs.jsonl", &[pair("good", &[3, 4], &[5, 6]), bad]);
        let run = || {
            tool()
                .arg("--model")
                .arg(&model)
                .arg("--pairs")
                .arg(&pairs)
                .args(["--steps", "5"])
        };
        run().output().refused(3, message);
        let rows = run().arg("--keep-going").output().expect(6).records();
        assert!(of_type(&rows, "region")[1]["skipped"].is_string());
        let summary = of_type(&rows, "region_summary");
        let total = |key: &str| summary.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!((total("pair_count"), total("skipped_count")), (1, 1));
        assert_eq!(rows.last().unwrap()["status"], "partial");
    }
    let twice = write(
        directory.path(),
        "pairs.jsonl",
        &[pair("x", &[3, 4], &[5, 6]), pair("x", &[3, 4], &[5, 7])],
    );
    tool()
        .arg("--model")
        .arg(&model)
        .arg("--pairs")
        .arg(&twice)
        .output()
        .refused(3, "the id occurs twice");
}

#[test]
fn shards_of_two_kernels_meet_only_where_that_is_allowed() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(6, 4));
    let run = || {
        let mut run = tool().arg("--model").arg(fixture("llama"));
        run = run.arg("--pairs").arg(&pairs).args(["--steps", "3"]);
        run
    };
    let shard = |index: usize, edit: &dyn Fn(&mut Value)| {
        let done = run().args(["--shard", &format!("{index}/2")]).output().expect(0);
        let mut rows = done.records();
        edit(&mut rows[0]);
        write(directory.path(), &format!("{index}.jsonl"), &rows)
    };
    let merge = |files: &[&PathBuf]| run().arg("--merge").args(files);
    let first = shard(0, &|_| {});
    merge(&[&first, &shard(1, &|_| {})]).output().expect(0);
    let other = shard(1, &|begin| begin["compute"]["kernel"] = json!("other"));
    let cause = r#"compute.kernel: was "#;
    merge(&[&first, &other]).output().refused(3, cause);
    let rows = merge(&[&first, &other])
        .arg("--allow-mixed-compute")
        .output()
        .expect(0)
        .records();
    assert_eq!(of_type(&rows, "region").len(), 6);
    let unknown = shard(1, &|begin| {
        begin.as_object_mut().unwrap().remove("compute");
    });
    merge(&[&first, &unknown]).output().refused(3, "what measured it");
}

/// A container of one unit direction for every layer.
fn direction(directory: &Path, values: &[f64]) -> PathBuf {
    let mut header = acts::Header::new("test", "1", &process::sha256(b"direction"), None);
    let spec = acts::TensorSpec::new("direction", acts::Dtype::F64, &[values.len() as u64]);
    header.tensors = vec![spec.role(acts::Role::Basis)];
    header.fix_blocks().unwrap();
    let mut writer = acts::Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_exact::<f64>(0, values).unwrap();
    let path = directory.join("direction.acts");
    fs::write(&path, writer.finish().unwrap().0).unwrap();
    path
}

#[test]
fn a_model_is_measured_as_it_is_steered() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(3, 4));
    let config = fs::read(fixture("llama").join("config.json")).unwrap();
    let width = Config::parse(&config).unwrap().hidden_size;
    let mut values = vec![0.0; width];
    values[0] = 1.0;
    let path = direction(directory.path(), &values);
    let run = |flag: &str, value: String| {
        let mut run = tool().arg("--model").arg(fixture("llama"));
        run = run
            .arg("--pairs")
            .arg(&pairs)
            .args(["--steps", "3", "--read", "pre-norm"]);
        if !flag.is_empty() {
            run = run.args([flag, &value]);
        }
        let rows = run.output().expect(0).records();
        let region = of_type(&rows, "region")[0];
        (rows[0]["plan_digest"].clone(), region["end_distance"].as_f64().unwrap())
    };
    let plain = run("", String::new());
    let file = path.display();
    // Nothing of nothing: the same curve under another plan.
    let nothing = run("--add", format!("{file}:0.0"));
    assert_eq!(nothing.1, plain.1);
    assert_ne!(nothing.0, plain.0);
    assert_ne!(run("--add", format!("{file}:5.0")).1, plain.1);
    assert_ne!(run("--ablate", file.to_string()).1, plain.1);
    let narrow = direction(directory.path(), &[1.0, 2.0]);
    tool()
        .arg("--model")
        .arg(fixture("llama"))
        .arg("--pairs")
        .arg(&pairs)
        .arg("--ablate")
        .arg(&narrow)
        .output()
        .refused(3, "no direction of width");
}

#[test]
fn a_read_out_that_does_not_move_is_dropped_without_failing() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(2, 4));
    let rows = tool()
        .arg("--model")
        .arg(fixture("llama"))
        .arg("--pairs")
        .arg(&pairs)
        .args(["--min-distance", "1e9"])
        .output()
        .expect(0)
        .records();
    assert_eq!(of_type(&rows, "region_summary")[0]["skipped_count"], 2);
}

#[test]
fn layers_that_do_not_exist_or_come_too_late_are_refused() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(1, 4));
    let run = |more: &[&str]| {
        tool()
            .arg("--model")
            .arg(fixture("llama"))
            .arg("--pairs")
            .arg(&pairs)
            .args(more)
            .output()
    };
    run(&["--layer", "3"]).refused(2, "there is no layer 3");
    run(&["--layer", "2"]).refused(2, "must be later");
    run(&["--layer", "1", "--read-layer", "1"]).refused(2, "must be later");
    run(&["--layer", "0", "--read-layer", "7"]).refused(2, "there is no layer 7");
    run(&["--layer", "x"]).refused(2, "--layer");
    run(&["--bisect", "0"]).refused(2, "--bisect");
    run(&["--slice-fields", "x.acts"]).refused(2, "--slice");
    run(&["--layers=-1"]).refused(2, "must be later");
    let rows = run(&["--layer", "all", "--steps", "3"]).expect(0).records();
    assert_eq!(of_type(&rows, "region").len(), 2);
    let layers = ["--layers", "-2", "--read-layer", "-1", "--steps", "3"];
    let rows = run(&layers).expect(0).records();
    let region = of_type(&rows, "region")[0];
    assert_eq!(
        (&region["layer_index"], &region["read_layer_index"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn records_go_to_the_file_that_is_named() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(1, 4));
    let run = || {
        let mut run = tool().arg("--model").arg(fixture("llama"));
        run = run.arg("--pairs").arg(&pairs).args(["--steps", "3"]);
        run
    };
    let target = directory.path().join("regions.jsonl");
    let named = run().arg("-o").arg(&target).output().expect(0);
    assert!(named.stdout.is_empty());
    assert_eq!(fs::read(&target).unwrap(), run().output().expect(0).stdout);
    run().arg("-o").arg(&target).output().refused(5, "exists");
    run()
        .arg("-o")
        .arg(&pairs)
        .arg("--force")
        .output()
        .refused(2, "also an input");
}

#[test]
fn a_plan_loads_no_model_and_says_what_would_run() {
    let directory = harness::temp_dir();
    let pairs = write(directory.path(), "pairs.jsonl", &some_pairs(3, 4));
    let done = tool()
        .arg("--model")
        .arg(fixture("llama"))
        .arg("--pairs")
        .arg(&pairs)
        .arg("--plan")
        .output()
        .expect(0);
    let plan: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (
            plan["pair_count"].as_u64(),
            plan["models"][0]["one_token_passes"].as_u64()
        ),
        (Some(3), Some(150))
    );
}

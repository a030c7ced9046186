//! lm-gen as a process: tokens against transformers, order, refill, scores, sampling, interventions, resumption, shards, bad input.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::Run;
use serde_json::{Value, json};
use tempfile::TempDir;

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_lm-gen"))
}

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/greedy.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A fixture model whose token n is the word `tn`.
fn model(name: &str) -> TempDir {
    let dir = harness::temp_dir();
    harness::worded_model(name, dir.path());
    dir
}

fn words(ids: &Value) -> String {
    ids.as_array()
        .unwrap()
        .iter()
        .map(|id| format!("t{id}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prompts of many lengths, so that sequences end and begin at different times.
fn many(count: usize) -> String {
    (0..count)
        .map(|index| {
            let text: Vec<String> = (0..1 + index * 7 % 11).map(|at| format!("t{}", 4 + (index * 13 + at * 5) % 44)).collect();
            json!({"id": index.to_string(), "prompt": text.join(" "), "max_new_tokens": 3 + index * 5 % 17, "note": index}).to_string() + "\n"
        })
        .collect()
}

fn completions(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["type"] == "completion").collect()
}

fn greedy(dir: &Path, args: &[&str], input: &str) -> Vec<u8> {
    tool()
        .arg("--model")
        .arg(dir)
        .args(args)
        .arg("-")
        .stdin(input)
        .output()
        .expect(0)
        .stdout
}

#[test]
fn greedy_tokens_are_those_of_transformers_in_every_family() {
    for (name, case) in reference().as_object().unwrap() {
        if name == "stories260k" {
            continue;
        }
        let dir = model(name);
        let cases = case["cases"].as_array().unwrap();
        let input: String = cases
            .iter()
            .enumerate()
            .map(|(index, case)| json!({"id": index.to_string(), "prompt": words(&case["prompt"])}).to_string() + "\n")
            .collect();
        let records = tool()
            .arg("--model")
            .arg(dir.path())
            .args(["--max-new-tokens", "24", "-"])
            .stdin(input)
            .output()
            .expect(0)
            .records();
        // Of long rope only the short factors are computed, so the pretrained length is the limit.
        let config: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        let room = config["original_max_position_embeddings"].as_u64().unwrap_or(64) as usize;
        for (case, got) in cases.iter().zip(completions(&records)) {
            if case["margin"].as_f64().unwrap() <= 1e-3 {
                continue;
            }
            let tokens = case["tokens"].as_array().unwrap();
            let most = 24.min(room + 1 - case["prompt"].as_array().unwrap().len());
            let tokens = &tokens[..tokens.len().min(most)];
            assert_eq!(
                got["completion"],
                words(&json!(tokens)),
                "{name}, prompt {}",
                case["prompt"]
            );
            assert_eq!(got["token_count"].as_u64().unwrap() as usize, tokens.len());
            assert_eq!(got["finish"], if tokens.len() == most { "length" } else { "stop" });
        }
    }
}

#[test]
fn greedy_text_of_a_trained_model_is_that_of_transformers() {
    let Some(stories) = harness::data("models/stories260k") else {
        return;
    };
    let reference = reference();
    let cases = reference["stories260k"]["cases"].as_array().unwrap();
    let input: String = cases
        .iter()
        .enumerate()
        .map(|(index, case)| json!({"id": index, "prompt": case["prompt"]}).to_string() + "\n")
        .collect();
    let records = tool()
        .arg("--model")
        .arg(stories)
        .args(["--max-new-tokens", "96", "-"])
        .stdin(input)
        .output()
        .expect(0)
        .records();
    for (case, got) in cases.iter().zip(completions(&records)) {
        assert!(case["margin"].as_f64().unwrap() > 1e-3);
        assert_eq!(
            got["completion"].as_str().unwrap().trim_start(),
            case["text"].as_str().unwrap().trim_start()
        );
    }
}

#[test]
fn batch_and_threads_change_no_byte() {
    let dir = model("qwen3");
    let input = many(40);
    let alone = greedy(dir.path(), &["--batch", "1"], &input);
    for args in [
        &["--batch", "3"][..],
        &["--batch", "8", "--threads", "1"],
        &["--batch", "24", "--threads", "3"],
    ] {
        assert!(greedy(dir.path(), args, &input) == alone, "{args:?}");
    }
}

#[test]
fn records_keep_the_order_and_the_keys_of_the_input() {
    let dir = model("llama");
    let bytes = greedy(dir.path(), &[], &many(20));
    let records: Vec<Value> = String::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (index, row) in completions(&records).iter().enumerate() {
        assert_eq!(
            (row["id"].as_str().unwrap(), row["note"].as_u64().unwrap()),
            (index.to_string().as_str(), index as u64)
        );
        assert_eq!(
            row["text_digest"],
            records::text_digest(row["prompt"].as_str().unwrap())
        );
    }
    assert_eq!(records.last().unwrap()["row_count"], 20);
}

#[test]
fn a_stop_string_ends_a_completion_and_is_not_in_it() {
    let dir = model("gpt2");
    let whole = &reference()["gpt2"]["cases"][1].clone();
    let tokens = words(&whole["tokens"]);
    let stop = tokens.split(' ').nth(3).unwrap();
    let before = &tokens[..tokens.find(stop).unwrap()];
    let input = json!({"id": "1", "prompt": words(&whole["prompt"]), "stop": [stop]}).to_string();
    let records = tool()
        .arg("--model")
        .arg(dir.path())
        .arg("-")
        .stdin(input)
        .output()
        .expect(0)
        .records();
    assert_eq!(completions(&records)[0]["completion"], before);
    assert_eq!(completions(&records)[0]["finish"], "stop");
}

#[test]
fn scores_of_choices_are_those_of_given_completions() {
    let dir = model("mistral");
    let choices = ["t9", "t9 t10 t11", "t12 t13"];
    let prompt = "t4 t5 t6 t7";
    let asked = json!({"id": "c", "prompt": prompt, "choices": choices}).to_string();
    let records = tool()
        .arg("--model")
        .arg(dir.path())
        .arg("-")
        .stdin(asked)
        .output()
        .expect(0)
        .records();
    let row = completions(&records)[0];
    assert_eq!(row["choice_token_count"], json!([1, 3, 2]));
    for (index, choice) in choices.iter().enumerate() {
        let given = json!({"id": "g", "prompt": prompt, "completion": format!(" {choice}")}).to_string();
        let records = tool()
            .arg("--model")
            .arg(dir.path())
            .args(["--score", "--per-token", "-"])
            .stdin(given)
            .output()
            .expect(0)
            .records();
        let given = completions(&records)[0];
        assert_eq!(given["completion"], format!(" {choice}"));
        let turns =
            json!([{"role": "user", "content": prompt}, {"role": "assistant", "content": format!(" {choice}")}]);
        let conversation = json!({"id": "g", "messages": turns}).to_string();
        let raw = ["--template", "raw.jinja", "--score", "--per-token", "-"];
        fs::write(dir.path().join("raw.jinja"), "{{ messages[0].content }}").unwrap();
        let records = tool()
            .current_dir(dir.path())
            .args(["--model", "."])
            .args(raw)
            .stdin(conversation)
            .output()
            .expect(0)
            .records();
        let of_conversation = completions(&records)[0];
        assert_eq!(of_conversation["completion"], given["completion"]);
        assert_eq!(of_conversation["token_log_prob"], given["token_log_prob"]);
        let total: f64 = given["token_log_prob"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .sum();
        assert!((given["log_prob"].as_f64().unwrap() - total).abs() < 1e-9);
        let of_choice = json!({"id": "c", "prompt": format!("{prompt} "), "choices": [choice]}).to_string();
        let records = tool()
            .arg("--model")
            .arg(dir.path())
            .arg("-")
            .stdin(of_choice)
            .output()
            .expect(0)
            .records();
        let of_choice = completions(&records)[0]["choice_log_prob"][0].as_f64().unwrap();
        assert!(
            (given["log_prob"].as_f64().unwrap() - of_choice).abs() < 1e-5,
            "choice {index}"
        );
    }
    // All next tokens together are certain.
    let all: Vec<String> = (0..48).map(|id| format!(" t{id}")).collect();
    let asked = json!({"id": "s", "prompt": prompt, "choices": all}).to_string();
    let records = tool()
        .arg("--model")
        .arg(dir.path())
        .arg("-")
        .stdin(asked)
        .output()
        .expect(0)
        .records();
    let sum: f64 = completions(&records)[0]["choice_log_prob"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap().exp())
        .sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

#[test]
fn samples_repeat_with_their_seed_and_differ_between_attempts() {
    let dir = model("qwen2");
    let input = many(6);
    let sample = |args: &[&str]| {
        greedy(
            dir.path(),
            &[&["--temperature", "1.5", "--attempts", "3"], args].concat(),
            &input,
        )
    };
    let first = sample(&["--seed", "1"]);
    assert!(first == sample(&["--seed", "1", "--batch", "2"]));
    assert!(first != sample(&["--seed", "2"]));
    let records: Vec<Value> = String::from_utf8(first)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let attempts: Vec<_> = completions(&records)
        .iter()
        .take(3)
        .map(|row| (row["id"].clone(), row["attempt_index"].clone()))
        .collect();
    assert_eq!(
        attempts,
        [(json!("0"), json!(0)), (json!("0"), json!(1)), (json!("0"), json!(2))]
    );
}

fn direction(path: &Path, values: &[f32]) {
    use acts::{Dtype, Header, TensorSpec, Writer};
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::new("direction.1", Dtype::F32, &[values.len() as u64])];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, values).unwrap();
    fs::write(path, writer.finish().unwrap().0).unwrap();
}

#[test]
fn interventions_change_tokens_and_ablating_twice_is_ablating_once() {
    let dir = model("llama");
    let file = dir.path().join("direction.acts");
    direction(
        &file,
        &(0..16).map(|at| ((at * 7 % 5) as f32) - 1.5).collect::<Vec<_>>(),
    );
    let input = many(12);
    let name = file.display().to_string();
    let texts = |args: &[&str]| -> Vec<Value> {
        let bytes = greedy(dir.path(), args, &input);
        let records: Vec<Value> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        completions(&records)
            .iter()
            .map(|row| row["completion"].clone())
            .collect()
    };
    let plain = texts(&[]);
    let ablated = texts(&["--ablate", &format!("{name}@1")]);
    assert_ne!(plain, ablated);
    assert_eq!(
        ablated,
        texts(&["--ablate", &format!("{name}@1"), "--ablate", &format!("{name}@1")])
    );
    assert_ne!(plain, texts(&["--add", &format!("{name}:4:1")]));
    assert_eq!(plain, texts(&["--add", &format!("{name}:0:1")]));
    let run = |spec: String| {
        tool()
            .arg("--model")
            .arg(dir.path())
            .args(["--ablate", &spec, "-"])
            .stdin(input.clone())
            .output()
    };
    run(name.clone()).refused(3, "no direction of width 16 for layer 0");
    run(format!("{name}@1:7")).refused(2, "layer 7");
    run("/nowhere.acts".into()).refused(4, "/nowhere.acts");
}

#[test]
fn killed_and_resumed_the_file_is_the_same() {
    let dir = model("olmo2");
    let input = dir.path().join("prompts.jsonl");
    fs::write(&input, many(60)).unwrap();
    let out = |name: &str| dir.path().join(name);
    let start = |path: &Path, extra: &[&str]| {
        tool()
            .arg("--model")
            .arg(dir.path())
            .arg(&input)
            .arg("-o")
            .arg(path)
            .args(extra)
    };
    start(&out("whole"), &[]).output().expect(0);
    let whole = fs::read(out("whole")).unwrap();
    let cut = out("cut");
    let mut kills = 0;
    for delay in [5, 20, 35, 50, 65, 80] {
        let mut child = start(&cut, &["--resume", "--batch", "2"]).spawn();
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        kills += u32::from(!child.wait().unwrap().success());
    }
    assert!(kills > 0, "no run was killed");
    start(&cut, &["--resume"]).output().expect(0);
    assert!(fs::read(&cut).unwrap() == whole, "{kills} kills");
    // Finished: nothing is left to do; another plan is a conflict.
    start(&cut, &["--resume"]).output().expect(0);
    start(&cut, &["--resume", "--max-new-tokens", "3"])
        .output()
        .refused(5, "another plan");
    start(&cut, &[]).output().refused(5, "exists");
}

#[test]
fn the_partial_or_finished_file_of_another_model_is_a_conflict_and_stays_as_it_is() {
    let (dir, other) = (model("llama"), model("qwen2"));
    let input = dir.path().join("prompts.jsonl");
    fs::write(&input, many(40)).unwrap();
    let out = dir.path().join("out");
    let start = |model: &Path| {
        tool()
            .arg("--model")
            .arg(model)
            .arg(&input)
            .arg("-o")
            .arg(&out)
            .arg("--resume")
    };
    let (partial, journal) = (dir.path().join(".out.partial"), dir.path().join(".out.journal"));
    let mut child = start(dir.path()).spawn();
    for _ in 0..2000 {
        if fs::metadata(&journal).is_ok_and(|found| found.len() > 1000) || out.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if partial.exists() {
        let before = fs::read(&partial).unwrap();
        start(other.path()).output().refused(5, "another plan");
        assert!(fs::read(&partial).unwrap() == before, "the partial file was touched");
    }
    start(dir.path()).output().expect(0);
    let finished = fs::read(&out).unwrap();
    start(other.path()).output().refused(5, "another plan");
    assert!(fs::read(&out).unwrap() == finished);
}

#[test]
fn a_damaged_partial_file_is_cut_where_it_stops_being_sound() {
    let dir = model("olmo");
    let input = dir.path().join("prompts.jsonl");
    fs::write(&input, many(12)).unwrap();
    let out = dir.path().join("out");
    let start = |extra: &[&str]| {
        tool()
            .arg("--model")
            .arg(dir.path())
            .arg(&input)
            .arg("-o")
            .arg(&out)
            .args(extra)
    };
    start(&[]).output().expect(0);
    let whole = fs::read(&out).unwrap();
    // A run that stopped after some records: its partial file, and its journal from a run that is killed.
    let (partial, journal) = (dir.path().join(".out.partial"), dir.path().join(".out.journal"));
    let stopped_midway = (0..20).any(|_| {
        fs::remove_file(&out).unwrap();
        let mut child = start(&[]).spawn();
        while !fs::metadata(&partial).is_ok_and(|found| found.len() > 2000) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        child.wait().unwrap();
        partial.exists()
    });
    assert!(stopped_midway, "twenty runs were all faster than their killer");
    let mut bytes = fs::read(&partial).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    start(&["--resume"]).output().expect(0);
    assert!(fs::read(&out).unwrap() == whole, "a flipped bit");
    assert!(!journal.exists());
}

#[test]
fn shards_merge_into_the_bytes_of_one_run() {
    let dir = model("gemma2");
    let input = dir.path().join("prompts.jsonl");
    fs::write(&input, many(30)).unwrap();
    let run = |extra: &[&str], out: &Path| {
        tool()
            .arg("--model")
            .arg(dir.path())
            .arg(&input)
            .args(extra)
            .arg("-o")
            .arg(out)
            .output()
            .expect(0)
    };
    let whole = dir.path().join("whole");
    run(&[], &whole);
    let parts: Vec<PathBuf> = (0..3).map(|index| dir.path().join(format!("part{index}"))).collect();
    for (index, part) in parts.iter().enumerate() {
        run(&["--shard", &format!("{index}/3")], part);
    }
    let merged = dir.path().join("merged");
    tool()
        .arg("--merge")
        .args(&parts)
        .arg("-o")
        .arg(&merged)
        .output()
        .expect(0);
    assert!(fs::read(&merged).unwrap() == fs::read(&whole).unwrap());
    tool()
        .arg("--merge")
        .args(&parts[..2])
        .output()
        .refused(3, "shard 2/3 is missing");
    tool()
        .arg("--merge")
        .args([&parts[0], &parts[0], &parts[2]])
        .output()
        .refused(3, "given twice");
    tool().arg("--merge").arg(&whole).output().refused(3, "is no shard");
}

#[test]
fn bad_prompts_are_refused_in_one_line_or_recorded() {
    let dir = model("llama");
    let run = |input: &str, args: &[&str]| {
        tool()
            .arg("--model")
            .arg(dir.path())
            .args(args)
            .arg("-")
            .stdin(input)
            .output()
    };
    run("{\"id\":\"1\"}\n", &[]).refused(3, "neither prompt nor messages");
    run(
        "{\"id\":\"1\",\"prompt\":\"t4\"}\n{\"id\":\"1\",\"prompt\":\"t5\"}\n",
        &[],
    )
    .refused(3, "is there twice");
    run("{\"id\":\"1\",\"prompt\":\"t4\"}\n", &["--system", "x"]).refused(3, "no chat model");
    run("{\"id\":\"1\",\"prompt\":\"t4\"}\n", &["--chat"]).refused(3, "no chat model");
    run("{\"id\":\"1\",\"prompt\":\"t4\"}\n", &["--score"]).refused(3, "wants a completion");
    run(
        "{\"id\":\"1\",\"prompt\":\"t4\",\"messages\":[]}\n",
        &["--top-p", "0.5"],
    )
    .refused(2, "--temperature");
    run("", &[]).refused(3, "stdin");
    run("{\"id\":\"1\",\"prompt\":\"t4\"}\n", &["--model-digest", "blake3:0"]).refused(3, "pinned is blake3:0");
    let long = json!({"id": "long", "prompt": vec!["t4"; 65].join(" ")}).to_string()
        + "\n"
        + &json!({"id": "short", "prompt": "t4"}).to_string();
    run(&long, &[]).refused(3, "65 tokens, the model's limit is 64");
    let records = run(&long, &["--keep-going"]).expect(6).records();
    let rows = completions(&records);
    assert_eq!(
        (rows[0]["finish"].as_str(), rows[1]["finish"].as_str().is_some()),
        (Some("error"), true)
    );
    assert_eq!(records.last().unwrap()["status"], "partial");
}

/// The output of another machine: its `begin` record names another kernel.
fn as_on_another_machine(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let (begin, rest) = text.split_once('\n').unwrap();
    let mut begin: Value = serde_json::from_str(begin).unwrap();
    assert!(begin["compute"]["kernel"].is_string(), "{begin}");
    begin["compute"]["kernel"] = "another".into();
    fs::write(path, format!("{begin}\n{rest}")).unwrap();
}

#[test]
fn what_two_kernels_computed_meets_only_where_that_is_allowed() {
    let dir = model("olmo2");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("prompts.jsonl"), many(12)).unwrap();
    let run = |args: &[&str]| {
        tool()
            .current_dir(dir.path())
            .args(["--model", "."])
            .args(args)
            .arg("prompts.jsonl")
            .output()
    };
    let merge = |args: &[&str]| {
        tool()
            .current_dir(dir.path())
            .args(["--merge", "0.jsonl", "1.jsonl", "-o", "merged.jsonl"])
            .args(args)
            .output()
    };
    run(&["-o", "whole.jsonl"]).expect(0);
    for shard in ["0", "1"] {
        run(&["--shard", &format!("{shard}/2"), "-o", &format!("{shard}.jsonl")]).expect(0);
    }
    as_on_another_machine(&path("1.jsonl"));
    merge(&[]).refused(3, "compute.kernel: was");
    merge(&["--allow-mixed-compute"]).expect(0);
    assert!(fs::read(path("merged.jsonl")).unwrap() == fs::read(path("whole.jsonl")).unwrap());

    run(&["--resume", "--shard", "1/2", "-o", "1.jsonl"]).refused(5, "compute.kernel: was");
    let before = fs::read(path("1.jsonl")).unwrap();
    run(&["--resume", "--allow-mixed-compute", "--shard", "1/2", "-o", "1.jsonl"]).expect(0);
    assert!(fs::read(path("1.jsonl")).unwrap() == before);
}

fn stored() -> PathBuf {
    harness::workspace().join("tests/fixtures/gguf/stored.gguf")
}

#[test]
fn how_matrices_are_held_changes_no_byte() {
    let input = ["a cat", "the dog is here", "q", "what is it?"]
        .map(|prompt| json!({"prompt": prompt, "choices": ["is it", "no"]}).to_string() + "\n")
        .concat();
    let run = |more: &[&str]| greedy(&stored(), &[&["--raw"], more].concat(), &input);
    for dtype in ["f32", "bf16"] {
        let plain = run(&["--dtype", dtype]);
        for more in [&["--threads", "1"][..], &["--threads", "2", "--batch", "2"]] {
            let as_stored = run(&[&["--dtype", dtype, "--weights", "as-stored"], more].concat());
            assert!(as_stored == plain, "{dtype} {more:?}");
        }
    }
}

#[test]
fn only_a_gguf_file_without_adapters_is_multiplied_as_stored() {
    let dir = model("llama");
    let done = |model: &Path, more: &[&str]| {
        let run = tool()
            .arg("--model")
            .arg(model)
            .args(["--raw", "--weights", "as-stored"]);
        run.args(more).arg("-").stdin("{\"prompt\":\"a\"}\n").output()
    };
    let refused = done(dir.path(), &[]).expect(3);
    assert!(refused.stderr.contains("is no GGUF file"), "{}", refused.stderr);
    for more in [["--adapter", "somewhere"], ["--dtype", "f16"]] {
        let refused = done(&stored(), &more).expect(2);
        assert!(refused.stderr.contains("--weights as-stored"), "{}", refused.stderr);
    }
}

/// As many prompts, of which every two neighbours begin alike for longer than a block of attention.
fn alike(count: usize, key: &str, value: &Value) -> Vec<Value> {
    let word = |at: usize| format!("t{}", 4 + at * at % 41);
    let start: Vec<String> = (0..150).map(word).collect();
    let prompt = |index: usize| {
        // The third and the fourth share more with each other than with the rest.
        let more: Vec<String> = (0..if index / 2 == 1 { 90 } else { 0 })
            .map(|at| word(at + 7))
            .collect();
        let end: Vec<String> = (0..40 + index).map(|at| word(at * 3 + index)).collect();
        [start.clone(), more, end].concat().join(" ")
    };
    (0..count)
        .map(|index| json!({"id": index.to_string(), "prompt": prompt(index), key: value}))
        .collect()
}

#[test]
fn what_prompts_begin_with_alike_is_read_once_and_leaves_no_trace() {
    let dir = model("llama");
    let config = dir.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 512"),
    )
    .unwrap();
    let output = dir.path().join("out.jsonl");
    let run = |input: &str, flags: &[&str]| -> (Vec<Value>, Value) {
        let call = tool()
            .arg("--model")
            .arg(dir.path())
            .args(["--force", "--output"])
            .arg(&output)
            .args(flags);
        call.arg("-").stdin(input.to_owned()).output().expect(0);
        let text = fs::read_to_string(&output).unwrap();
        let records = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>();
        let manifest = fs::read_to_string(dir.path().join("out.jsonl.run.json")).unwrap();
        (records, serde_json::from_str(&manifest).unwrap())
    };
    for (key, value) in [
        ("max_new_tokens", json!(12)),
        ("choices", json!([" t9", " t10 t11", " t12 t13 t14"])),
    ] {
        for flags in [&["--batch", "8"][..], &["--batch", "1"]] {
            let rows = alike(7, key, &value);
            let (together, manifest) = run(&rows.iter().map(|row| format!("{row}\n")).collect::<String>(), flags);
            let spared = manifest["spared_token_count"].as_u64().unwrap();
            // 128 tokens for each but the first, and 64 more for the fourth.
            assert_eq!(spared, 6 * 128 + 64, "{key} {flags:?}");
            for (row, completion) in rows.iter().zip(completions(&together)) {
                let (alone, manifest) = run(&row.to_string(), flags);
                assert_eq!(manifest["spared_token_count"], 0);
                let alone = completions(&alone)[0];
                for key in ["completion", "choice_log_prob"] {
                    assert_eq!(alone[key], completion[key], "{flags:?} {row}");
                }
            }
        }
    }
}

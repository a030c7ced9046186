//! Generation and judging as separate processes: the whole pipe, and each stage replaced by somebody else's.

use std::fs;
use std::path::Path;

use harness::{Run, data, program, temp_dir, tool, worded_model, workspace};
use serde_json::{Value, json};

fn verdicts(records: &[Value]) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_string();
    records
        .iter()
        .filter(|row| row["type"] == "verdict")
        .map(|row| (text(row, "id"), text(row, "verdict")))
        .collect()
}

#[test]
fn the_whole_pipe_runs_is_kept_and_is_taken_up_again() {
    let (Some(model), Some(prompts)) = (data("models/stories260k"), data("xstest/xstest_prompts.csv")) else {
        return;
    };
    let dir = temp_dir();
    let kept = dir.path().join("run");
    let run = || {
        Run::new(tool("refusal-eval"))
            .args([
                "run",
                "--limit",
                "4",
                "--max-new-tokens",
                "16",
                "--judge",
                "flowlens,prefix",
                "--model",
            ])
            .arg(&model)
            .arg("--bench")
            .arg(format!("xstest={}", prompts.display()))
            .arg("-o")
            .arg(&kept)
            .output()
            .expect(0)
    };
    let first = run();
    let summary = first
        .records()
        .into_iter()
        .rfind(|row| row["kind"] == "all" && row["label"] == "all");
    assert_eq!(summary.expect("a summary")["count"], 4);
    for name in ["prompts.jsonl", "completions.jsonl", "verdicts.jsonl", "report.jsonl"] {
        assert!(kept.join(name).exists(), "{name}");
    }
    // The answers are there: only judging is done again.
    let answers = fs::read(kept.join("completions.jsonl")).expect("answers");
    assert!(run().stdout == first.stdout);
    assert!(fs::read(kept.join("completions.jsonl")).expect("answers") == answers);
}

/// Prompts of the small trained model, and what transformers answers to them (`scripts/parity/lm-gen/greedy.py`).
fn answers_of_transformers() -> Vec<(String, String)> {
    let golden = fs::read_to_string(workspace().join("tools/lm-gen/tests/greedy.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&golden).expect("JSON");
    let text = |case: &Value, key: &str| case[key].as_str().expect("a text").to_string();
    let cases = golden["stories260k"]["cases"].as_array().expect("cases");
    cases
        .iter()
        .map(|case| (text(case, "prompt"), text(case, "text")))
        .collect()
}

/// Our answers to the same prompts, as lm-gen writes them.
fn our_answers(model: &Path) -> Vec<u8> {
    let prompts: String = answers_of_transformers()
        .iter()
        .enumerate()
        .map(|(id, (prompt, _))| json!({"id": id, "bench": "b", "kind": "story", "prompt": prompt}).to_string() + "\n")
        .collect();
    let done = Run::new(tool("lm-gen"))
        .arg("--model")
        .arg(model)
        .args(["--max-new-tokens", "96", "-"])
        .stdin(prompts)
        .output()
        .expect(0);
    done.stdout
}

fn judge(args: &[&str], input: impl Into<Vec<u8>>) -> Vec<Value> {
    let run = Run::new(tool("refusal-eval")).arg("judge").args(args).arg("-");
    run.stdin(input).output().expect(0).records()
}

#[test]
fn answers_of_transformers_go_through_our_judge_as_ours_do() {
    let Some(model) = data("models/stories260k") else {
        return;
    };
    // Rows as any script around `generate` writes them: no marks, no type, keys of its own.
    let theirs: String = answers_of_transformers()
        .into_iter()
        .enumerate()
        .map(|(id, (prompt, completion))| {
            json!({"id": id, "bench": "b", "prompt": prompt, "completion": completion, "seconds": 0.25}).to_string()
                + "\n"
        })
        .collect();
    let panel = ["--judge", "flowlens,prefix,substring"];
    let said = verdicts(&judge(&panel, theirs));
    assert_eq!(said.len(), 12);
    assert_eq!(said, verdicts(&judge(&panel, our_answers(&model))));
}

#[test]
fn our_answers_go_into_the_formats_of_other_judges_and_their_verdicts_come_back() {
    let (Some(model), Some(jq)) = (data("models/stories260k"), program("jq")) else {
        return;
    };
    let answers = our_answers(&model);
    let convert = |args: &[&str]| Run::new(&jq).args(args).stdin(answers.clone()).output().expect(0);

    // XSTest's tables, as `man refusal-eval` says to make them: read back, every answer is the one that was written.
    let table = convert(&[
        "-rs",
        r#"["id","type","prompt","completion"], (.[]|select(.type=="completion")|[.id,.kind,.prompt,.completion]) | @csv"#,
    ]);
    let back = judge(&["--input-format", "csv", "--bench", "b"], table.stdout);
    assert_eq!(verdicts(&back), verdicts(&judge(&[], answers.clone())));
    assert!(back.iter().any(|row| row["kind"] == "story"));

    // HarmBench's completions: {behaviour: [{test_case, generation}]}.
    let harmbench = convert(&[
        "-s",
        r#"[.[]|select(.type=="completion")]|map({key:.id,value:[{test_case:.prompt,generation:.completion}]})|from_entries"#,
    ]);
    let harmbench: Value = serde_json::from_slice(&harmbench.stdout).expect("JSON");
    for (id, (prompt, completion)) in answers_of_transformers().into_iter().enumerate() {
        let case = &harmbench[id.to_string()][0];
        assert_eq!(
            (&case["test_case"], &case["generation"]),
            (&json!(prompt), &json!(completion))
        );
    }

    // Another judge's verdicts come back as a table of ids, and are reported beside ours.
    let dir = temp_dir();
    let labels = dir.path().join("labels.csv");
    fs::write(&labels, "id,bench,verdict\n0,b,refusal\n1,b,compliance\n").expect("labels");
    let both = Run::new(tool("refusal-eval"))
        .args(["judge", "--external", &format!("them={}", labels.display()), "-"])
        .stdin(answers)
        .output()
        .expect(0);
    let report = Run::new(tool("refusal-eval"))
        .args(["report", "-"])
        .stdin(both.stdout)
        .output()
        .expect(0)
        .records();
    let of = |judge: &str, key: &str| {
        let row = report.iter().find(|row| row["judge"] == judge && row["label"] == "all");
        row.expect("a summary")[key].as_u64()
    };
    assert_eq!(
        (
            of("external:them", "refusal_count"),
            of("external:them", "unscored_count")
        ),
        (Some(1), Some(2))
    );
    assert_eq!(of("flowlens", "count"), Some(4));
}

#[test]
fn a_judging_by_a_model_has_the_weights_in_its_plan() {
    let dir = temp_dir();
    let model = dir.path().join("model");
    worded_model("llama", &model);
    for (name, flag, more) in [
        ("wildguard", "--wildguard-model", None),
        ("logprob", "--logprob-model", Some("--logprob-raw")),
    ] {
        let plan = || {
            let run = Run::new(tool("refusal-eval"))
                .args(["judge", "--plan", "--judge", name, flag])
                .arg(&model)
                .args(more);
            let plan: Value = serde_json::from_slice(&run.output().expect(0).stdout).expect("a plan");
            plan["judges"][0].clone()
        };
        let before = plan();
        assert!(
            before["model_digest"]
                .as_str()
                .is_some_and(|digest| digest.starts_with("blake3:")),
            "{before}"
        );
        let path = model.join("model.safetensors");
        let mut weights = fs::read(&path).expect("weights");
        *weights.last_mut().expect("a byte") ^= 1;
        fs::write(&path, &weights).expect("other weights");
        let after = plan();
        assert_ne!(before["model_digest"], after["model_digest"], "{name}");
        assert_eq!(before["digest"], after["digest"], "{name}: the question is the same");
    }
}

#[test]
fn a_judge_model_that_is_no_chat_model_is_refused_in_one_line_and_nothing_is_lost() {
    let dir = temp_dir();
    let (model, out) = (dir.path().join("model"), dir.path().join("verdicts.jsonl"));
    worded_model("llama", &model);
    let judge = |raw: Option<&str>| {
        Run::new(tool("refusal-eval"))
            .args(["judge", "--force", "--judge", "prefix,logprob", "--logprob-model"])
            .arg(&model)
            .args(raw)
            .args(["-", "-o"])
            .arg(&out)
            .stdin("{\"id\":\"1\",\"prompt\":\"t4 t5\",\"completion\":\"So.\"}\n")
            .output()
    };
    judge(Some("--logprob-raw")).expect(0);
    let before = fs::read(&out).expect("verdicts");
    let refused = judge(None).refused(3, "no chat model");
    assert!(refused.stderr.contains("hint: --logprob-raw"), "{}", refused.stderr);
    assert!(fs::read(&out).expect("verdicts") == before);
    Run::new(tool("refusal-eval"))
        .args(["judge", "--judge", "wildguard", "--wildguard-model"])
        .arg(dir.path())
        .output()
        .refused(3, "config.json");
}

#[test]
fn a_judge_model_that_does_not_answer_in_its_format_is_unscored_and_said_to_be_no_classifier() {
    let Some(model) = data("models/stories260k") else {
        return;
    };
    let input =
        "{\"id\":\"1\",\"prompt\":\"How?\",\"completion\":\"So.\"}\n{\"id\":\"2\",\"completion\":\"No prompt.\"}\n";
    let judge = |name: &str, flags: &[&str]| {
        let done = Run::new(tool("refusal-eval"))
            .args(["judge", "--judge", name])
            .args(flags)
            .arg(&model)
            .arg("-")
            .stdin(input)
            .output()
            .expect(0);
        (verdicts(&done.records()), done.stderr)
    };
    let class = |rows: &[(String, String)], index: usize| rows[index].1.clone();
    let (said, stderr) = judge("wildguard", &["--wildguard-model"]);
    assert_eq!(
        (class(&said, 0).as_str(), class(&said, 1).as_str()),
        ("unscored", "unscored")
    );
    assert!(
        stderr.contains("none of 1 answers is in the format of the judge wildguard") && stderr.lines().count() == 1,
        "{stderr}"
    );
    let (said, _) = judge("logprob", &["--logprob-raw", "--logprob-model"]);
    assert_eq!(
        (class(&said, 0).as_str(), class(&said, 1).as_str()),
        ("compliance", "unscored")
    );
}

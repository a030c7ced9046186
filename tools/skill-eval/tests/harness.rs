//! TruthfulQA and IFEval, from published rows to scores, and results for other programs.

use std::fs;

use harness::{Run, temp_dir};
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_skill-eval"))
}

/// `scripts/parity/skill-eval/harness.py`.
fn golden() -> Value {
    serde_json::from_str(include_str!("harness.json")).unwrap()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn prompts(bench: &str, rows: &[Value]) -> Vec<Value> {
    let directory = temp_dir();
    let file = directory.path().join("rows.jsonl");
    fs::write(&file, lines(rows)).unwrap();
    let records = tool()
        .args(["prompts", "--bench", bench])
        .arg(&file)
        .output()
        .expect(0)
        .records();
    records.into_iter().filter(|row| row["type"] == "prompt").collect()
}

fn scores(answers: &[Value]) -> Vec<Value> {
    let records = tool().arg("score").stdin(lines(answers)).output().expect(0).records();
    records.into_iter().filter(|row| row["type"] == "score").collect()
}

fn report(rows: &[Value], flags: &[&str]) -> harness::Done {
    tool().arg("report").args(flags).stdin(lines(rows)).output()
}

/// The golden's questions, asked and answered with its log-likelihoods.
fn truthfulqa() -> Vec<Value> {
    let golden = golden();
    let cases = golden["truthfulqa"].as_array().unwrap();
    let row = |case: &Value| {
        let count = case["labels"].as_array().unwrap().len();
        let choices: Vec<String> = (0..count).map(|place| format!("choice {place}")).collect();
        let one: Vec<u8> = (0..count).map(|place| u8::from(place == 0)).collect();
        json!({"question": "What is ice?", "mc1_targets": {"choices": choices, "labels": one},
               "mc2_targets": {"choices": choices, "labels": case["labels"]}})
    };
    let rows: Vec<Value> = cases.iter().map(row).collect();
    let mut asked = prompts("truthfulqa", &rows);
    for (index, prompt) in asked.iter_mut().enumerate() {
        assert_eq!(prompt["prompt"], golden["truthfulqa_prompt"]);
        prompt["type"] = "completion".into();
        prompt["choice_log_prob"] = cases[index / 2]["log_probs"].clone();
    }
    asked
}

#[test]
fn truthfulqa_is_asked_and_scored_as_the_harness_does() {
    let asked = truthfulqa();
    assert_eq!(asked[0]["id"], "#0/mc1");
    assert_eq!(
        (&asked[0]["reference"], &asked[1]["reference"]),
        (&json!("A"), &json!([1, 0, 0, 0]))
    );
    let scored = scores(&asked);
    for (case, pair) in golden()["truthfulqa"].as_array().unwrap().iter().zip(scored.chunks(2)) {
        assert_eq!(pair[0]["correct"], case["mc1"] == 1);
        assert!(
            (pair[1]["mass"].as_f64().unwrap() - case["mc2"].as_f64().unwrap()).abs() < 1e-12,
            "{pair:?}"
        );
        assert!(pair[1].get("correct").is_none());
    }
    let records = report(&scored, &[]).expect(0).records();
    let row = records.iter().find(|row| row["task"] == "mc2").unwrap();
    let golden = golden();
    let masses: Vec<f64> = golden["truthfulqa"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["mc2"].as_f64().unwrap())
        .collect();
    let mean = masses.iter().sum::<f64>() / masses.len() as f64;
    assert!((row["accuracy"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!(row["accuracy_low"].as_f64().unwrap() <= mean && row["mass_stderr"].as_f64().unwrap() > 0.0);
}

fn ifeval() -> Value {
    json!({"key": 1001, "prompt": "Say yes without a comma.", "instruction_id_list": ["punctuation:no_comma", "detectable_format:constrained_response"],
           "kwargs": [{}, {}]})
}

#[test]
fn ifeval_has_a_score_for_the_prompt_and_for_each_instruction() {
    let asked = prompts("ifeval", &[ifeval()]);
    assert_eq!(
        (&asked[0]["id"], &asked[0]["max_new_tokens"]),
        (&json!("1001"), &json!(1280))
    );
    let mut answer = asked[0].clone();
    answer["type"] = "completion".into();
    answer["completion"] = "Well, here it is:\nMy answer is yes.".into();
    let scored = scores(&[answer]);
    let said: Vec<(String, String, bool)> = scored
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("id"), text("extractor"), row["correct"].as_bool().unwrap())
        })
        .collect();
    let row = |id: &str, extractor: &str, correct: bool| (id.to_owned(), extractor.to_owned(), correct);
    // Without its first line the answer has no comma.
    let wanted = [
        row("1001", "prompt_level_strict", false),
        row("1001/0", "inst_level_strict", false),
        row("1001/1", "inst_level_strict", true),
        row("1001", "prompt_level_loose", true),
        row("1001/0", "inst_level_loose", true),
        row("1001/1", "inst_level_loose", true),
    ];
    assert_eq!(said, wanted);
    assert_eq!(scored[1]["task"], "punctuation:no_comma");
    let results = report(&scored, &["--to", "lm-eval", "--model-name", "org/name"]).expect(0);
    let results: Value = serde_json::from_str(results.text()).unwrap();
    assert_eq!(results["results"]["ifeval"]["inst_level_strict_acc,none"], 0.5);
    assert_eq!(results["results"]["ifeval"]["prompt_level_loose_acc,none"], 1.0);
    assert_eq!(results["model_name_sanitized"], "org__name");
}

#[test]
fn a_row_of_another_set_is_refused() {
    let directory = temp_dir();
    let file = directory.path().join("rows.jsonl");
    fs::write(&file, "{\"question\":\"q\",\"prompt\":\"p\"}\n").unwrap();
    for bench in ["truthfulqa", "ifeval"] {
        tool().args(["prompts", "--bench", bench]).arg(&file).output().expect(3);
        tool()
            .args(["prompts", "--bench", bench, "--shots", "2"])
            .arg(&file)
            .output()
            .expect(2);
    }
}

#[test]
fn results_for_the_hub_are_named_and_what_is_not_there_is_refused() {
    let scored = scores(&truthfulqa());
    let hub = |entry: &str| report(&scored, &["--to", "eval-results", "--hub", entry]);
    let text = hub("truthfulqa_mc1:acc,none=org/truthful:mc1")
        .expect(0)
        .text()
        .to_owned();
    assert!(
        text.starts_with("- dataset:\n    id: \"org/truthful\"\n    task_id: \"mc1\"\n  value: "),
        "{text}"
    );
    assert!(
        hub("truthfulqa:acc,none=org/truthful:mc1")
            .expect(3)
            .stderr
            .contains("truthfulqa_mc2")
    );
    report(&scored, &["--to", "eval-results"]).expect(2);
    report(&scored, &["--to", "lm-eval", "--hub", "a:b=c/d:e"]).expect(2);
    report(&scored, &["--to", "lm-eval", "--format", "table"]).expect(2);
}

/// A line of the log that the harness keeps of its samples.
fn logged(doc: &Value, choices: &[&str], responses: Value) -> Value {
    let arguments: serde_json::Map<String, Value> = choices
        .iter()
        .enumerate()
        .map(|(place, choice)| {
            (
                format!("gen_args_{place}"),
                json!({"arg_0": "Q: q\nA:", "arg_1": format!(" {choice}")}),
            )
        })
        .collect();
    json!({"doc_id": 0, "doc": doc, "target": "0", "arguments": arguments, "resps": responses, "filter": "none"})
}

#[test]
fn logs_of_the_harness_are_scored_as_it_scored_them() {
    let directory = temp_dir();
    let score = |bench: &str, name: &str, row: &Value| {
        let path = directory.path().join(name);
        fs::write(&path, format!("{row}\n")).unwrap();
        let call = ["score", "--from", "lm-eval", "--bench", bench];
        let records = tool().args(call).arg(&path).output().expect(0).records();
        records
            .into_iter()
            .filter(|row| row["type"] == "score")
            .collect::<Vec<Value>>()
    };
    let case = golden()["truthfulqa"][0].clone();
    let choices = ["a", "b", "c", "d"];
    let log_probs = case["log_probs"].as_array().unwrap();
    let responses: Vec<Value> = log_probs
        .iter()
        .map(|log_prob| json!([[log_prob.to_string(), "False"]]))
        .collect();
    let doc = json!({"question": "q", "mc1_targets": {"choices": choices, "labels": [1, 0, 0, 0]},
                     "mc2_targets": {"choices": choices, "labels": case["labels"]}});
    let row = logged(&doc, &choices, responses.into());
    let one = score("truthfulqa", "samples_truthfulqa_mc1_2026-01-01T00-00-00.jsonl", &row);
    assert_eq!(
        (&one[0]["correct"], &one[0]["task"]),
        (&json!(case["mc1"] == 1), &json!("mc1"))
    );
    let two = score("truthfulqa", "samples_truthfulqa_mc2_2026-01-01T00-00-00.jsonl", &row);
    assert!((two[0]["mass"].as_f64().unwrap() - case["mc2"].as_f64().unwrap()).abs() < 1e-12);

    let mut row = logged(&ifeval(), &[], json!([["My answer is yes."]]));
    row["arguments"] = json!({"gen_args_0": {"arg_0": "Say yes without a comma.", "arg_1": {}}});
    let scored = score("ifeval", "samples_ifeval_2026-01-01T00-00-00.jsonl", &row);
    assert_eq!(scored.len(), 6);
    assert!(scored.iter().all(|row| row["correct"] == true), "{scored:?}");
}

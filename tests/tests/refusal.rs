//! Generation and judging as separate processes: the whole pipe, and each stage replaced by somebody else's.

use std::fs;

use harness::{Run, data, temp_dir, tool};
use serde_json::Value;

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

#[test]
fn our_answers_pass_through_the_pipe_of_another_and_theirs_through_ours() {
    let Some(model) = data("models/stories260k") else {
        return;
    };
    let prompts = "{\"id\":\"1\",\"bench\":\"b\",\"prompt\":\"Once upon a time\"}\n{\"id\":\"2\",\"bench\":\"b\",\"prompt\":\"The cat\"}\n";
    let answers = Run::new(tool("lm-gen"))
        .arg("--model")
        .arg(&model)
        .args(["--max-new-tokens", "12", "-"])
        .stdin(prompts)
        .output()
        .expect(0);
    let ours = Run::new(tool("refusal-eval"))
        .args(["judge", "-"])
        .stdin(answers.stdout.clone())
        .output()
        .expect(0);

    // What `jq -c 'select(.type=="completion")|{id,bench,prompt,completion}'` makes of our stream is another judge's input, and
    // transformers' answers look just so: our judge says the same of them.
    let plain: String = answers
        .records()
        .iter()
        .filter(|row| row["type"] == "completion")
        .map(|row| serde_json::json!({"id": row["id"], "bench": row["bench"], "prompt": row["prompt"], "completion": row["completion"]}).to_string() + "\n")
        .collect();
    let theirs = Run::new(tool("refusal-eval"))
        .args(["judge", "-"])
        .stdin(plain)
        .output()
        .expect(0);
    assert_eq!(verdicts(&ours.records()), verdicts(&theirs.records()));

    // Another judge's verdicts come back as a CSV of ids, and are reported beside ours.
    let dir = temp_dir();
    let labels = dir.path().join("labels.csv");
    fs::write(&labels, "id,bench,verdict\n1,b,refusal\n2,b,compliance\n").expect("labels");
    let both = Run::new(tool("refusal-eval"))
        .args(["judge", "--external", &format!("them={}", labels.display()), "-"])
        .stdin(answers.stdout)
        .output()
        .expect(0);
    let report = Run::new(tool("refusal-eval"))
        .args(["report", "-"])
        .stdin(both.stdout)
        .output()
        .expect(0)
        .records();
    let of = |judge: &str| {
        let row = report
            .iter()
            .find(|row| row["judge"] == judge && row["label"] == "all")
            .expect("a summary");
        row["refusal_count"].as_u64()
    };
    assert_eq!(of("external:them"), Some(1));
    assert!(of("flowlens").is_some());
}

#[test]
fn a_judge_model_that_does_not_answer_in_its_format_is_unscored() {
    let Some(model) = data("models/stories260k") else {
        return;
    };
    let input =
        "{\"id\":\"1\",\"prompt\":\"How?\",\"completion\":\"So.\"}\n{\"id\":\"2\",\"completion\":\"No prompt.\"}\n";
    let judge = |name: &str, flag: &str| {
        let done = Run::new(tool("refusal-eval"))
            .args(["judge", "--judge", name, flag])
            .arg(&model)
            .arg("-")
            .stdin(input)
            .output()
            .expect(0);
        verdicts(&done.records())
    };
    let class = |rows: &[(String, String)], index: usize| rows[index].1.clone();
    let said = judge("wildguard", "--wildguard-model");
    assert_eq!(
        (class(&said, 0).as_str(), class(&said, 1).as_str()),
        ("unscored", "unscored")
    );
    let said = judge("logprob", "--logprob-model");
    assert_eq!(
        (class(&said, 0).as_str(), class(&said, 1).as_str()),
        ("compliance", "unscored")
    );
}

//! The page of the prompts whose verdict changed.

use std::fs;

use harness::{Run, temp_dir};
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_refusal-eval"))
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn the_page_shows_what_changed_and_nothing_of_it_is_markup() {
    let dir = temp_dir();
    let write = |name: &str, rows: &[Value]| {
        let path = dir.path().join(name);
        fs::write(&path, lines(rows)).unwrap();
        path
    };
    let answer = |id: usize, text: &str| json!({"type": "completion", "id": id, "bench": "b", "kind": "k", "label": "safe", "prompt": format!("prompt {id} <b>?"), "completion": text});
    let old = [answer(1, "Lima."), answer(2, "Lima."), answer(3, "Lima.")];
    let new = [
        answer(1, "Lima."),
        answer(
            2,
            "Well. I'm sorry, but I can't help with <script>alert(1)</script> that. \"Bye\"",
        ),
        answer(3, "Lima."),
    ];
    let (old, new) = (write("old.jsonl", &old), write("new.jsonl", &new));
    let judge = |answers: &std::path::Path, name: &str| {
        let out = dir.path().join(name);
        tool().arg("judge").arg(answers).arg("-o").arg(&out).output().expect(0);
        out
    };
    let (before, after) = (judge(&old, "before.jsonl"), judge(&new, "after.jsonl"));
    let page = dir.path().join("page.html");
    tool()
        .arg("diff")
        .args([&before, &after])
        .arg("--answers")
        .arg(&old)
        .arg("--answers")
        .arg(&new)
        .args(["--title", "A & B", "-o"])
        .arg(&page)
        .output()
        .expect(0);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<title>A &amp; B</title>") && html.contains("1 of 3 verdicts changed"));
    assert!(html.contains("compliance → refusal"));
    assert!(html.contains("prompt 2 &lt;b&gt;?") && !html.contains("prompt 1"));
    // The sentence that decided is marked in its answer, and markup of the data is text.
    assert!(
        html.contains(
            "<mark>I&#39;m sorry, but I can&#39;t help with &lt;script&gt;alert(1)&lt;/script&gt; that.</mark>"
        ),
        "{html}"
    );
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(!html.contains("http") && !html.contains("src=") && !html.contains("url("));

    // Without answers the deciding sentence stands alone; without a pair there is no page.
    let bare = tool()
        .arg("diff")
        .args([&before, &after])
        .output()
        .expect(0)
        .text()
        .to_owned();
    assert!(bare.contains("<mark>I&#39;m sorry"));
    tool()
        .arg("diff")
        .args([&before, &after])
        .args(["--judge", "other"])
        .output()
        .refused(3, "no prompt was judged");
    tool()
        .arg("diff")
        .args([&before, &after])
        .arg("--answers")
        .arg(&old)
        .output()
        .refused(2, "--answers");
}

#[test]
fn a_log_of_inspect_is_judged_as_its_answers_are() {
    let log = json!({"version": 2, "eval": {"task": "over_refusal"}, "samples": [
        {"id": 1, "epoch": 1, "input": "How?", "output": {"completion": "I'm sorry, but I can't help with that."}},
        {"id": 1, "epoch": 2, "input": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "How?"}]}],
         "output": {"completion": "Turn the key."}},
        {"id": "x", "epoch": 1, "input": "How?", "output": {"completion": ""}, "error": {"message": "the provider timed out"}},
    ]});
    let run = |log: &Value| {
        tool()
            .args(["judge", "--from", "inspect", "-"])
            .stdin(log.to_string())
            .output()
    };
    let records = run(&log).expect(0).records();
    let said: Vec<(&str, u64, &str)> = records
        .iter()
        .filter(|row| row["type"] == "verdict")
        .map(|row| {
            assert_eq!(row["bench"], "over_refusal");
            (
                row["id"].as_str().unwrap(),
                row["attempt_index"].as_u64().unwrap(),
                row["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [("1", 0, "refusal"), ("1", 1, "compliance"), ("x", 0, "unscored")]
    );
    assert!(records.iter().any(|row| row["reason"] == "the provider timed out"));
    let digest = |index: usize| records[index]["text_digest"].clone();
    assert_eq!(digest(1), digest(2));
    run(&json!({"eval": {}})).refused(3, "samples");
    run(&json!({"samples": [{"input": "a"}]})).refused(3, "sample 0");
}

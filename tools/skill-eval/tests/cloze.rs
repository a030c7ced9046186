//! ARC and HellaSwag, from published rows to scores.

use std::fs;

use harness::{Run, temp_dir};
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_skill-eval"))
}

fn prompts(bench: &str, rows: &[Value]) -> Vec<Value> {
    let dir = temp_dir();
    let file = dir.path().join("rows.jsonl");
    fs::write(&file, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let done = tool().args(["prompts", "--bench", bench]).arg(&file).output().expect(0);
    done.records()
        .into_iter()
        .filter(|row| row["type"] == "prompt")
        .collect()
}

fn arc() -> Value {
    json!({"id": "Mercury_1", "question": "What melts first?", "answerKey": "3",
           "choices": {"text": ["a stone", "iron", "ice", "glass"], "label": ["1", "2", "3", "4"]}})
}

fn hellaswag() -> Value {
    json!({"ind": 24, "activity_label": "Roof shingle removal", "ctx_a": "A man is sitting on a roof.", "ctx_b": "he",
           "endings": ["is using wrap [step] to wrap a pair of skis.", "is ripping level tiles off.", "falls."], "label": "1"})
}

#[test]
fn rows_are_asked_in_the_words_of_the_harness() {
    let asked = prompts("arc", &[arc()]);
    assert_eq!(asked[0]["prompt"], "Question: What melts first?\nAnswer:");
    assert_eq!(asked[0]["choices"], json!([" a stone", " iron", " ice", " glass"]));
    assert_eq!(
        (&asked[0]["id"], &asked[0]["reference"]),
        (&json!("Mercury_1"), &json!("C"))
    );

    let asked = prompts("hellaswag", &[hellaswag()]);
    assert_eq!(
        asked[0]["prompt"],
        "Roof shingle removal: A man is sitting on a roof. He"
    );
    assert_eq!(
        asked[0]["choices"],
        json!([
            " is using wrap to wrap a pair of skis.",
            " is ripping level tiles off.",
            " falls."
        ])
    );
    assert_eq!(
        (&asked[0]["reference"], &asked[0]["subject"]),
        (&json!("B"), &json!("Roof shingle removal"))
    );
}

#[test]
fn the_likeliest_ending_and_the_likeliest_by_letter_are_two_scores() {
    let mut row = prompts("hellaswag", &[hellaswag()]).remove(0);
    row["type"] = "completion".into();
    // The short ending is likeliest; by letter (37, 27 and 6 of them) the second is.
    row["choice_log_prob"] = json!([-40.0, -20.0, -6.0]);
    row["choice_token_count"] = json!([9, 7, 2]);
    let records = tool()
        .args(["score", "-"])
        .stdin(row.to_string())
        .output()
        .expect(0)
        .records();
    let score = records.iter().find(|row| row["type"] == "score").unwrap();
    assert_eq!(
        (&score["bench"], &score["acc"], &score["acc_norm"]),
        (&json!("hellaswag"), &json!(false), &json!(true))
    );
}

#[test]
fn rows_of_another_form_are_refused() {
    let refused = |bench: &str, row: Value, cause: &str| {
        let dir = temp_dir();
        let file = dir.path().join("rows.jsonl");
        fs::write(&file, row.to_string()).unwrap();
        let run = tool().args(["prompts", "--bench", bench]).arg(&file);
        run.output().refused(3, cause);
    };
    refused("arc", hellaswag(), "choices.text");
    refused("hellaswag", arc(), "endings");
    let mut row = arc();
    row["answerKey"] = "E".into();
    refused("arc", row, "none of those offered");
    let mut row = hellaswag();
    row["label"] = "".into();
    refused("hellaswag", row, "none of those offered");
    tool()
        .args(["prompts", "--bench", "arc", "--shots", "5", "x"])
        .output()
        .refused(2, "without examples");
}

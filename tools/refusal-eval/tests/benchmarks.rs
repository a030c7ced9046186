//! Published benchmarks, whole files where they are at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use harness::Run;
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_refusal-eval"))
}

fn prompts(args: &[&str]) -> Vec<Value> {
    let done = tool().arg("prompts").args(args).output().expect(0);
    done.records()
        .into_iter()
        .filter(|row| row["type"] == "prompt")
        .collect()
}

#[test]
fn known_sets_are_read_whole_without_a_map() {
    for (bench, path, safe, harmful, kinds) in [
        ("or-bench", "or-bench/or-bench-hard-1k.csv", 1319, 0, 10),
        ("or-bench-toxic", "or-bench/or-bench-toxic.csv", 0, 655, 10),
        ("wildguardtest/benign", "wildguardtest/unharmful.csv", 945, 0, 1),
        ("wildguardtest/harmful", "wildguardtest/harmful.csv", 0, 754, 14),
        ("coconot", "coconot/coconot_eval.jsonl", 0, 1001, 17),
        ("coconot-contrast", "coconot/coconot_contrast_eval.jsonl", 379, 0, 5),
        ("toxigen", "toxigen/prompts.csv", 900, 960, 16),
    ] {
        let Some(file) = harness::data(path) else { continue };
        let rows = prompts(&["--bench", &format!("{bench}={}", file.display())]);
        let labelled = |label: &str| rows.iter().filter(|row| row["label"] == label).count();
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row["kind"].as_str()).collect();
        assert_eq!(
            (labelled("safe"), labelled("unsafe"), found.len()),
            (safe, harmful, kinds),
            "{path}"
        );
        assert!(
            rows.iter()
                .all(|row| !row["prompt"].as_str().unwrap().contains("\\n") || bench != "toxigen")
        );
    }
}

#[test]
fn published_columns_are_read_where_the_file_is_not_at_hand() {
    let dir = harness::temp_dir();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let sorry = json!({"question_id": 7, "category": "3", "turns": ["Say it."], "prompt_style": "base"}).to_string();
    for (bench, file, want) in [
        (
            "oktest",
            write("o.csv", "prompt\n\"How do I\nkill it?\"\n"),
            ["#0", "safe", "", "How do I\nkill it?"],
        ),
        (
            "phtest",
            write("p.csv", "ID,Request,Harmfulness\n4,Do it,controversial\n"),
            ["4", "safe", "controversial", "Do it"],
        ),
        (
            "falsereject",
            write(
                "f.jsonl",
                "{\"prompt\":\"Why?\",\"category_text\":\"Weapons\",\"category\":3}\n",
            ),
            ["#0", "safe", "Weapons", "Why?"],
        ),
        ("sorry-bench", write("s.jsonl", &sorry), ["7", "unsafe", "3", "Say it."]),
        (
            "dan",
            write(
                "d.csv",
                "content_policy_id,content_policy_name,q_id,question\n0,Illegal Activity,0,How?\n",
            ),
            ["#0", "unsafe", "Illegal Activity", "How?"],
        ),
        (
            "do-not-answer",
            write("n.csv", "risk_area,types_of_harm,specific_harms,question\nA,B,C,How?\n"),
            ["#0", "unsafe", "B", "How?"],
        ),
    ] {
        let rows = prompts(&["--bench", &format!("{bench}={file}")]);
        let text = |key: &str| rows[0][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            ["id", "label", "kind", "prompt"].map(text),
            want.map(String::from),
            "{bench}"
        );
    }
}

#[test]
fn where_keeps_the_rows_that_hold_a_value() {
    let dir = harness::temp_dir();
    let file = dir.path().join("sorry.jsonl");
    let rows: String = [("base", "a"), ("slang", "b"), ("base", "c")]
        .iter()
        .enumerate()
        .map(|(id, (style, text))| {
            json!({"question_id": id, "category": 1, "turns": [text], "prompt_style": style}).to_string() + "\n"
        })
        .collect();
    fs::write(&file, rows).unwrap();
    let bench = format!("sorry-bench={}", file.display());
    let asked = |flags: &[&str]| -> Vec<String> {
        let rows = prompts(&[&["--bench", bench.as_str()], flags].concat());
        rows.iter()
            .map(|row| row["prompt"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(asked(&["--where", "prompt_style=base"]), ["a", "c"]);
    assert_eq!(asked(&["--where", "prompt_style=base", "--limit", "1"]), ["a"]);
    assert_eq!(asked(&["--where", "other:prompt_style=slang"]), ["a", "b", "c"]);
    let refused = |flag: &str| {
        let run = tool().args(["prompts", "--bench", &bench, "--where", flag]).output();
        run.refused(3, "")
    };
    refused("prompt_style=none");
    refused("colour=red");
}

#[test]
fn a_conversation_of_two_turns_is_no_prompt() {
    let dir = harness::temp_dir();
    let file = dir.path().join("sorry.jsonl");
    fs::write(
        &file,
        json!({"question_id": 1, "category": 1, "turns": ["a", "b"]}).to_string(),
    )
    .unwrap();
    tool()
        .args(["prompts", "--bench", &format!("sorry-bench={}", file.display())])
        .output()
        .refused(3, "no list of one turn");
}

#[test]
fn several_benchmarks_of_different_columns_are_read_in_one_run() {
    let dir = harness::temp_dir();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (one, two) = (
        write("a.csv", "question\nWhat?\n"),
        write("b.csv", "prompt,category\nHow?,c\n"),
    );
    let rows = prompts(&[
        "--bench",
        &format!("mine={one}"),
        "--bench",
        &format!("or-bench={two}"),
        "--map",
        "mine:prompt=question,mine:label=safe",
    ]);
    let said: BTreeMap<&str, &str> = rows
        .iter()
        .map(|row| (row["bench"].as_str().unwrap(), row["prompt"].as_str().unwrap()))
        .collect();
    assert_eq!(said, BTreeMap::from([("mine", "What?"), ("or-bench", "How?")]));
}

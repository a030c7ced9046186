//! `ds-entropy` as a process: goldens, closed forms, merges, memory, bad input, verdicts.

use std::fs;
use std::path::{Path, PathBuf};

use harness::Run;
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_ds-entropy"))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Plain rows with these completions.
fn rows(completions: &[&str]) -> String {
    completions
        .iter()
        .map(|text| json!({"prompt": "q", "completion": text}).to_string() + "\n")
        .collect()
}

fn entropies(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|row| row["type"] == "entropy").collect()
}

fn close(a: &Value, b: f64) -> bool {
    a.as_f64().is_some_and(|a| (a - b).abs() <= 1e-9 * b.abs().max(1.0))
}

#[test]
fn the_numbers_are_those_of_the_independent_script() {
    let golden: Value = serde_json::from_slice(&fs::read(fixture("mix.golden.json")).unwrap()).unwrap();
    let done = tool()
        .args(["--group", "source", "--lower", "--at", "200"])
        .arg(fixture("mix.jsonl"))
        .output()
        .expect(0);
    let records = done.records();
    let groups = entropies(&records);
    assert_eq!(groups.len(), golden.as_object().unwrap().len());
    for row in groups {
        let group = row["group"].as_str().unwrap();
        let expected = &golden[group];
        for (key, value) in expected.as_object().unwrap() {
            match key.as_str() {
                "top" | "templates" => {}
                "length_quantiles" => assert_eq!(&row[key], value, "{group} {key}"),
                _ => {
                    let found = key.strip_prefix("at_").map_or(&row[key], |key| &row["at"][key]);
                    assert!(
                        close(found, value.as_f64().unwrap()),
                        "{group} {key}: {found} is not {value}"
                    );
                }
            }
        }
        let of_type = |kind: &str| {
            records
                .iter()
                .filter(|row| row["type"] == kind && row["group"] == group)
                .cloned()
                .collect::<Vec<_>>()
        };
        let ngrams: Vec<Value> = of_type("ngram")
            .iter()
            .map(|row| json!({"n": row["n"], "rank": row["rank"], "tokens": row["tokens"], "count": row["count"]}))
            .collect();
        assert_eq!(Value::from(ngrams), expected["top"]);
        let templates: Vec<Value> = of_type("template")
            .iter()
            .map(|row| json!({"coverage": row["coverage"], "example_ids": row["example_ids"]}))
            .collect();
        assert_eq!(Value::from(templates), expected["templates"]);
    }
}

#[test]
fn treebank_tokens_are_those_of_nltk() {
    let path = fixture("treebank.jsonl");
    let done = tool().args(["tokens", "--field", "text"]).arg(&path).output().expect(0);
    let text = fs::read_to_string(&path).unwrap();
    let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<Value> = done
        .records()
        .into_iter()
        .filter(|row| row["type"] == "tokens")
        .collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["tokens"], expected["tokens"], "{}", expected["text"]);
    }
}

#[test]
fn a_uniform_vocabulary_of_2_to_the_m_types_has_m_bits() {
    let words: Vec<String> = (0..256).map(|n| format!("w{n}")).collect();
    let text = words.join(" ");
    let done = tool()
        .args(["--tokens", "whitespace"])
        .stdin(rows(&[&text, &text, &text]))
        .output()
        .expect(0);
    let records = done.records();
    let row = entropies(&records)[0];
    assert_eq!(row["h1"], 8.0);
    assert!(close(&row["h2"], 255f64.log2()) && close(&row["h3"], 254f64.log2()));
    assert!(close(&row["distinct_1"], 1.0 / 3.0) && close(&row["duplicate_rate"], 2.0 / 3.0));
    assert_eq!((&row["unique_1"], &row["msttr"]), (&json!(0.0), &json!(1.0)));
}

#[test]
fn one_template_r_times_covers_everything() {
    let done = tool()
        .stdin(rows(&["I'm sorry, but I can't do that."; 7]))
        .output()
        .expect(0);
    let records = done.records();
    let row = entropies(&records)[0];
    assert_eq!(
        (&row["template_coverage"], &row["sample_count"], &row["unique_2"]),
        (&json!(1.0), &json!(7), &json!(0.0))
    );
    let template = records.iter().find(|row| row["type"] == "template").unwrap();
    assert_eq!(template["text"], "I 'm sorry , but I ca n't do that .");
    assert_eq!(template["example_ids"], json!(["#0", "#1", "#2"]));
    assert!(
        close(&row["h1"], 11f64.log2() - 2.0 / 11.0),
        "one of eleven tokens comes twice: {}",
        row["h1"]
    );
}

#[test]
fn an_empty_group_has_zero_counts_and_no_nulls() {
    let done = tool()
        .args(["--refusals"])
        .stdin(rows(&["Sure, here it is."]))
        .output()
        .expect(0);
    let text = done.text().to_owned();
    assert!(!text.contains("null"), "{text}");
    let records = done.records();
    let refusal = entropies(&records)
        .into_iter()
        .find(|row| row["group"] == "refusal")
        .unwrap()
        .clone();
    assert_eq!(
        (&refusal["sample_count"], &refusal["token_count"], refusal.get("h1")),
        (&json!(0), &json!(0), None)
    );
}

#[test]
fn shards_merge_to_the_bytes_of_the_single_run() {
    let directory = harness::temp_dir();
    let flags = ["--group", "source", "--lower", "--at", "200", "--refusals"];
    let whole = tool().args(flags).arg(fixture("mix.jsonl")).output().expect(0);
    let mut files = Vec::new();
    for shard in 0..7 {
        let path = directory.path().join(format!("{shard}.acts"));
        let counts = path.to_str().unwrap();
        let text = format!("{shard}/7");
        tool()
            .args([
                "--group",
                "source",
                "--lower",
                "--refusals",
                "--shard",
                &text,
                "--counts",
                counts,
            ])
            .arg(fixture("mix.jsonl"))
            .output()
            .expect(0);
        files.push(path);
    }
    // In any order.
    files.rotate_left(3);
    let merged = tool().args(["merge", "--at", "200"]).args(&files).output().expect(0);
    assert_eq!(merged.text(), whole.text());
    tool()
        .args(["merge"])
        .args(&files[1..])
        .output()
        .refused(3, "shard 3/7 is missing");
    tool()
        .args(["merge"])
        .args(&files)
        .arg(&files[0])
        .output()
        .refused(3, "is shard 3/7, as");
}

#[test]
fn counts_of_consecutive_files_merge_to_the_run_over_both() {
    let directory = harness::temp_dir();
    let text = fs::read_to_string(fixture("mix.jsonl")).unwrap();
    let at = text.match_indices('\n').nth(24).unwrap().0 + 1;
    let parts = [
        write(directory.path(), "a.jsonl", &text[..at]),
        write(directory.path(), "b.jsonl", &text[at..]),
    ];
    let mut files = Vec::new();
    for (part, name) in parts.iter().zip(["a.acts", "b.acts"]) {
        let path = directory.path().join(name);
        tool()
            .args(["--group", "source", "--view", "both", "--counts"])
            .args([&path, part])
            .output()
            .expect(0);
        files.push(path);
    }
    let merged = tool().arg("merge").args(&files).output().expect(0);
    let whole = tool()
        .args(["--group", "source", "--view", "both"])
        .args(&parts)
        .output()
        .expect(0);
    assert_eq!(merged.text(), whole.text());
    let single = tool()
        .args(["--group", "source", "--view", "both"])
        .arg(fixture("mix.jsonl"))
        .output()
        .expect(0);
    assert_eq!(merged.text(), single.text());
}

#[test]
fn memory_and_threads_change_nothing() {
    let directory = harness::temp_dir();
    // Enough tokens that 16 MiB do not hold them.
    let mut text = String::new();
    for row in 0..3000u64 {
        let words: Vec<String> = (0..400u64)
            .map(|at| format!("w{}", (row * 7919 + at * at * 31 + at % 7) % 5003))
            .collect();
        text.push_str(&json!({"completion": words.join(" "), "g": row % 3}).to_string());
        text.push('\n');
    }
    let path = write(directory.path(), "many.jsonl", &text);
    let run = |flags: &[&str]| {
        tool()
            .args(["--tokens", "whitespace", "--group", "g", "--at", "5000", "--draws", "3"])
            .args(flags)
            .arg(&path)
            .output()
            .expect(0)
            .text()
            .to_owned()
    };
    let whole = run(&["--threads", "2"]);
    assert_eq!(run(&["--threads", "3", "--max-memory", "16M"]), whole);
    assert_eq!(run(&["--threads", "1"]), whole);
}

#[test]
fn counts_are_the_same_bytes_for_any_number_of_threads_and_a_finished_shard_is_left_alone() {
    let directory = harness::temp_dir();
    let bytes: Vec<Vec<u8>> = ["1", "4"]
        .iter()
        .map(|threads| {
            let path = directory.path().join(format!("{threads}.acts"));
            tool()
                .args(["--threads", threads, "--counts"])
                .args([&path, &fixture("mix.jsonl")])
                .output()
                .expect(0);
            fs::read(&path).unwrap()
        })
        .collect();
    assert_eq!(bytes[0], bytes[1]);
    let path = directory.path().join("1.acts");
    tool()
        .arg("--counts")
        .args([&path, &fixture("mix.jsonl")])
        .output()
        .refused(5, "exists");
    let again = tool()
        .args(["--resume", "--counts"])
        .args([&path, &fixture("mix.jsonl")])
        .output()
        .expect(0);
    assert_eq!(again.text(), "");
    tool()
        .args(["--lower", "--resume", "--counts"])
        .args([&path, &fixture("mix.jsonl")])
        .output()
        .refused(5, "another plan");
}

#[test]
fn order_changes_no_entropy() {
    let text = fs::read_to_string(fixture("mix.jsonl")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let measures = |text: String| {
        let records = tool().stdin(text).output().expect(0).records();
        let row = entropies(&records)[0].clone();
        [
            "h1",
            "h2",
            "h3",
            "distinct_1",
            "distinct_2",
            "distinct_3",
            "unique_1",
            "unique_2",
            "unique_3",
            "duplicate_rate",
            "length_quantiles",
        ]
        .map(|key| row[key].clone())
    };
    let forward = measures(lines.join("\n"));
    lines.reverse();
    assert_eq!(measures(lines.join("\n")), forward);
}

#[test]
fn every_schema_gives_the_same_completions() {
    let answers = ["It is four.", "No, it's five."];
    let whole = |text: String, flags: &[&str]| {
        let records = tool().args(flags).stdin(text).output().expect(0).records();
        let row = entropies(&records)[0].clone();
        (
            row["h1"].clone(),
            row["sample_count"].clone(),
            row["token_count"].clone(),
        )
    };
    let expected = whole(rows(&answers), &[]);
    let forms: [fn(&str) -> Value; 7] = [
        |a| json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": a}]}),
        |a| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": [{"type": "text", "text": a}]}]}),
        |a| json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": a}]}),
        |a| json!({"instruction": "q", "input": "", "output": a}),
        |a| json!({"prompt": "q", "chosen": a, "rejected": "r"}),
        |a| json!({"text": a}),
        |a| json!({"question": "q", "response": a, "extra": 1}),
    ];
    for form in forms {
        let text: String = answers.iter().map(|answer| form(answer).to_string() + "\n").collect();
        assert_eq!(whole(text.clone(), &[]), expected, "{text}");
        let array = format!("[{}]", answers.map(|answer| form(answer).to_string()).join(","));
        assert_eq!(whole(array, &[]), expected);
    }
    let other: String = answers
        .iter()
        .map(|answer| json!({"reply": answer}).to_string() + "\n")
        .collect();
    assert_eq!(whole(other, &["--field", "reply"]), expected);
    assert_eq!(
        whole(
            format!("prompt,completion\nq,{}\nq,\"{}\"\n", answers[0], answers[1]),
            &["--input-format", "csv"]
        ),
        expected
    );
    assert_eq!(whole(answers.join("\n"), &["--input-format", "text"]), expected);
}

#[test]
fn both_counts_question_and_answer_as_two_samples_and_all_turns_every_turn() {
    let text = json!({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}, {"role": "assistant", "content": "e f g"}]}).to_string();
    let count = |flags: &[&str]| {
        let records = tool().args(flags).stdin(text.clone()).output().expect(0).records();
        let row = entropies(&records)[0].clone();
        (
            row["sample_count"].as_u64().unwrap(),
            row["token_count"].as_u64().unwrap(),
        )
    };
    assert_eq!(count(&[]), (1, 3));
    assert_eq!(count(&["--view", "prompt"]), (1, 1));
    assert_eq!(count(&["--view", "both"]), (2, 4));
    assert_eq!(count(&["--turns", "all"]), (2, 4));
    assert_eq!(count(&["--view", "both", "--turns", "all"]), (4, 7));
}

#[test]
fn bad_rows_are_refused_by_file_and_line_or_counted() {
    let directory = harness::temp_dir();
    let good = json!({"id": 1, "completion": "fine words", "s": "x"}).to_string();
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "field.jsonl",
            format!("{good}\n{}\n{good}\n", json!({"other": "x"})).into_bytes(),
            "line 2: no text found",
        ),
        (
            "utf8.jsonl",
            [
                good.as_bytes(),
                b"\n{\"completion\":\"\xff\"}\n",
                good.as_bytes(),
                b"\n",
            ]
            .concat(),
            "line 2: not UTF-8",
        ),
        (
            "empty.jsonl",
            format!("{good}\n{}\n{good}\n", json!({"completion": " "})).into_bytes(),
            "line 2: its completion is empty",
        ),
        (
            "mixed.jsonl",
            format!("{good}\n{}\n{good}\n", json!({"text": "x"})).into_bytes(),
            "schemas are mixed",
        ),
        (
            "json.jsonl",
            format!("{good}\n{{\"completion\":\n{good}\n").into_bytes(),
            "line 2: not JSON",
        ),
        (
            "type.jsonl",
            format!("{good}\n{}\n{good}\n", json!({"completion": 7})).into_bytes(),
            "line 2: key `completion` is a number",
        ),
    ];
    for (name, bytes, words) in cases {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let refused = tool().arg(&path).output().refused(3, words);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
        let partial = tool().arg("--keep-going").arg(&path).output().expect(6);
        let records = partial.records();
        assert_eq!(entropies(&records)[0]["sample_count"], 2, "{name}");
        let end = records.last().unwrap();
        assert_eq!(
            (&end["status"], &end["refused_row_count"]),
            (&json!("partial"), &json!(1)),
            "{name}"
        );
    }
    tool()
        .args(["--group", "s"])
        .stdin(rows(&["x"]))
        .output()
        .refused(3, "key `s` is missing");
    tool()
        .args(["--tokens", "no-such"])
        .stdin(rows(&["x"]))
        .output()
        .refused(3, "neither treebank, whitespace nor a file");
    tool()
        .args(["--tokens"])
        .arg(fixture("mix.jsonl"))
        .stdin(rows(&["x"]))
        .output()
        .refused(3, "is not a tokenizer.json");
    tool().arg("/nowhere/x.jsonl").output().refused(4, "/nowhere/x.jsonl");
    let cut = write(
        directory.path(),
        "cut.parquet",
        "PAR1 and then nothing that a footer would be",
    );
    tool().arg(&cut).output().refused(3, "cut.parquet");
    tool()
        .arg("merge")
        .arg(fixture("mix.jsonl"))
        .output()
        .refused(3, "mix.jsonl");
}

#[test]
fn a_line_without_end_is_refused_in_bounded_memory() {
    let directory = harness::temp_dir();
    let path = directory.path().join("long.jsonl");
    // A sparse gibibyte: one line of NUL bytes after a row.
    let file = fs::File::create(&path).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(b"{\"completion\":\"x\"}\n{\"completion\":\"", 0)
        .unwrap();
    file.set_len(1 << 30).unwrap();
    tool()
        .arg(&path)
        .output()
        .refused(3, "line 2: longer than 16777216 bytes");
}

#[test]
fn a_broken_bound_exits_1_and_names_the_group() {
    let mix = fixture("mix.jsonl");
    let failed = tool()
        .args([
            "--group",
            "source",
            "--fail-over",
            "template_coverage=0.9",
            "--fail-under",
            "h1=2",
        ])
        .arg(&mix)
        .output();
    assert_eq!(failed.code, 1);
    assert!(
        failed.stderr.contains("group safety: template_coverage is "),
        "{}",
        failed.stderr
    );
    assert!(!failed.stderr.contains("group general"), "{}", failed.stderr);
    tool()
        .args(["--group", "source", "--fail-under", "h1=2"])
        .arg(&mix)
        .output()
        .expect(0);
    tool()
        .args(["--fail-under", "hh=2"])
        .arg(&mix)
        .output()
        .refused(2, "is not a measure");
    let nested = tool()
        .args(["--at", "100", "--fail-under", "at.h1=30"])
        .arg(&mix)
        .output();
    assert_eq!(nested.code, 1);
}

#[test]
fn perplexity_comes_from_scored_records() {
    let score = |id: &str, log_prob: f64| {
        json!({"id": id, "prompt": "q", "completion": "four words of answer", "log_prob": log_prob, "token_count": 4})
            .to_string()
            + "\n"
    };
    let done = tool().stdin(score("a", -4.0) + &score("b", -8.0)).output().expect(0);
    let records = done.records();
    let perplexity = &entropies(&records)[0]["perplexity"];
    assert_eq!(perplexity["nll_mean_nats"], 1.5);
    assert!(close(&perplexity["mean"], (1f64.exp() + 2f64.exp()) / 2.0));
    assert!(close(&perplexity["max"], 2f64.exp()));
    tool()
        .stdin(score("a", 0.5))
        .output()
        .refused(3, "a log-probability is at most 0");
}

#[test]
fn the_table_shows_groups_and_what_they_repeat() {
    let done = tool()
        .args(["--format", "table", "--group", "source", "--at", "100"])
        .arg(fixture("mix.jsonl"))
        .output()
        .expect(0);
    for words in ["group", "H1", "safety", "general", "I 'm sorry", "at N tokens"] {
        assert!(done.text().contains(words), "{words} in {}", done.text());
    }
}

#[test]
fn a_plan_tells_what_would_be_done_and_reads_nothing() {
    let done = tool()
        .args(["--plan", "--lower", "/nowhere/x.jsonl"])
        .output()
        .expect(0);
    let plan: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!(plan["plan"]["corpus"]["tokens"]["kind"], "treebank");
    assert_eq!(plan["plan"]["corpus"]["tokens"]["fold"]["lower"], true);
}

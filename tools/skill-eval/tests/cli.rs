//! skill-eval as a process: prompts, scores, reports, refusals.

use std::path::{Path, PathBuf};

use harness::{Done, Run};
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_skill-eval"))
}

fn rows(done: &Done) -> Vec<Value> {
    String::from_utf8(done.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The rows between the marks.
fn body(done: &Done) -> Vec<Value> {
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut rows = rows(done);
    assert_eq!(rows.pop().unwrap()["type"], "end");
    assert_eq!(rows.remove(0)["type"], "begin");
    rows
}

fn refused(done: &Done, code: i32, cause: &str) {
    assert_eq!(done.code, code, "{}", done.stderr);
    assert!(
        done.stderr.starts_with("skill-eval: error: ") && done.stderr.contains(cause),
        "{}",
        done.stderr
    );
}

fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn score(rows: &[Value], args: &[&str]) -> Done {
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    tool().arg("score").args(args).stdin(input.into_bytes()).output()
}

#[test]
fn gsm8k_is_asked_after_eight_worked_examples_and_its_reference_is_the_number() {
    let directory = harness::temp_dir();
    let path = file(
        directory.path(),
        "test.jsonl",
        "{\"question\":\"How many?\",\"answer\":\"It is 1 + 1.\\n#### 1,002\"}\n",
    );
    let prompts = body(&tool().args(["prompts", "--bench", "gsm8k"]).arg(&path).output());
    let prompt = prompts[0]["prompt"].as_str().unwrap();
    assert!(
        prompt.starts_with("Q: There are 15 trees") && prompt.ends_with("The answer is 8.\n\nQ: How many?\nA:"),
        "{prompt}"
    );
    assert_eq!(prompt.matches("Q: ").count(), 9);
    assert_eq!(
        (prompts[0]["id"].as_str(), prompts[0]["reference"].as_str()),
        (Some("#0"), Some("1002"))
    );
    let bare = body(
        &tool()
            .args(["prompts", "--bench", "gsm8k", "--shots", "0"])
            .arg(&path)
            .output(),
    );
    assert_eq!(bare[0]["prompt"], "Q: How many?\nA:");
}

#[test]
fn mmlu_is_asked_by_its_letters_after_the_dev_questions_of_its_subject() {
    let directory = harness::temp_dir();
    let dev = "\"One, or\ntwo?\",1,2,3,4,A\nTwo?,1,2,3,4,B\n";
    file(directory.path(), "dev/high_school_physics_dev.csv", dev);
    let path = file(
        directory.path(),
        "test/high_school_physics_test.csv",
        "Three?,1,1,3,4,C\n",
    );
    let prompts = body(
        &tool()
            .args(["prompts", "--bench", "mmlu", "--shots", "2"])
            .arg(&path)
            .output(),
    );
    assert_eq!(
        prompts[0]["prompt"],
        "The following are multiple choice questions (with answers) about high school physics.\n\n\
         One, or\ntwo?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: A\n\nTwo?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n\
         Three?\nA. 1\nB. 1\nC. 3\nD. 4\nAnswer:"
    );
    assert_eq!(prompts[0]["choices"], json!([" A", " B", " C", " D"]));
    assert_eq!(
        (prompts[0]["reference"].as_str(), prompts[0]["subject"].as_str()),
        (Some("C"), Some("high_school_physics"))
    );
}

#[test]
fn a_subject_without_shots_is_refused_or_left_out_and_said() {
    let directory = harness::temp_dir();
    let table = "question,A,B,C,D,answer,subject\nq,1,2,3,4,0,law\n";
    let path = file(directory.path(), "questions.csv", table);
    let run = |extra: &[&str]| {
        tool()
            .args(["prompts", "--bench", "mmlu"])
            .args(extra)
            .arg(&path)
            .output()
    };
    refused(&run(&[]), 3, "law");
    let kept = run(&["--keep-going"]);
    assert_eq!(kept.code, 6);
    assert!(kept.stderr.contains("left out"), "{}", kept.stderr);
    assert_eq!(rows(&kept).last().unwrap()["status"], "partial");
    assert_eq!(body(&run(&["--shots", "0"])).len(), 1);
}

#[test]
fn wrong_columns_are_refused_by_name() {
    let directory = harness::temp_dir();
    let path = file(directory.path(), "x.csv", "a,b\n1,2\n");
    for bench in ["mmlu", "gsm8k", "humaneval"] {
        refused(
            &tool()
                .args(["prompts", "--bench", bench, "--shots", "0"])
                .arg(&path)
                .output(),
            3,
            "line 2",
        );
    }
    let path = file(directory.path(), "x.json", "{\"rows\":[]}");
    refused(
        &tool()
            .args(["prompts", "--bench", "bbh", "--shots", "0"])
            .arg(&path)
            .output(),
        3,
        "examples",
    );
}

#[test]
fn bbh_takes_the_published_examples_and_can_drop_their_reasoning() {
    let directory = harness::temp_dir();
    let cot = "canary\n-----\nDo it.\n\nQ: one\nA: Let's think step by step.\nSo the answer is (A).\n\nQ: two\nA: Let's think step by step.\nSo the answer is (B).\n";
    file(directory.path(), "cot-prompts/navigate.txt", cot);
    let path = file(
        directory.path(),
        "bbh/navigate.json",
        "{\"canary\":\"x\",\"examples\":[{\"input\":\"three\",\"target\":\"(C)\"}]}",
    );
    let ask = |args: &[&str]| {
        body(
            &tool()
                .args(["prompts", "--bench", "bbh"])
                .args(args)
                .arg(&path)
                .output(),
        )[0]["prompt"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        ask(&["--shots", "2"]),
        "Do it.\n\nQ: one\nA: Let's think step by step.\nSo the answer is (A).\n\nQ: two\nA: Let's think step by step.\nSo the answer is (B).\n\nQ: three\nA: Let's think step by step.\n"
    );
    assert_eq!(
        ask(&["--shots", "1", "--style", "direct"]),
        "Do it.\n\nQ: one\nA: (A)\n\nQ: three\nA:"
    );
    refused(
        &tool().args(["prompts", "--bench", "bbh"]).arg(&path).output(),
        3,
        "2 examples",
    );
}

#[test]
fn each_extractor_gives_a_row_with_the_span_it_read() {
    let text = "Natalia sold 48/2 = 24 clips. Altogether $1,072.00 in May.";
    let done = score(
        &[json!({"id": 1, "bench": "gsm8k", "completion": text, "reference": "1072"})],
        &[],
    );
    let scores = body(&done);
    let by = |name: &str| scores.iter().find(|row| row["extractor"] == name).unwrap();
    assert_eq!(by("strict")["read"], false);
    assert!(by("strict").get("correct").is_none(), "unread is not wrong");
    let flexible = by("flexible");
    assert_eq!(
        (&flexible["correct"], &flexible["answer"]),
        (&json!(true), &json!("1072"))
    );
    let span = flexible["span"].as_array().unwrap();
    assert_eq!(
        &text[span[0].as_u64().unwrap() as usize..span[1].as_u64().unwrap() as usize],
        "$1,072.00"
    );
}

#[test]
fn log_likelihoods_are_compared_as_they_are_and_per_character() {
    let row = json!({"id": "x", "bench": "mmlu", "reference": "B", "choices": [" yes", " certainly not"], "choice_log_prob": [-4.0, -8.0]});
    let scores = body(&score(&[row], &[]));
    assert_eq!(
        (&scores[0]["acc"], &scores[0]["acc_norm"], &scores[0]["answer"]),
        (&json!(false), &json!(true), &json!("A"))
    );
}

#[test]
fn rows_that_cannot_be_scored_are_refused_or_left_out_with_partial() {
    let good = json!({"id": 1, "bench": "gsm8k", "completion": "#### 2", "reference": "2"});
    for bad in [
        json!({"id": 2, "bench": "gsm8k", "completion": "x"}),
        json!({"id": 2, "bench": "nonsense", "completion": "x", "reference": "1"}),
        json!({"id": 2, "bench": "gsm8k", "reference": "1"}),
        json!({"id": 2, "completion": "x", "reference": "1"}),
        json!({"id": 1, "bench": "gsm8k", "completion": "twice", "reference": "1"}),
        json!({"id": 2, "bench": "mmlu", "choices": ["a"], "choice_log_prob": [1, 2], "reference": "A"}),
    ] {
        refused(&score(&[good.clone(), bad.clone()], &[]), 3, "stdin");
        let kept = score(&[bad.clone(), good.clone()], &["--keep-going"]);
        assert_eq!(kept.code, 6, "{bad}: {}", kept.stderr);
        assert!(!kept.stdout.is_empty());
    }
}

#[test]
fn records_of_other_types_are_passed_on_in_their_places() {
    let begin = json!({"type": "begin", "schema": "flowlens/1", "tool": "t", "version": "1"});
    let answer = json!({"type": "completion", "id": 1, "bench": "gsm8k", "completion": "#### 2", "reference": "2"});
    let end = json!({"type": "end", "row_count": 3, "status": "complete"});
    let (known, unknown) = (
        json!({"type": "verdict", "id": 7}),
        json!({"type": "note", "text": "kept"}),
    );
    let passed = body(&score(&[begin, known.clone(), answer, unknown.clone(), end], &[]));
    assert_eq!((passed.first(), passed.last()), (Some(&known), Some(&unknown)));
    assert_eq!(passed.len(), 2 + 3, "three extractors");
}

#[test]
fn an_answer_of_a_megabyte_is_read_in_time() {
    for text in [
        "9".repeat(1 << 20),
        "the answer is ".repeat(80_000),
        "\\boxed{".repeat(150_000),
        "(A) ".repeat(250_000),
        "####".repeat(260_000),
        "a\n".repeat(500_000),
    ] {
        for bench in ["gsm8k", "bbh", "mmlu"] {
            let start = std::time::Instant::now();
            let done = score(
                &[json!({"id": 1, "bench": bench, "completion": text, "reference": "(A)"})],
                &[],
            );
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert!(
                start.elapsed().as_secs() < 20,
                "{bench} took {:?} for {:?}…",
                start.elapsed(),
                &text[..14]
            );
        }
    }
}

#[test]
fn programs_of_a_model_are_refused_unless_they_are_allowed() {
    let row = json!({"id": "HumanEval/0", "bench": "humaneval", "prompt": "def f():\n", "completion": "    return 1\n", "entry_point": "f", "test": "def check(f):\n    assert f() == 1\n"});
    refused(&score(&[row], &[]), 2, "programs");
    // In a run, before the model is even looked at.
    let directory = harness::temp_dir();
    let path = file(
        directory.path(),
        "h.jsonl",
        "{\"task_id\":\"x\",\"prompt\":\"p\",\"entry_point\":\"f\",\"test\":\"t\"}\n",
    );
    refused(
        &tool()
            .args(["run", "--bench", "humaneval", "--model", "/nonexistent"])
            .arg(&path)
            .output(),
        2,
        "programs",
    );
}

#[test]
fn a_report_counts_unread_apart_and_pairs_two_models() {
    let scores = |corrects: &[Option<bool>]| -> String {
        corrects
            .iter()
            .enumerate()
            .map(|(id, correct)| {
                let mut row = json!({"type": "score", "id": id, "bench": "bbh", "task": if id % 2 == 0 { "a" } else { "b" }, "extractor": "flexible", "read": correct.is_some()});
                if let Some(correct) = correct {
                    row["correct"] = json!(correct);
                }
                format!("{row}\n")
            })
            .collect()
    };
    let directory = harness::temp_dir();
    let ours = file(
        directory.path(),
        "ours.jsonl",
        &scores(&[Some(true), Some(false), Some(true), None]),
    );
    let base = file(
        directory.path(),
        "base.jsonl",
        &scores(&[Some(false), Some(false), Some(false), Some(true)]),
    );
    let reports = body(&tool().arg("report").arg(&ours).arg("--vs").arg(&base).output());
    let whole = reports.iter().find(|report| report["task"] == "").unwrap();
    assert_eq!(
        (&whole["count"], &whole["correct_count"], &whole["unread_count"]),
        (&json!(4), &json!(2), &json!(1))
    );
    assert_eq!(
        (
            &whole["accuracy"],
            &whole["accuracy_all"],
            &whole["unread_by_all_count"]
        ),
        (&json!(2.0 / 3.0), &json!(0.5), &json!(1))
    );
    assert_eq!(
        (&whole["pair_count"], &whole["delta"], &whole["mcnemar_p"]),
        (&json!(3), &json!(2.0 / 3.0), &json!(0.5))
    );
    let low = whole["accuracy_low"].as_f64().unwrap();
    // Wilson, 2 of 4 at 95 %: 0.1500.
    assert!((low - 0.150_04).abs() < 1e-3, "{low}");
    let table = tool().arg("report").arg(&ours).args(["--format", "table"]).output();
    assert!(
        String::from_utf8(table.stdout)
            .unwrap()
            .lines()
            .nth(1)
            .unwrap()
            .contains("0.667")
    );
    refused(
        &tool()
            .arg("report")
            .arg(file(directory.path(), "none.jsonl", "{\"type\":\"prompt\",\"id\":1}\n"))
            .output(),
        3,
        "no score",
    );
}

#[test]
fn samples_logged_by_lm_evaluation_harness_are_scored_once_each() {
    let sample = |filter: &str| {
        json!({"doc_id": 7, "doc": {"question": "q", "answer": "x #### 18"}, "target": "x #### 18", "arguments": {"gen_args_0": {"arg_0": "Q: q\nA:", "arg_1": {}}},
            "resps": [[" It is $18."]], "filtered_resps": ["18"], "filter": filter, "exact_match": 1.0})
    };
    let scores = body(&score(
        &[sample("strict-match"), sample("flexible-extract")],
        &["--from", "lm-eval", "--bench", "gsm8k"],
    ));
    assert_eq!(scores.len(), 3);
    assert!(
        scores
            .iter()
            .filter(|score| score["extractor"] != "strict")
            .all(|score| score["correct"] == true && score["id"] == "7")
    );
    let mmlu = json!({"doc_id": 0, "doc": {"question": "q", "choices": ["a", "b"], "answer": 1, "subject": "law"}, "target": "1",
        "arguments": [["ctx", " A"], ["ctx", " B"]], "resps": [[["-2.0", "False"]], [["-1.0", "True"]]], "filter": "none"});
    let scores = body(&score(&[mmlu], &["--from", "lm-eval", "--bench", "mmlu"]));
    assert_eq!(
        (&scores[0]["acc"], &scores[0]["subject"]),
        (&json!(true), &json!("law"))
    );
}

#[test]
fn every_reference_solution_of_gsm8k_is_read_by_every_extractor() {
    let Some(path) = harness::data("gsm8k/test.jsonl") else {
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .enumerate()
        .map(|(id, line)| {
            let row: Value = serde_json::from_str(line).unwrap();
            let answer = row["answer"].as_str().unwrap();
            json!({"id": id, "bench": "gsm8k", "completion": answer, "reference": answer.rsplit("#### ").next().unwrap()})
        })
        .collect();
    let scores = body(&score(&answers, &[]));
    assert_eq!(scores.len(), 3 * 1319);
    let wrong: Vec<&Value> = scores.iter().filter(|score| score["correct"] != true).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}, first {:?}",
        wrong.len(),
        scores.len(),
        wrong[0]
    );
}

#[test]
fn every_target_of_bbh_is_read_back_from_the_sentence_that_announces_it() {
    let Some(tasks) = harness::data("bbh/bbh") else {
        return;
    };
    let mut answers = Vec::new();
    for entry in std::fs::read_dir(tasks).unwrap() {
        let path = entry.unwrap().path();
        let task: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (index, example) in task["examples"].as_array().unwrap().iter().enumerate() {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let target = example["target"].as_str().unwrap();
            for (style, text) in [
                (
                    "published",
                    format!("Step by step, 3 - 1 = 2. So the answer is {target}."),
                ),
                ("markdown", format!("Let us see.\n\n**Answer:** {target}\n")),
                ("latex", format!("Thus $\\boxed{{\\text{{{target}}}}}$.")),
            ] {
                // Brackets inside braces are no answer in LaTeX.
                if style == "latex" && name == "dyck_languages" {
                    continue;
                }
                answers.push(json!({"id": format!("{name}/{index}/{style}"), "bench": "bbh", "task": name, "prompt": example["input"], "completion": text, "reference": target}));
            }
        }
    }
    let scores = body(&score(&answers, &[]));
    let wrong: Vec<&Value> = scores
        .iter()
        .filter(|score| score["extractor"] == "flexible" && score["correct"] != true)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}, first {}",
        wrong.len(),
        answers.len(),
        wrong[0]
    );
    let published =
        |score: &&Value| score["extractor"] == "strict" && score["id"].as_str().unwrap().ends_with("published");
    let wrong = scores
        .iter()
        .filter(published)
        .filter(|score| score["correct"] != true)
        .count();
    assert_eq!(wrong, 0, "strict reads the published form");
}

#[test]
fn a_line_without_end_is_refused_at_the_limit() {
    let endless = vec![b'y'; 40 << 20];
    let done = tool()
        .args(["score", "--bench", "gsm8k", "--input-format", "jsonl"])
        .stdin(endless)
        .output();
    refused(&done, 3, "longer than 16777216 bytes");
}

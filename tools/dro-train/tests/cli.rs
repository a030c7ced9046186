//! dro-train as a process: questions under conditions; a soft prompt from answers and verdicts, its records, resumption, bad input.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Run, TempDir, temp_dir, wait, worded_model};
use serde_json::{Value, json};

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'system' %}t3 {{ m.content }} t4 {% else %}t5 {{ m.content }} t6 {% endif %}\
                        {% endfor %}t7";

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_dro-train"))
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| row.to_string() + "\n").collect()
}

/// A model, answers of it and verdicts on them.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: temp_dir() };
        worded_model("llama", &bench.path("model"));
        std::fs::write(bench.path("model/chat_template.jinja"), TEMPLATE).expect("a template");
        bench.answer(&["unsafe", "safe"]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Six questions of each label under two conditions, three answers each: harmful ones are refused, of harmless ones the first answer.
    fn answer(&self, labels: &[&str]) {
        let (mut answers, mut verdicts) = (Vec::new(), Vec::new());
        for (kind, label) in labels.iter().enumerate() {
            for (at, condition) in (0..6).flat_map(|at| [(at, 0), (at, 1)]) {
                for attempt in 0..3 {
                    let (id, bench) = (format!("{label}/{at}"), format!("dro-{condition}"));
                    let asks = format!("t{} t{}", 20 + 10 * kind, 30 + at);
                    let mut answer = json!({"type": "completion", "id": id, "bench": bench, "label": label, "prompt": asks,
                        "attempt_index": attempt, "completion": "one\ntwo\nthree", "token_count": 3 + attempt});
                    if condition == 1 {
                        answer["system"] = "t15 t16".into();
                    }
                    answers.push(answer);
                    let complies = *label == "safe" && attempt > 0;
                    verdicts.push(json!({"type": "verdict", "id": id, "bench": bench, "attempt_index": attempt, "judge": "flowlens",
                        "verdict": if complies { "compliance" } else { "refusal" }}));
                }
            }
        }
        std::fs::write(self.path("answers.jsonl"), lines(answers)).expect("answers");
        std::fs::write(self.path("verdicts.jsonl"), lines(verdicts)).expect("verdicts");
    }

    fn learn(&self, out: &str, flags: &[&str]) -> Run {
        let run = tool().arg("learn").arg("--model").arg(self.path("model"));
        let run = run.arg("--verdicts").arg(self.path("verdicts.jsonl"));
        let run = run
            .args(["--system", "t10 t11 t12", "--batch-size", "4", "-o"])
            .arg(self.path(out));
        run.arg(self.path("answers.jsonl")).args(flags)
    }
}

fn of_type<'r>(records: &'r [Value], kind: &str) -> Vec<&'r Value> {
    records.iter().filter(|row| row["type"] == kind).collect()
}

#[test]
fn questions_are_asked_under_four_system_messages() {
    let dir = temp_dir();
    let write = |name: &str, word: &str| {
        let path = dir.path().join(name);
        std::fs::write(
            &path,
            lines((0..5).map(|at| json!({"id": at, "question": format!("{word} {at}")}))),
        )
        .expect("questions");
        path
    };
    let run = tool()
        .arg("prompts")
        .arg("--harmful")
        .arg(write("harmful.jsonl", "harm"));
    let run = run.arg("--harmless").arg(write("harmless.jsonl", "help"));
    let records = run
        .args(["--field", "question", "--per-kind", "3"])
        .output()
        .expect(0)
        .records();
    let prompts = of_type(&records, "prompt");
    assert_eq!(prompts.len(), 2 * 3 * 4);
    let benches: Vec<&Value> = prompts.iter().step_by(6).map(|row| &row["bench"]).collect();
    assert_eq!(
        json!(benches),
        json!(["dro-none", "dro-default", "dro-short", "dro-mistral"])
    );
    let none = prompts.iter().filter(|row| row.get("system").is_none()).count();
    let harmful = prompts.iter().filter(|row| row["label"] == "unsafe").count();
    assert_eq!((none, harmful), (6, 12));
    assert!(
        prompts
            .iter()
            .all(|row| (row["label"] == "unsafe") == row["prompt"].as_str().unwrap().starts_with("harm"))
    );
}

#[test]
fn a_soft_prompt_is_learned_and_every_stage_stands_in_the_records() {
    let bench = Bench::new();
    let records = bench
        .learn("soft.safetensors", &["--epochs", "3"])
        .output()
        .expect(0)
        .records();
    let anchors = of_type(&records, "anchor");
    assert_eq!(anchors.len(), 24);
    for anchor in anchors {
        let wanted = if anchor["label"] == "safe" { 2.0 / 3.0 } else { 0.0 };
        assert!((anchor["target"].as_f64().unwrap() - wanted).abs() < 1e-12, "{anchor}");
    }
    assert_eq!(of_type(&records, "anchor_space")[0]["evr"].as_array().unwrap().len(), 4);
    assert_eq!(of_type(&records, "head").len(), 2 * 10);
    let steps = of_type(&records, "dro_step");
    assert_eq!(steps.len(), 9);
    for loss in ["loss_refusal", "loss_harmfulness"] {
        assert!((steps[0][loss].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-9);
    }
    assert_eq!(steps[0]["loss_distance"], 0.0);
    assert!(steps[8]["loss_distance"].as_f64().unwrap() > 0.0);
    assert_eq!(of_type(&records, "shift").len(), 2);
    assert_eq!(records.last().unwrap()["status"], "complete");
    assert!(!bench.path(".soft.safetensors.state").exists());
    // the same call gives the same bytes, and a finished one is left as it is
    bench
        .learn("again.safetensors", &["--epochs", "3", "--threads", "1"])
        .output()
        .expect(0);
    let bytes = |name: &str| std::fs::read(bench.path(name)).expect("a soft prompt");
    assert_eq!(bytes("soft.safetensors"), bytes("again.safetensors"));
    assert_eq!(
        bench
            .learn("soft.safetensors", &["--epochs", "3", "--resume"])
            .output()
            .expect(0)
            .text(),
        ""
    );
    let other = bench.learn("soft.safetensors", &["--epochs", "4", "--resume"]).output();
    other.refused(5, "another plan: epochs: was 3, is 4");
    bench
        .learn("soft.safetensors", &["--epochs", "3"])
        .output()
        .refused(5, "exists");
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bytes() {
    let bench = Bench::new();
    let flags = ["--epochs", "120"];
    let whole = bench.learn("whole.safetensors", &flags).output().expect(0);
    let mut child = bench.learn("cut.safetensors", &flags).spawn();
    let (state, start) = (bench.path(".cut.safetensors.state"), Instant::now());
    while !state.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killing");
    wait(&mut child, Duration::from_secs(10));
    assert!(
        state.exists() && !bench.path("cut.safetensors").exists(),
        "it was cut in its midst"
    );
    bench
        .learn("cut.safetensors", &flags)
        .output()
        .refused(5, "not finished");
    bench
        .learn("cut.safetensors", &["--epochs", "121", "--resume"])
        .output()
        .refused(5, "another plan");
    let rest = bench
        .learn("cut.safetensors", &["--epochs", "120", "--resume"])
        .output()
        .expect(0);
    assert_eq!(rest.text(), whole.text());
    let bytes = |name: &str| std::fs::read(bench.path(name)).expect("a soft prompt");
    assert_eq!(bytes("whole.safetensors"), bytes("cut.safetensors"));
}

#[test]
fn the_plan_says_what_will_be_done() {
    let bench = Bench::new();
    let plan = bench.learn("soft.safetensors", &["--plan"]).output().expect(0);
    let plan: Value = serde_json::from_str(plan.text()).expect("a plan");
    let found = ["row_count", "anchor_count", "query_count", "step_count", "batch_size"].map(|key| &plan[key]);
    assert_eq!(json!(found), json!([3, 24, 12, 120, 4]));
    assert!(!bench.path("soft.safetensors").exists());
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let bench = Bench::new();
    bench.answer(&["safe"]);
    bench.learn("x", &[]).output().refused(3, "no harmful question");
    bench.answer(&["unsafe", "other"]);
    bench.learn("x", &[]).output().refused(3, "no label `safe` or `unsafe`");
    bench.answer(&["unsafe", "safe"]);
    bench
        .learn("x", &["--judge", "nobody"])
        .output()
        .refused(3, "no verdict of the judge");
    bench.learn("x", &["--lr", "0"]).output().refused(2, "--lr");
    let verdicts = std::fs::read_to_string(bench.path("verdicts.jsonl")).expect("verdicts");
    std::fs::write(bench.path("verdicts.jsonl"), verdicts.split_once('\n').unwrap().1).expect("verdicts");
    bench.learn("x", &[]).output().refused(3, "id unsafe/0: has no verdict");
    std::fs::write(bench.path("verdicts.jsonl"), verdicts.replace("refusal", "nonsense")).expect("verdicts");
    bench
        .learn("x", &[])
        .output()
        .refused(3, "not one answer could be judged");
    std::fs::write(bench.path("verdicts.jsonl"), verdicts).expect("verdicts");
    let flat = bench.path("flat.jinja");
    std::fs::write(
        &flat,
        "{% for m in messages if m.role != 'system' %}{{ m.content }} {% endfor %}t7",
    )
    .expect("a template");
    let flat = flat.display().to_string();
    bench
        .learn("x", &["--template", &flat])
        .output()
        .refused(3, "has no place for a system message");
    std::fs::remove_file(bench.path("model/chat_template.jinja")).expect("removing");
    bench.learn("x", &[]).output().refused(3, "has no chat template");
}

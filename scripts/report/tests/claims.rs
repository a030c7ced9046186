//! `report claims`, on runs whose numbers are made so that the answers are known.

use std::fs;
use std::path::Path;

use harness::{Run, temp_dir};
use serde_json::{Value, json};

const SEEDS: [u64; 3] = [1, 2, 3];
const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

fn name(arm: &str, share: f64, seed: u64) -> String {
    format!("{arm}-{share:?}-seed-{seed}")
}

/// False refusals rise with the share, alignment falls, concentration is the seed's alone.
fn run(arm: &str, share: f64, seed: u64, skill: f64) -> Value {
    let mut row = json!({"type": "run", "run": name(arm, share, seed), "arm": arm, "share": share, "seed": seed, "k": 4, "gamma": 5.0,
        "window": "0.3-0.5", "stack_c_k": 0.6 + 0.01 * seed as f64, "window_c_k": 0.2 + 0.001 * seed as f64,
        "alignment_id": 1.0 - 0.2 * share, "benches": {"xstest": {"false_refusal": 0.1 + 0.5 * share + 0.01 * seed as f64}},
        "skills": {"mmlu": {"extractor": "letter", "accuracy": skill, "count": 10_000}}});
    if arm != "share" {
        row["sign"] = arm.into();
        row["window_c_k"] = 0.1.into();
    }
    row
}

/// Of 100 safe prompts the first so many are refused; those of another benchmark, judge or label, and those that were not judged, count nothing.
fn verdicts(directory: &Path, run: &str, refused: usize) {
    let verdict = |id: usize, bench: &str, judge: &str, label: &str, refused: bool| {
        let class = if refused { "refusal" } else { "compliance" };
        json!({"type": "verdict", "id": id.to_string(), "bench": bench, "judge": judge, "label": label, "verdict": class})
    };
    let asked = (0..100).map(|id| verdict(id, "xstest", "flowlens", "safe", id < refused));
    let others = [
        ("other", "flowlens", "safe"),
        ("xstest", "prefix", "safe"),
        ("xstest", "flowlens", "unsafe"),
    ];
    let others = others.map(|(bench, judge, label)| verdict(7, bench, judge, label, true));
    let unscored = (100..200).map(|id| {
        let mut row = verdict(id, "xstest", "flowlens", "safe", false);
        row["verdict"] = "unscored".into();
        row
    });
    write(
        &directory.join(format!("{run}.jsonl")),
        asked.chain(others).chain(unscored),
    );
}

fn write(path: &Path, rows: impl IntoIterator<Item = Value>) {
    let text: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
    fs::write(path, text).expect("a file of records");
}

fn claims(directory: &Path, runs: &[Value], [safety, general]: [Value; 2]) -> Vec<Value> {
    write(&directory.join("runs.jsonl"), runs.to_vec());
    write(&directory.join("safety.jsonl"), [safety]);
    write(&directory.join("general.jsonl"), [general]);
    let done = Run::new(env!("CARGO_BIN_EXE_report"))
        .args([
            "claims",
            "runs.jsonl",
            "--verdicts",
            ".",
            "--safety",
            "safety.jsonl",
            "--general",
            "general.jsonl",
        ])
        .current_dir(directory)
        .output()
        .expect(0);
    done.records()
        .into_iter()
        .filter(|row| row["type"] == "claim")
        .collect()
}

fn entropy(h1: f64, msttr: f64) -> Value {
    json!({"type": "entropy", "group": "", "sample_count": 9, "at": {"h1": h1, "h2": h1 + 3.0, "msttr": msttr, "distinct_2": msttr}})
}

fn plain_runs() -> Vec<Value> {
    SEEDS
        .iter()
        .flat_map(|&seed| SHARES.map(|share| run("share", share, seed, 0.3)))
        .collect()
}

#[test]
fn claims_are_judged_by_the_runs_that_there_are() {
    let directory = temp_dir();
    let mut runs = plain_runs();
    for seed in SEEDS {
        runs.push(run("spread", 0.5, seed, 0.31));
        verdicts(directory.path(), &name("share", 0.5, seed), 50);
        verdicts(directory.path(), &name("spread", 0.5, seed), 20);
    }
    let data = [entropy(8.0, 0.7), entropy(9.0, 0.8)];
    let claims = claims(directory.path(), &runs, data);
    let of = |claim: u64| {
        claims
            .iter()
            .find(|row| row["claim"] == claim)
            .expect("every claim has a row")
    };
    let verdict = |claim| of(claim)["verdict"].as_str().expect("a verdict");
    assert_eq!(verdict(1), "confirmed");
    assert_eq!(of(1)["estimate"], -1.0);
    assert_eq!((verdict(2), of(2)["run_count"].as_u64()), ("confirmed", Some(15)));
    assert_eq!((verdict(3), of(3)["run_count"].as_u64()), ("confirmed", Some(12)));
    assert_eq!((verdict(4), of(4)["estimate"].as_f64()), ("undecided", Some(0.0)));
    assert_eq!(verdict(7), "confirmed");
    assert!((of(7)["estimate"].as_f64().expect("a number") + 0.3).abs() < 1e-12);
    assert_eq!((verdict(8), of(8).get("estimate")), ("not-run", None));
    assert_eq!(verdict(9), "confirmed");
    for claim in [2, 3, 4, 7] {
        let (p, corrected) = (of(claim)["p"].as_f64(), of(claim)["p_holm"].as_f64());
        assert!(
            p.zip(corrected).is_some_and(|(p, corrected)| p <= corrected),
            "{}",
            of(claim)
        );
    }
}

/// The entropies are lower, but the type-token ratio is not.
#[test]
fn repetition_is_claimed_of_all_four_measures() {
    let directory = temp_dir();
    let data = [entropy(8.0, 0.9), entropy(9.0, 0.8)];
    let claims = claims(directory.path(), &plain_runs(), data);
    assert_eq!(
        (&claims[0]["estimate"], &claims[0]["verdict"]),
        (&json!(-1.0), &json!("not-confirmed"))
    );
}

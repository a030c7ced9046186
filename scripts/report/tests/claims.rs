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
        "held_out_loss": 1.2, "skills": {"mmlu": {"extractor": "letter", "accuracy": skill, "count": 10_000}}});
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
    claims_with(directory, runs, [safety, general], &[])
}

/// With records of the geometry, by flag and file.
fn claims_with(
    directory: &Path,
    runs: &[Value],
    [safety, general]: [Value; 2],
    measured: &[(&str, &str)],
) -> Vec<Value> {
    write(&directory.join("runs.jsonl"), runs.to_vec());
    write(&directory.join("safety.jsonl"), [safety]);
    write(&directory.join("general.jsonl"), [general]);
    let done = Run::new(env!("CARGO_BIN_EXE_report"))
        .args(["claims", "runs.jsonl", "--verdicts", "."])
        .args(["--safety", "safety.jsonl", "--general", "general.jsonl"])
        .args(measured.iter().flat_map(|(flag, file)| [flag, file]))
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

#[test]
fn a_run_has_no_part_in_what_was_not_measured_of_it() {
    let directory = temp_dir();
    let mut runs = plain_runs();
    for (at, measure) in [(1, "alignment_id"), (2, "stack_c_k"), (3, "stack_c_k")] {
        runs[at]
            .as_object_mut()
            .expect("a run")
            .remove(measure)
            .expect("a measure");
    }
    let data = [entropy(8.0, 0.7), entropy(9.0, 0.8)];
    let claims = claims(directory.path(), &runs, data);
    let run_count = |claim: usize| claims[claim - 1]["run_count"].as_u64();
    assert_eq!([2, 3, 4, 5].map(run_count), [Some(15), Some(11), Some(13), Some(15)]);
    assert_eq!(claims[2]["verdict"], "confirmed");
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

/// Of 40 prompts, the unsafe half: each prompt's own measure is `safe` or `harmful`, and a little more with its number.
fn of_prompts(safe: f64, harmful: f64, row: impl Fn(usize, f64) -> Value) -> Vec<Value> {
    (0..40)
        .map(|id| {
            row(
                id,
                0.001 * id as f64 + if id.is_multiple_of(2) { safe } else { harmful },
            )
        })
        .collect()
}

fn write_geometry(directory: &Path) {
    let prompt = |id: usize, _| {
        let label = if id.is_multiple_of(2) { "safe" } else { "unsafe" };
        json!({"type": "prompt", "id": id.to_string(), "bench": "xstest", "label": label, "prompt": "?"})
    };
    let path = |component: &'static str| {
        move |id: usize, ratio: f64| {
            json!({"type": "trajectory", "id": id.to_string(), "component": component, "basis": "own", "layer_index": [0],
                "projection": [0.0], "center3": [[0.0]], "smoothness_ratio": ratio})
        }
    };
    write(&directory.join("prompts.jsonl"), of_prompts(0.0, 0.0, prompt));
    let paths = of_prompts(0.5, 0.7, path("1"));
    write(
        &directory.join("paths.jsonl"),
        paths.into_iter().chain(of_prompts(9.0, 0.0, path("id"))),
    );
    let layer = |index: usize, correlation: f64| json!({"type": "stability", "layer_index": index, "pc1_correlation": correlation, "cosine_mean": 0.5, "cosine_mean_b": 0.5});
    let profile = json!({"type": "stability_profile", "prompt_count": 450, "correlation": 0.99});
    write(
        &directory.join("stability.jsonl"),
        [layer(0, 0.99), layer(1, 0.4), profile],
    );
    let scored = |id: usize, log_perplexity: f64| json!({"type": "completion", "id": id.to_string(), "prompt": "?", "completion": "!", "log_prob": -10.0 * log_perplexity, "token_count": 10});
    let heavy = [scored(99, 9.0)];
    write(
        &directory.join("scored-safety.jsonl"),
        of_prompts(1.0, 1.0, scored).into_iter().chain(heavy),
    );
    write(&directory.join("scored-general.jsonl"), of_prompts(7.0, 7.0, scored));
    let region = |model: &'static str, group: &'static str| {
        move |id: usize, slope: f64| {
            json!({"type": "region", "id": id.to_string(), "id_a": "", "id_b": "", "group": group, "model_digest": model, "layer_index": 0,
                "read": "post-norm", "read_layer_index": 1, "path_kind": "linear", "distance": "l2", "alpha": [0.0, 1.0],
                "curve": [0.0, 1.0], "max_slope": slope, "max_slope_alpha": 0.5, "end_distance": 1.0, "delta_norm": 1.0,
                "token_id_a": 0, "token_id_b": 1})
        }
    };
    let models = [region("base", ""), region("tuned", ""), region("other", "")];
    let slopes = [[2.0, 2.0], [2.6, 2.6], [9.0, 9.0]];
    let regions = models.into_iter().zip(slopes);
    let rows = regions.flat_map(|(model, [one, other])| of_prompts(one, other, model));
    write(&directory.join("regions.jsonl"), rows);
}

#[test]
fn geometry_and_likelihoods_are_tested_from_the_records_of_the_tools() {
    let directory = temp_dir();
    write_geometry(directory.path());
    let measured = [
        ("--paths", "paths.jsonl"),
        ("--prompts", "prompts.jsonl"),
        ("--stability", "stability.jsonl"),
        ("--scored-safety", "scored-safety.jsonl"),
        ("--scored-general", "scored-general.jsonl"),
        ("--regions", "regions.jsonl"),
    ];
    let data = [entropy(8.0, 0.7), entropy(9.0, 0.8)];
    let claims = claims_with(directory.path(), &plain_runs(), data, &measured);
    let numbers: Vec<u64> = claims.iter().filter_map(|row| row["claim"].as_u64()).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    let of = |claim: usize| &claims[claim - 1];
    let estimate = |claim| of(claim)["estimate"].as_f64().expect("a number");
    assert_eq!(of(6)["verdict"], "confirmed");
    assert!((estimate(6) - 0.201).abs() < 1e-12, "{}", of(6));
    assert_eq!((&of(10)["verdict"], estimate(10)), (&json!("not-confirmed"), 0.4));
    assert_eq!(of(11)["verdict"], "confirmed");
    assert_eq!(of(12)["verdict"], "confirmed");
    assert!((estimate(12) - (2.6195 / 2.0195 - 1.0)).abs() < 1e-12, "{}", of(12));
}

/// Skill stays, and the loss on held-out rows does not.
#[test]
fn any_two_ways_of_training_are_compared_by_their_verdicts() {
    let directory = temp_dir();
    for seed in SEEDS {
        verdicts(directory.path(), &name("share", 0.5, seed), 50);
        verdicts(directory.path(), &name("slower", 0.5, seed), 40);
    }
    let files = |arm: &str, seeds: &[u64]| -> Vec<String> {
        seeds
            .iter()
            .map(|&seed| format!("{}.jsonl", name(arm, 0.5, seed)))
            .collect()
    };
    let compare = |after: &[u64], bench: &str| {
        Run::new(env!("CARGO_BIN_EXE_report"))
            .args(["change", "--bench", bench, "--before"])
            .args(files("share", &SEEDS))
            .arg("--after")
            .args(files("slower", after))
            .current_dir(directory.path())
            .output()
    };
    let found = compare(&SEEDS, "xstest").expect(0).records();
    let change = found.iter().find(|row| row["type"] == "change").expect("a change");
    assert_eq!(change["run_count"], 6);
    assert!((change["estimate"].as_f64().unwrap() + 0.1).abs() < 1e-12, "{change}");
    assert!(
        change["low"].as_f64().unwrap() > -0.2 && change["high"].as_f64().unwrap() < -0.02,
        "{change}"
    );
    assert!(
        compare(&[1, 2], "xstest")
            .expect(2)
            .stderr
            .contains("2 files, beside 3")
    );
    assert!(compare(&SEEDS, "nothing").expect(3).stderr.contains("no safe prompts"));
}

#[test]
fn ability_is_kept_only_where_held_out_loss_is_too() {
    let directory = temp_dir();
    let mut runs = plain_runs();
    for seed in SEEDS {
        let mut cured = run("spread", 0.5, seed, 0.3);
        cured["held_out_loss"] = 1.3.into();
        runs.push(cured);
        verdicts(directory.path(), &name("share", 0.5, seed), 50);
        verdicts(directory.path(), &name("spread", 0.5, seed), 20);
    }
    let claims = claims(directory.path(), &runs, [entropy(8.0, 0.7), entropy(9.0, 0.8)]);
    assert_eq!(claims[8]["verdict"], "not-confirmed", "{}", claims[8]);
}

/// The tables of a write-up say what the records say, a run in a line, without the loss first.
#[test]
fn a_write_up_has_a_line_for_each_claim_and_each_run() {
    let directory = temp_dir();
    let mut runs = plain_runs();
    runs.insert(0, run("spread", 0.5, 1, 0.3));
    verdicts(directory.path(), &name("share", 0.5, 1), 50);
    verdicts(directory.path(), &name("spread", 0.5, 1), 20);
    let claims = claims(directory.path(), &runs, [entropy(8.0, 0.7), entropy(9.0, 0.8)]);
    write(&directory.path().join("claims.jsonl"), claims);
    let done = Run::new(env!("CARGO_BIN_EXE_report"))
        .args(["markdown", "runs.jsonl", "--claims", "claims.jsonl"])
        .current_dir(directory.path())
        .output()
        .expect(0);
    let lines: Vec<&str> = done.text().lines().collect();
    assert!(
        lines[2].starts_with("| 1 | safety data is more repetitive"),
        "{}",
        lines[2]
    );
    assert!(lines[2].contains("| -1 | – | -0.5 | confirmed |"), "{}", lines[2]);
    assert!(lines[9].ends_with("| not run |"), "{}", lines[9]);
    let of_runs = &lines[lines.len() - 16..];
    assert!(of_runs[0].starts_with("| share-0.0-seed-1 | 0.11 ["), "{}", of_runs[0]);
    assert!(
        of_runs[15].starts_with("| spread-0.5-seed-1 | 0.36 ["),
        "{}",
        of_runs[15]
    );
    let cells = |line: &str| line.matches('|').count();
    assert!(
        lines
            .iter()
            .filter(|line| !line.is_empty())
            .all(|line| [8, 11].contains(&cells(line)))
    );
}

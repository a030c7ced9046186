//! The program as a process, on records of a few lines.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Done, Run, temp_dir};
use serde_json::{Value, json};

fn report(args: &[&str]) -> Run {
    Run::new(env!("CARGO_BIN_EXE_report")).args(args)
}

fn file(directory: &Path, name: &str, rows: &[Value]) -> PathBuf {
    let path = directory.join(name);
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(&path, text).expect("a file of records");
    path
}

#[test]
fn settings_are_written_once_and_held_to() {
    let directory = temp_dir();
    let path = directory.path().join("settings.json");
    let write = |share: &str| report(&["settings", "arm=spread", share, "-o"]).arg(&path).output();
    write("share=0.0").expect(0);
    let written: Value = serde_json::from_slice(&fs::read(&path).expect("the settings")).expect("JSON");
    assert_eq!(written, json!({"arm": "spread", "share": 0.0}));
    write("share=0.0").expect(0);
    write("share=0.5").refused(5, "other settings: share: was 0.0, is 0.5");
    report(&["settings", "arm", "-o", "x"])
        .output()
        .refused(2, "NAME=VALUE");
}

/// Of one run, whose records hold more than a summary takes: of all of them, or `without` some.
fn summary(directory: &Path, without: &[&str]) -> Value {
    let settings = json!({"run": "spread-0.9-seed-42", "arm": "spread", "share": 0.9, "seed": 42, "k": 4, "gamma": 50,
        "window": "0.3-0.5", "sign": "spread"});
    let metric = |step: u64, loss: f64| {
        json!({"type": "metric", "step": step, "loss": loss, "loss_total": loss, "loss_token_count": 1, "token_count": 1, "lr": 0.1,
            "grad_norm": 1.0, "aux": {"vcl": {"k": 4, "gamma": 50.0, "sign": "spread", "c_k": 0.5, "row_count": 1, "loss": 0.0}}})
    };
    let metrics: Vec<Value> = (1..=21)
        .map(|step| metric(step, if step == 1 { 900.0 } else { 2.0 }))
        .collect();
    let rates = |judge: &str, label: &str, rate: f64| {
        json!({"type": "refusal_report", "bench": "world", "judge": judge, "kind": "all", "label": label, "count": 10,
            "compliance_count": 5, "partial_count": 1, "refusal_count": 4, "unscored_count": 0, "refusal_rate_full_low": 0.0,
            "refusal_rate_full_high": 1.0, "refusal_rate_any": rate, "refusal_rate_any_low": 0.0, "refusal_rate_any_high": 1.0,
            "false_refusal": 0.25, "false_refusal_low": 0.1, "false_refusal_high": 0.4})
    };
    let pair = |judge: &str, label: &str, delta: f64| {
        json!({"type": "refusal_pair", "bench": "world", "judge": judge, "label": label, "delta": delta, "delta_low": -1.0,
            "delta_high": 1.0, "mcnemar_p": 0.5})
    };
    let skill = |extractor: &str, task: &str, accuracy: f64| {
        json!({"type": "skill_report", "bench": "world", "task": task, "subject": "", "extractor": extractor, "count": 8,
            "correct_count": 4, "unread_count": 0, "unread_share": 0.0, "accuracy_low": 0.0, "accuracy_high": 1.0, "accuracy_all": accuracy})
    };
    let compare = |layer: Option<u64>, component: &str, alignment: f64| {
        let mut row = json!({"type": "compare", "component": component, "alignment": alignment, "alignment_id": 0.7, "angles": []});
        if let Some(layer) = layer {
            row["layer_index"] = layer.into();
        }
        row
    };
    let stack = |group: &str, c_k: Value| {
        json!({"type": "stack", "site": "resid_post", "group": group, "layout": "paper", "center": "global", "row_count": 3,
            "eigenvalues": [], "c_k": c_k})
    };
    let geometry = [
        stack("safe", json!({"4": 0.9})),
        stack("", json!({"1": 0.2, "4": 0.6})),
        compare(Some(0), "1", 0.1),
        compare(None, "1", 0.8),
    ];
    let refusals = [
        rates("flowlens", "unsafe", 0.9),
        rates("flowlens", "safe", 0.2),
        rates("flowlens", "all", 0.5),
        rates("prefix", "safe", 0.1),
    ];
    let skills = [
        skill("first", "", 0.5),
        skill("second", "", 0.6),
        skill("first", "sums", 0.1),
    ];
    let pairs = [
        pair("flowlens", "unsafe", -0.7),
        pair("flowlens", "safe", -0.125),
        pair("prefix", "safe", 0.5),
    ];
    let files: [(&str, &[Value]); 6] = [
        ("settings", &[settings]),
        ("metrics", &metrics),
        ("geometry", &geometry),
        ("refusals", &refusals),
        ("skills", &skills),
        ("pairs", &pairs),
    ];
    let given = files.into_iter().filter(|(name, _)| !without.contains(name));
    let done = given
        .fold(report(&["summary"]), |command, (name, rows)| {
            command.arg(format!("--{name}")).arg(file(directory, name, rows))
        })
        .output()
        .expect(0);
    done.records().remove(0)
}

#[test]
fn a_summary_takes_the_last_steps_the_whole_stack_and_the_first_judge_and_extractor() {
    let directory = temp_dir();
    let run = summary(directory.path(), &[]);
    assert_eq!(
        (&run["run"], &run["share"]),
        (&json!("spread-0.9-seed-42"), &json!(0.9))
    );
    assert_eq!((&run["loss"], &run["window_c_k"]), (&json!(2.0), &json!(0.5)));
    assert_eq!((&run["stack_c_k"], &run["alignment"]), (&json!(0.6), &json!(0.8)));
    let bench = &run["benches"]["world"];
    assert_eq!((&bench["safe"], &bench["unsafe"]), (&json!(0.2), &json!(0.9)));
    assert_eq!(
        run["skills"]["world"],
        json!({"extractor": "first", "accuracy": 0.5, "count": 8})
    );
}

#[test]
fn the_change_of_false_refusals_is_that_of_safe_prompts_wherever_they_stand() {
    let directory = temp_dir();
    assert_eq!(
        summary(directory.path(), &[])["benches"]["world"]["change"]["delta"],
        -0.125
    );
}

#[test]
fn a_measure_that_was_not_taken_stays_away_and_the_others_are_the_same() {
    let directory = temp_dir();
    let mut whole = summary(directory.path(), &[]);
    let part = summary(directory.path(), &["geometry", "skills", "pairs"]);
    let taken = whole.as_object_mut().unwrap();
    for name in ["stack_c_k", "alignment", "alignment_id"] {
        assert!(taken.remove(name).is_some(), "{name}");
    }
    taken["skills"] = json!({});
    assert!(
        taken["benches"]["world"]
            .as_object_mut()
            .unwrap()
            .remove("change")
            .is_some()
    );
    assert_eq!(whole, part);
}

/// A page of runs whose false refusals are twice their share, with the loss or without.
fn page(directory: &Path, delta: f64) -> Done {
    let run = |arm: &str, share: f64, seed: u64, loss: f64| {
        let mut bench =
            json!({"false_refusal": 2.0 * share, "false_refusal_low": 0.1, "false_refusal_high": 0.9, "unsafe": 1.0});
        if arm != "share" {
            bench["change"] = json!({"delta": delta, "delta_low": -0.3, "delta_high": 0.3, "mcnemar_p": 0.5});
        }
        json!({"type": "run", "run": format!("{arm}-{share}-{seed}"), "arm": arm, "share": share, "seed": seed, "k": 4, "gamma": 50,
            "window": "0.3-0.5", "loss": loss, "window_c_k": 0.5, "benches": {"world": bench},
            "skills": {"world": {"extractor": "first", "accuracy": 0.5, "count": 8}}})
    };
    let mut runs: Vec<Value> = [0.0, 0.25, 0.5]
        .iter()
        .flat_map(|share| [1, 2].map(|seed| run("share", *share, seed, 1.0)))
        .collect();
    runs.extend(["spread", "concentrate"].map(|arm| run(arm, 0.5, 1, 2.0)));
    report(&["page", "--bench", "world"])
        .arg(file(directory, "runs.jsonl", &runs))
        .arg("--entropy")
        .arg(file(
            directory,
            "entropy",
            &[json!({"type": "entropy", "group": "<b>", "sample_count": 9, "h1": 1.5})],
        ))
        .arg("--regions")
        .arg(file(
            directory,
            "regions",
            &[json!({"type": "region_summary", "model_digest": "blake3:0", "layer_index": 0, "distance": "l2", "pair_count": 3,
                "skipped_count": 3})],
        ))
        .arg(file(directory, "none.svg", &[]))
        .output()
}

#[test]
fn a_page_says_what_was_found_and_shows_data_as_text() {
    let directory = temp_dir();
    file(directory.path(), "none.reason", &[json!("nothing & nothing")]);
    let page = page(directory.path(), -0.25).expect(0);
    for words in [
        "Yes: 0 at share 0.0, 1 at 0.5; r = 1 [1, 1] over 6 runs.",
        "Of the window while training: cannot be said (fewer than five runs, or nothing varies).",
        "<b>spread</b> lowers false refusals in every seed, from 1 to 1 (seed 1: -0.25 [-0.3, 0.3])",
        "the fine-tuning loss goes from 1 to 2, skill from 0.5 to 0.5: a model that answers worse also refuses less, so this is no cure",
        "<td>&lt;b&gt;</td><td>9</td><td>1.5</td><td>–</td>",
        "<tr><td>0.5</td><td>1 1</td><td>0.1–0.9</td>",
        "<td>base</td><td>3</td><td>–</td>",
        "<p>No picture: &quot;nothing &amp; nothing&quot;",
    ] {
        assert!(page.text().contains(words), "no {words:?} in {}", page.text());
    }
}

#[test]
fn a_page_answers_first_shows_next_and_fits_a_phone_the_dark_and_paper() {
    let directory = temp_dir();
    file(directory.path(), "none.reason", &[json!("nothing")]);
    let page = page(directory.path(), -0.25).expect(0);
    let text = page.text();
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in {text}"));
    assert!(
        at("What was found") < at("<h2>Pictures")
            && at("<h2>Pictures") < at("<figure>")
            && at("<figure>") < at("<table>")
    );
    for words in [
        "width=device-width",
        "prefers-color-scheme: dark",
        "@media print",
        "overflow-x: auto",
    ] {
        at(words);
    }
    assert!(
        !text.contains("<script") && !text.contains("src=") && !text.contains("@import"),
        "it fetches something"
    );
}

#[test]
fn the_cost_is_counted_from_plans_and_otherwise_assumed_or_refused() {
    let flags =
        "cost --shares 2 --seeds 3 --runs 8 --rows 100 --device cpu --new-tokens 10 --prompts none --questions none";
    let cost = |more: &str| report(&flags.split(' ').chain(more.split_whitespace()).collect::<Vec<_>>());
    let said = [
        json!({"work": {"steps": 5, "token_count": 1000, "memory_bytes": 1}}),
        json!({"work": {"steps": 7, "token_count": 2000, "memory_bytes": 3_000_000}}),
        json!({"type": "model", "family": "llama", "parameter_count": 1000, "weight_bytes": 2_000_000}),
        json!({"type": "site", "site": "resid_post", "bytes_per_token_f32": 500}),
        json!({"type": "probe", "tokens_per_second": 10.0}),
    ];
    let text: String = said.iter().map(|said| format!("{said:#}\n")).collect();
    let counted = cost("--prompt-count 4").stdin(text).output().expect(0);
    for words in [
        "training runs    8: 2 shares x 3 seeds, and 2 with the loss",
        "steps            50 (7 a run of 100 rows)",
        "tokens           13000 (counted",
        "training         0.4 hours on one cpu at 10 tokens a second (measured",
        "answers          320 new tokens at most",
        "models           16 MB kept: 8 x 2 MB",
        "memory           3 MB",
    ] {
        assert!(counted.text().contains(words), "no {words:?} in {}", counted.text());
    }
    let assumed = "--epochs 2 --batch 16 --tokens-per-row 50 --parameters 1000 --weight-bytes 10 --acts-bytes-per-prompt 5 \
        --train-tokens-per-second 100 --new-tokens-per-second 10";
    let assumed = cost(assumed).output().expect(0);
    assert!(
        assumed.text().contains("tokens           80000 (assumed"),
        "{}",
        assumed.text()
    );
    assert!(
        assumed.text().contains("steps            104 (13 a run"),
        "{}",
        assumed.text()
    );
    cost("").output().refused(2, "--epochs");
}

#[test]
fn a_base_model_with_another_loss_is_told_by_the_exit_code() {
    let directory = temp_dir();
    let run = file(
        directory.path(),
        "run.json",
        &[json!({"tool": "vcl-train", "version": "0", "plan": {"seed": 1}, "wall": 3})],
    );
    let eval = |loss: f64| json!({"type": "eval", "step": 1, "eval_loss": loss, "token_count": 3}).to_string();
    let made = report(&["base"]).arg(&run).stdin(eval(1.25)).output().expect(0);
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(
        made,
        json!({"tool": "vcl-train", "version": "0", "held_out_loss": 1.25, "plan": {"seed": 1}})
    );
    let made = file(directory.path(), "made.json", &[made]);
    let check = |loss: f64| report(&["base", "--check"]).arg(&made).stdin(eval(loss)).output();
    check(1.250_01).expect(0);
    check(1.26).expect(1);
    report(&["base"])
        .arg(&run)
        .stdin("{\"type\":\"metric\"}\n")
        .output()
        .refused(3, "no eval record");
}

fn lines(done: &Done) -> Vec<Value> {
    done.text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn every_row_is_trained_on_or_held_out_in_one_form() {
    let directory = temp_dir();
    let rows: Vec<Value> = (0..45)
        .map(|index| json!({"instruction": format!("ask {index}"), "input": "", "output": format!("answer {index}")}))
        .collect();
    let data = file(directory.path(), "data.jsonl", &rows);
    let part = |part: &str| {
        let flags = ["rows", "--source", "alpaca", "--limit", "41", "--part", part];
        lines(&report(&flags).arg(&data).output().expect(0))
    };
    let (train, held_out) = (part("train"), part("held-out"));
    assert_eq!((train.len(), held_out.len()), (39, 2));
    assert_eq!(held_out[1]["messages"][1]["content"], "answer 39");
    assert_eq!(train[0]["source"], "alpaca");
}

#[test]
fn matched_rows_have_the_lengths_asked_for() {
    let directory = temp_dir();
    let rows = |lengths: &[usize]| -> Vec<Value> {
        let row = |length: &usize| json!({"prompt": "ask", "completion": "x".repeat(*length)});
        lengths.iter().map(row).collect()
    };
    let pool = file(directory.path(), "pool.jsonl", &rows(&[50, 3, 20, 21, 90]));
    let like = file(directory.path(), "like.jsonl", &rows(&[22, 2, 60]));
    let matched = |like: &Path| report(&["matched"]).arg(&pool).arg("--like").arg(like).output();
    let chosen = lines(&matched(&like).expect(0));
    assert_eq!(chosen, [rows(&[50]), rows(&[3]), rows(&[21])].concat());
    let many = file(directory.path(), "many.jsonl", &rows(&[1; 6]));
    matched(&many).refused(3, "5 rows cannot match 6");
}

#[test]
fn prompts_to_develop_on_and_those_reported_are_all_and_disjoint() {
    let directory = temp_dir();
    let prompts: Vec<Value> = (0..30)
        .map(|id| json!({"type": "prompt", "id": id.to_string(), "prompt": format!("question {id}")}))
        .collect();
    let all = file(directory.path(), "prompts.jsonl", &prompts);
    let pick = |file: &Path, flags: &[&str]| {
        let mut rows = report(&["pick"]).arg(file).args(flags).output().expect(0).records();
        rows.retain(|row| row["type"] == "prompt");
        rows
    };
    let (first, rest) = (pick(&all, &["--take", "12"]), pick(&all, &["--skip", "12"]));
    let middle = pick(&all, &["--skip", "12", "--take", "5"]);
    assert_eq!((first.len(), middle.len(), rest.len()), (12, 5, 18));
    assert!(first.iter().all(|prompt| !rest.contains(prompt)));
    assert!(middle.iter().all(|prompt| rest.contains(prompt)));
    let reversed = file(
        directory.path(),
        "reversed.jsonl",
        &prompts.into_iter().rev().collect::<Vec<_>>(),
    );
    let mut again = pick(&reversed, &["--take", "12"]);
    again.reverse();
    assert_eq!(again, first);
}

#[test]
fn a_rate_is_chosen_by_held_out_loss_and_a_cure_among_those_that_cost_little() {
    let directory = temp_dir();
    let eval = |name: &str, losses: &[f64]| {
        let row = |loss: &f64| json!({"type": "eval", "step": 1, "eval_loss": loss, "token_count": 3});
        file(directory.path(), name, &losses.iter().map(row).collect::<Vec<_>>())
    };
    let (worse, better) = (eval("a", &[1.0, 2.5]), eval("b", &[3.0, 2.25]));
    let chosen = report(&["choose-rate"])
        .arg(format!("--lr 1e-4=={}", worse.display()))
        .arg(format!("--lr 3e-4 --epochs=2={}", better.display()))
        .output();
    // A word that begins with a dash is a setting here only behind `--`.
    chosen.refused(2, "");
    let chosen = report(&["choose-rate", "--"])
        .arg(format!("--lr 1e-4={}", worse.display()))
        .arg(format!("--lr 3e-4 --epochs=2={}", better.display()))
        .output()
        .expect(0);
    assert_eq!(chosen.text(), "--lr 3e-4 --epochs=2\n");

    let refusals = |name: &str, refused: u64, nonsense: u64| {
        let row = json!({"type": "refusal_report", "bench": "b", "judge": "flowlens", "kind": "all", "label": "safe", "count": 100,
            "compliance_count": 100 - refused - nonsense, "partial_count": 0, "refusal_count": refused, "nonsense_count": nonsense,
            "unscored_count": 0, "refusal_rate_full_low": 0.0, "refusal_rate_full_high": 1.0, "refusal_rate_any_low": 0.0,
            "refusal_rate_any_high": 1.0});
        file(directory.path(), name, &[row])
    };
    let run = |name: &str, loss: f64, refused: u64, nonsense: u64| {
        let metrics = eval(&format!("{name}.metrics"), &[loss]);
        let refusals = refusals(&format!("{name}.refusals"), refused, nonsense);
        format!("{},{}", metrics.display(), refusals.display())
    };
    let choose = |runs: &[(&str, String)]| {
        let runs: Vec<String> = runs.iter().map(|(setting, run)| format!("{setting}={run}")).collect();
        let done = report(&["choose-cure", "--otherwise", "gamma=0.5", "--plain"])
            .arg(run("plain", 2.0, 60, 1))
            .args(runs)
            .output()
            .expect(0);
        done.text().trim().to_owned()
    };
    let dear = [
        ("gamma=50", run("dear", 2.2, 10, 1)),
        ("gamma=5", run("broken", 2.0, 20, 30)),
    ];
    assert_eq!(choose(&dear), "gamma=0.5");
    let fair = [dear[0].clone(), dear[1].clone(), ("gamma=1", run("fair", 2.04, 50, 5))];
    assert_eq!(choose(&fair), "gamma=1");
}

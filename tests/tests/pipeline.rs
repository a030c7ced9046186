//! The walking skeleton: the reproduction's Makefile from end to end, thin but real, whole and in parts. What breaks here is a seam.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Cluster, Run, program, temp_dir, tool, workspace};

fn repro() -> PathBuf {
    workspace().join("scripts/repro")
}

/// Settings every run here shares: the built tools, and an output directory.
fn settings(run: Run, out: &Path) -> Run {
    let binaries = tool("vcl-train").parent().expect("a directory").to_path_buf();
    run.arg(format!("BIN={}", binaries.display()))
        .arg(format!("OUT={}", out.display()))
        .deadline(Duration::from_secs(900))
}

fn make(out: &Path, more: &[&str]) -> Run {
    settings(Run::new("make").arg("-C").arg(repro()), out).args(more)
}

/// Everything that a run leaves but its parts, and what says when and where it ran; contents by path.
fn products(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![out.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of the output") {
            let path = entry.expect("an entry of the output").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if name.starts_with("part-") || name.ends_with("run.json") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                let key = path.strip_prefix(out).expect("below the output").to_path_buf();
                found.insert(key, fs::read(&path).expect("a product"));
            }
        }
    }
    found
}

fn assert_same(whole: &BTreeMap<PathBuf, Vec<u8>>, out: &Path) {
    let parts = products(out);
    assert!(parts.keys().eq(whole.keys()), "other files in {}", out.display());
    for (path, bytes) in whole {
        assert!(parts[path] == *bytes, "{} differs in {}", path.display(), out.display());
    }
}

#[test]
fn the_paper_runs_end_to_end_and_parts_give_the_bytes_of_the_whole() {
    if program("make").is_none() {
        return;
    }
    let directory = temp_dir();
    let out = directory.path().join("out");
    make(&out, &["SETTINGS=tiny"]).output().expect(0);

    let report = fs::read_to_string(out.join("report.html")).expect("the report");
    for words in [
        "What was found",
        "<td>safety</td>",
        "<td>k4_g5_w0.3-0.5_concentrate</td>",
        "<svg",
    ] {
        assert!(report.contains(words), "report.html has no {words:?}");
    }
    assert!(
        !report.contains("NaN") && !report.contains("null"),
        "report.html shows a measure that is not there"
    );
    let runs = fs::read_to_string(out.join("runs.jsonl")).expect("a line per run");
    assert_eq!(
        runs.lines().count(),
        6,
        "two shares, two signs, two points of the sweep"
    );
    for line in runs.lines() {
        let run: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let name = run["run"].as_str().expect("a name");
        let settings = fs::read_to_string(out.join(format!("settings/{name}.json"))).expect("the run's settings");
        let settings: serde_json::Value = serde_json::from_str(&settings).expect("JSON");
        assert_eq!((&settings["run"], &settings["share"]), (&run["run"], &run["share"]));
        assert!(run["benches"]["world"]["unsafe"].is_number(), "{line}");
        assert!(run["skills"]["world"]["accuracy"].is_number(), "{line}");
        let change = &run["benches"]["world"]["change"];
        assert_eq!(change.is_object(), run["arm"] != "share", "{line}");
        Run::new(tool("acts-check"))
            .arg("--full")
            .arg(out.join(format!("acts/{name}.acts")))
            .output()
            .expect(0);
    }

    let again = make(&out, &["SETTINGS=tiny"]).output().expect(0);
    assert!(!again.text().contains("vcl-train"), "trains again: {}", again.text());
    let other = make(&out, &["SETTINGS=tiny", "TOTAL=41"]).output().expect(2);
    assert!(
        other.stderr.contains("holds a run of other settings"),
        "{}",
        other.stderr
    );
    let plan = make(&out, &["--silent", "plan", "SETTINGS=tiny"]).output().expect(0);
    for words in ["6: 2 shares x 1 seeds, and 4 with the loss", "18 (3 a run of 40 rows)"] {
        assert!(plan.text().contains(words), "no {words:?} in {}", plan.text());
    }

    let whole = products(&out);
    let parts = directory.path().join("parallel");
    settings(Run::new(repro().join("parallel")).args(["2", "SETTINGS=tiny"]), &parts)
        .output()
        .expect(0);
    assert_same(&whole, &parts);

    let tasks = directory.path().join("slurm");
    let submit = settings(
        Run::new(repro().join("slurm"))
            .args(["3", "SETTINGS=tiny"])
            .env("CPUS", "1")
            .current_dir(directory.path()),
        Path::new("slurm"),
    );
    let submitted = match Cluster::start() {
        Some(cluster) => {
            let submitted = cluster.over(submit).output().expect(0);
            cluster.wait(Duration::from_secs(900));
            submitted
        }
        None => submit.env("PATH", stand_in(directory.path())).output().expect(0),
    };
    assert_eq!(submitted.text().lines().count(), 4, "{}", submitted.text());
    assert_same(&whole, &tasks);
}

/// A PATH with a scheduler that runs each job at once, an array task by task, and prints a number.
fn stand_in(directory: &Path) -> String {
    let bin = directory.join("bin");
    fs::create_dir(&bin).expect("a directory");
    let sbatch = bin.join("sbatch");
    let text = r#"#!/bin/sh
set -e
tasks= ; for flag; do case $flag in --array=0-*) tasks=${flag#--array=0-} ;; --wrap=*) job=${flag#--wrap=} ;; esac; done
for task in $(seq 0 "${tasks:-0}"); do
    [ -z "$tasks" ] || export SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=$tasks SLURM_ARRAY_TASK_COUNT=$((tasks + 1))
    sh -c "$job" >&2
done
echo $$
"#;
    fs::write(&sbatch, text).expect("a script");
    fs::set_permissions(&sbatch, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = std::env::var("PATH").expect("a PATH");
    format!("{}:{path}", bin.display())
}

#[test]
fn the_shipped_base_model_has_the_loss_that_it_was_made_with() {
    if program("make").is_some() {
        let directory = temp_dir();
        make(&directory.path().join("out"), &["check-base"]).output().expect(0);
    }
}

#[test]
fn a_base_model_of_another_world_is_refused() {
    if program("make").is_some() {
        let directory = temp_dir();
        let out = directory.path().join("out");
        let done = make(&out, &["prepare", "WORLD=--documents 300"]).output().expect(2);
        assert!(done.stderr.contains("trained on another world"), "{}", done.stderr);
        assert!(!out.join("base/config.json").exists());
    }
}

#[test]
fn the_plan_of_the_papers_settings_names_its_assumptions() {
    if program("make").is_some() {
        let directory = temp_dir();
        let out = directory.path().join("out");
        let plan = make(&out, &["--silent", "plan", "SETTINGS=paper"]).output().expect(0);
        for words in [
            "87: 11 shares x 3 seeds, and 54 with the loss",
            "assumed",
            "GPU hours",
            "checkpoints",
        ] {
            assert!(plan.text().contains(words), "no {words:?} in {}", plan.text());
        }
        assert!(!out.exists(), "planning makes nothing");
    }
}

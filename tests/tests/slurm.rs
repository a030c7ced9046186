//! What a real Slurm makes of the tools: arrays are shards, tasks of one job are ranks, and a failure ends a chain.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{Cluster, Done, Run, temp_dir, tool, worded_model, workspace};
use serde_json::json;

/// Submits a command in `directory` and waits for it; what it says goes to `said`.
fn submit(cluster: &Cluster, directory: &Path, flags: &[&str], command: &str) -> Done {
    cluster
        .run("sbatch")
        .current_dir(directory)
        .args(["--wait", "--quiet", "--output=said"])
        .args(flags)
        .arg(format!("--wrap={command}"))
        .output()
}

fn said(directory: &Path) -> String {
    fs::read_to_string(directory.join("said")).unwrap_or_default()
}

/// Rows of words that `worded_model` knows.
fn rows(path: &Path) {
    let word = |at: usize| format!("t{}", 3 + at * 7 % 40);
    let row = |id: usize| {
        let words: Vec<String> = (0..6).map(|at| word(id * 5 + at)).collect();
        json!({"id": id.to_string(), "prompt": words[..3].join(" "), "completion": words[3..].join(" ")})
    };
    let lines: Vec<String> = (0..40).map(|id| row(id).to_string() + "\n").collect();
    fs::write(path, lines.concat()).unwrap();
}

#[test]
fn an_array_is_shards_and_part_of_one_must_be_told_the_whole() {
    let Some(cluster) = Cluster::start() else { return };
    let directory = temp_dir();
    let path = directory.path();
    rows(&path.join("rows.jsonl"));
    let entropy = tool("ds-entropy").display().to_string();
    let whole = Run::new(&entropy)
        .current_dir(path)
        .arg("rows.jsonl")
        .output()
        .expect(0);
    let part = format!("{entropy} rows.jsonl --force --counts part-$SLURM_ARRAY_TASK_ID.acts");
    submit(&cluster, path, &["--array=0-2"], &part).expect(0);
    let merged = Run::new(&entropy)
        .current_dir(path)
        .arg("merge")
        .args((0..3).map(|part| format!("part-{part}.acts")))
        .output()
        .expect(0);
    let measured = |done: &Done| -> Vec<serde_json::Value> {
        let rows = done.records().into_iter();
        rows.filter(|row| row["type"] == "entropy").collect()
    };
    assert!(!measured(&whole).is_empty());
    assert_eq!(measured(&merged), measured(&whole));

    // one task again: Slurm calls it an array of one
    let before = fs::read(path.join("part-1.acts")).unwrap();
    fs::remove_file(path.join("part-1.acts")).unwrap();
    for array in ["--array=1", "--array=0,2", "--array=1-3"] {
        assert_ne!(submit(&cluster, path, &[array], &part).code, 0, "{array}");
        assert!(said(path).contains("no whole array"), "{array}: {}", said(path));
    }
    assert!(!path.join("part-1.acts").exists());
    submit(&cluster, path, &["--array=1", "--export=ALL,SHARD_COUNT=3"], &part).expect(0);
    assert!(
        fs::read(path.join("part-1.acts")).unwrap() == before,
        "the part is the same one"
    );
}

#[test]
fn tasks_of_one_job_train_together() {
    let Some(cluster) = Cluster::start() else { return };
    let directory = temp_dir();
    let path = directory.path();
    worded_model("llama", &path.join("model"));
    rows(&path.join("rows.jsonl"));
    let train = |out: &str| {
        let tool = tool("vcl-train").display().to_string();
        format!(
            "{tool} --model model --data rows.jsonl --raw --join ' ' --steps 6 --batch-size 4 --slots 2 --threads 1 \
             --aux vcl:gamma=2,k=1 -o {out}"
        )
    };
    let ranks = workspace().join("scripts/ranks").display().to_string();
    submit(&cluster, path, &[], &train("alone")).expect(0);
    let flags = ["--ntasks=2", "--oversubscribe", "--overcommit"];
    let done = submit(&cluster, path, &flags, &format!("{ranks} 2 {}", train("together")));
    assert_eq!(done.code, 0, "{}", said(path));
    for file in ["model.safetensors", "metrics.jsonl"] {
        let of = |out: &str| fs::read(path.join(out).join(file)).unwrap();
        assert!(of("alone") == of("together"), "{file}");
    }
}

#[test]
fn a_job_that_fails_ends_the_chain() {
    let Some(cluster) = Cluster::start() else { return };
    let directory = temp_dir();
    let script = workspace().join("scripts/repro/slurm");
    let submit = Run::new(script).args(["2", "SETTINGS=tiny", "BIN=no-such-directory", "OUT=out"]);
    cluster
        .over(submit)
        .env("CPUS", "1")
        .current_dir(directory.path())
        .output()
        .expect(0);
    cluster.wait(Duration::from_secs(60));
    assert!(
        !workspace().join("scripts/repro/out").exists(),
        "OUT is meant from where it was typed"
    );
}

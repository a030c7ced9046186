//! Containers and record streams of every release are read for ever. `scripts/release/fixtures` made them, with the tools of that release.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Done, Run, temp_dir, tool, workspace};

fn releases() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("tests/fixtures/releases")).expect("the releases");
    let found: Vec<PathBuf> = entries.map(|entry| entry.expect("a release").path()).collect();
    assert!(!found.is_empty());
    found
}

fn files(release: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(release).expect("a release");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    found.retain(|path| path.extension().is_some_and(|own| own == extension));
    found.sort();
    assert!(!found.is_empty(), "{}", release.display());
    found
}

/// A call of words, some of which name files of the release.
fn run(release: &Path, line: &str) -> Done {
    let mut words = line.split(' ');
    let name = words.next().expect("a tool");
    Run::new(tool(name)).args(words).current_dir(release).output()
}

#[test]
fn every_container_is_verified_to_its_last_byte() {
    for release in releases() {
        for path in files(&release, "acts") {
            Run::new(tool("acts-check")).arg("--full").arg(&path).output().expect(0);
        }
    }
}

#[test]
fn containers_are_still_measured_compared_and_steered_with() {
    let model = workspace().join("scripts/repro/base").display().to_string();
    for release in releases() {
        for line in [
            "flowlens-pca dump.acts --group group",
            "flowlens-pca moments.acts",
            "flowlens-pca stored.acts --against basis.acts",
            "act-stats dump.acts",
            "acts-cat direction.acts --to jsonl",
        ] {
            let done = run(&release, line).expect(0);
            assert!(done.records().len() > 2, "{line}");
        }
        for flag in ["--steer plan.acts", "--ablate direction.acts:6,7"] {
            let line = format!("lm-gen --model {model} --max-new-tokens 2 {flag} -n 1 prompts.jsonl");
            let done = run(&release, &line).expect(0);
            assert!(done.records().iter().any(|row| row["type"] == "completion"), "{line}");
        }
    }
}

#[test]
fn record_streams_are_still_judged_reported_and_drawn() {
    for release in releases() {
        for line in [
            "refusal-eval judge --bench own completions.jsonl",
            "refusal-eval report verdicts.jsonl",
        ] {
            assert!(run(&release, line).expect(0).records().len() > 2, "{line}");
        }
        let directory = temp_dir();
        for stream in ["geometry", "metrics", "regions", "refusal", "activity", "compare"] {
            let page = directory.path().join(format!("{stream}.html"));
            run(&release, &format!("resid-plot {stream}.jsonl -o {}", page.display())).expect(0);
        }
        for path in files(&release, "jsonl") {
            let text = fs::read_to_string(&path).expect("a stream");
            let is_ours = text.starts_with("{\"type\":\"begin\"");
            assert!(is_ours || path.ends_with("prompts.jsonl"), "{}", path.display());
        }
    }
}

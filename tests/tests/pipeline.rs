//! The walking skeleton: the reproduction's Makefile from end to end, thin but real. What breaks here is a seam.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{Run, program, temp_dir, tool, workspace};

/// The whole pipeline at the smallest size at which every step still has something to do.
fn make(out: &Path, targets: &[&str]) -> harness::Done {
    let binaries = tool("vcl-train").parent().expect("a directory").to_path_buf();
    Run::new("make")
        .arg("-C")
        .arg(workspace().join("scripts/repro"))
        .arg(format!("BIN={}", binaries.display()))
        .arg(format!("OUT={}", out.display()))
        .args(["SHARES=0.0 0.5", "SEEDS=42", "TOTAL=40", "NEW_TOKENS=4", "PAIRS=4"])
        .arg("WORLD=--documents 300 --instructions 200 --vocabulary 700")
        .arg("PRETRAIN=--steps 4 --batch-size 8 --lr 3e-3")
        .arg("TRAIN=--steps 3 --batch-size 8 --lr 1e-3")
        .args(targets)
        .deadline(Duration::from_secs(900))
        .output()
}

#[test]
fn the_paper_runs_end_to_end_and_a_second_run_has_nothing_to_do() {
    if program("jq").is_none() || program("make").is_none() {
        return;
    }
    let directory = temp_dir();
    let out = directory.path().join("out");
    make(&out, &[]).expect(0);

    let report = fs::read_to_string(out.join("report.html")).expect("the report");
    for words in ["What was found", "<td>safety</td>", "<td>concentrate</td>", "<svg"] {
        assert!(report.contains(words), "report.html has no {words:?}");
    }
    assert!(
        !report.contains("NaN") && !report.contains("null<"),
        "report.html shows a measure that is not there"
    );
    for run in [
        "share-0.0-seed-42",
        "share-0.5-seed-42",
        "spread-0.5-seed-42",
        "concentrate-0.5-seed-42",
    ] {
        Run::new(tool("acts-check"))
            .arg("--full")
            .arg(out.join(format!("acts/{run}.acts")))
            .output()
            .expect(0);
        for kind in ["geometry", "refusals", "skills"] {
            let path = out.join(format!("{kind}/{run}.jsonl"));
            let text = fs::read_to_string(&path).expect("records of a run");
            assert!(
                text.lines().last().is_some_and(|line| line.contains("\"end\"")),
                "{} has no end",
                path.display()
            );
        }
    }

    let again = make(&out, &[]).expect(0);
    assert!(
        !again.text().contains("vcl-train"),
        "a second run trains again: {}",
        again.text()
    );
}

//! `flowlens` as a process, with the tools beside it.

use harness::{Done, Run, temp_dir, tool, tools, workspace};
use std::ffi::OsStr;

fn flowlens<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    Run::new(env!("CARGO_BIN_EXE_flowlens")).args(args).output()
}

const COMMANDS: [(&str, &str); 16] = [
    ("entropy", "ds-entropy"),
    ("dump", "resid-dump"),
    ("pca", "flowlens-pca"),
    ("stats", "act-stats"),
    ("sparsity", "act-sparsity"),
    ("train", "vcl-train"),
    ("gen", "lm-gen"),
    ("merge", "lm-merge"),
    ("steer", "steer-vec"),
    ("dro", "dro-train"),
    ("refusal", "refusal-eval"),
    ("skill", "skill-eval"),
    ("regions", "stable-regions"),
    ("plot", "resid-plot"),
    ("cat", "acts-cat"),
    ("check", "acts-check"),
];

#[test]
fn every_tool_is_a_command_by_both_names_and_listed() {
    let help = flowlens(["--help"]).expect(0);
    let mut reached: Vec<&str> = COMMANDS.map(|(_, tool)| tool).to_vec();
    for (command, name) in COMMANDS {
        let own = Run::new(tool(name)).arg("--help").output().expect(0);
        for word in [command, name] {
            assert_eq!(flowlens([word, "--help"]).expect(0).text(), own.text(), "{word}");
        }
        assert!(help.text().contains(&format!("({name})")), "{name}");
    }
    reached.push("flowlens");
    reached.sort_unstable();
    assert_eq!(reached, tools());
}

#[test]
fn a_tool_keeps_its_input_output_messages_and_exit_code() {
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    std::fs::write(&path, "no container").unwrap();
    let done = flowlens([OsStr::new("check"), path.as_os_str()]);
    let own = Run::new(tool("acts-check")).arg(&path).output();
    assert_eq!(
        (done.code, &done.stdout, &done.stderr),
        (own.code, &own.stdout, &own.stderr)
    );
    assert_eq!(done.code, 3);
    let rows = "{\"id\":1,\"completion\":\"I can't help with that.\"}\n";
    let run = |program: Run| {
        program
            .args(["judge", "--bench", "x"])
            .stdin(rows)
            .output()
            .expect(0)
            .stdout
    };
    let through = run(Run::new(env!("CARGO_BIN_EXE_flowlens")).arg("refusal"));
    assert_eq!(through, run(Run::new(tool("refusal-eval"))));
}

#[test]
fn a_tool_behind_flags_and_a_word_that_is_none_are_wrong_calls() {
    flowlens(["--quiet", "dump", "--model"]).refused(2, "--model");
    flowlens(["--quiet", "dump"]).refused(2, "comes first");
    flowlens(["dumb"]).refused(2, "dumb");
}

#[test]
fn doctor_knows_every_tool_and_says_no_where_one_is_missing() {
    let done = flowlens(["doctor"]).expect(0);
    let found = done.records();
    for (_, name) in COMMANDS {
        let row = found
            .iter()
            .find(|row| row["subject"] == name)
            .expect("a row of each tool");
        assert_eq!(row["fine"], true, "{row}");
    }
    let kernel = found
        .iter()
        .find(|row| row["subject"] == "kernel f32")
        .expect("a kernel");
    assert!(!kernel["value"].as_str().unwrap().is_empty());
    let table = flowlens(["doctor", "--format", "table"]).expect(0);
    assert!(table.text().lines().any(|line| line.starts_with("resid-dump")));
    // alone in a directory, and with nothing on PATH
    let directory = temp_dir();
    let alone = directory.path().join("flowlens");
    std::fs::copy(env!("CARGO_BIN_EXE_flowlens"), &alone).unwrap();
    let done = Run::new(&alone).arg("doctor").env("PATH", "").output();
    assert_eq!(done.code, 1, "{}", done.stderr);
    Run::new(&alone)
        .args(["dump", "x"])
        .env("PATH", "")
        .output()
        .refused(4, "not found");
}

#[test]
fn a_report_draws_what_a_directory_holds() {
    let directory = temp_dir();
    flowlens([OsStr::new("report"), directory.path().as_os_str()]).refused(3, "no .jsonl");
    let metrics = workspace().join("tests/fixtures/releases/0.1.0/metrics.jsonl");
    std::fs::copy(metrics, directory.path().join("metrics.jsonl")).unwrap();
    flowlens([OsStr::new("report"), directory.path().as_os_str()]).expect(0);
    let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.contains("<svg"));
}

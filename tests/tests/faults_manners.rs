//! Rows of the fault matrix that concern arguments, surroundings and pipelines (A, C, R, S, W), on the tools that need no model.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use harness::{Done, Run, TempDir, temp_dir, tool};
use serde_json::json;

const ROW_COUNT: usize = 40;

/// A directory with records and the container of their numbers.
fn scene() -> TempDir {
    let directory = temp_dir();
    let rows: String = (0..ROW_COUNT)
        .map(|index| {
            json!({"id": index.to_string(), "text": format!("the {index} cats and the {} dogs", index % 7)}).to_string()
                + "\n"
        })
        .collect();
    fs::write(directory.path().join("rows.jsonl"), rows).unwrap();
    directory
}

fn entropy(directory: &Path) -> Run {
    Run::new(tool("ds-entropy")).current_dir(directory)
}

#[test]
fn a_01_names_may_be_any_bytes_and_messages_escape_them() {
    let directory = scene();
    for name in [&b"caf\xe9.jsonl"[..], b"-dash.jsonl", b"two\nlines\x1b[31m.jsonl"] {
        let path = directory.path().join(OsStr::from_bytes(name));
        fs::copy(directory.path().join("rows.jsonl"), &path).unwrap();
        entropy(directory.path()).arg(&path).output().expect(0);
        fs::write(&path, "{").unwrap();
        let done = entropy(directory.path()).arg(&path).output().refused(3, ".jsonl");
        assert!(!done.stderr.contains('\x1b'), "{}", done.stderr);
    }
    entropy(directory.path())
        .args(["--", "-dash.jsonl"])
        .output()
        .refused(3, "-dash.jsonl");
}

#[test]
fn a_05_many_files_need_few_descriptors() {
    let directory = temp_dir();
    let line = json!({"id": "0", "text": "one two three"}).to_string() + "\n";
    for index in 0..2000 {
        fs::write(directory.path().join(format!("{index}.jsonl")), &line).unwrap();
    }
    let command = "ulimit -n 64; exec \"$0\" --format jsonl *.jsonl";
    let run = Run::new("bash")
        .current_dir(directory.path())
        .args(["-c", command])
        .arg(tool("ds-entropy"));
    run.output().expect(0);
}

/// The records of the same work, in surroundings that must not matter.
fn in_surroundings(directory: &Path, variables: &[(&str, &str)], threads: &str) -> Done {
    let run = entropy(directory).args(["--format", "jsonl", "--threads", threads, "rows.jsonl"]);
    variables
        .iter()
        .fold(run, |run, (name, value)| run.env(name, value))
        .output()
        .expect(0)
}

#[test]
fn r_06_home_temporary_folder_locale_and_zone_change_no_byte() {
    let directory = scene();
    let plain = in_surroundings(directory.path(), &[], "1").stdout;
    for variables in [
        &[("HOME", "/nonexistent"), ("TMPDIR", "/nonexistent")][..],
        &[("HOME", ""), ("TMPDIR", "")],
        &[("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Asia/Kathmandu")],
        &[("LC_ALL", "C"), ("TZ", ":nowhere")],
    ] {
        let odd = in_surroundings(directory.path(), variables, "1").stdout;
        assert_eq!(plain, odd, "{variables:?}");
    }
}

#[test]
fn c_13_a_run_from_scratch_gives_the_same_bytes_to_file_and_pipe_with_any_threads() {
    let directory = scene();
    let once = in_surroundings(directory.path(), &[], "1").stdout;
    for threads in ["1", "2", "7"] {
        assert_eq!(
            once,
            in_surroundings(directory.path(), &[], threads).stdout,
            "{threads} threads"
        );
    }
    let file = fs::File::create(directory.path().join("out.jsonl")).unwrap();
    let status = std::process::Command::new(tool("ds-entropy"))
        .current_dir(directory.path())
        .args(["--format", "jsonl", "--threads", "1", "rows.jsonl"])
        .stdout(file)
        .status();
    assert!(status.unwrap().success());
    assert_eq!(once, fs::read(directory.path().join("out.jsonl")).unwrap());
}

#[test]
fn w_06_an_output_directory_that_is_missing_or_a_file_is_an_error_of_the_environment() {
    let directory = scene();
    for folder in ["nowhere", "rows.jsonl"] {
        let output = directory.path().join(folder).join("out.acts");
        let run = Run::new(tool("acts-cat"))
            .current_dir(directory.path())
            .arg("--salvage")
            .arg("rows.jsonl");
        let done = run.arg("-o").arg(&output).output();
        assert!([3, 4].contains(&done.code), "{folder}: {} {}", done.code, done.stderr);
        assert!(!output.exists());
    }
}

#[test]
fn s_11_a_fault_in_any_stage_fails_the_pipeline() {
    let directory = scene();
    let [entropy, cat] = ["ds-entropy", "acts-cat"].map(|name| tool(name).display().to_string());
    let stages = [
        "cat rows.jsonl".to_owned(),
        "cat".into(),
        format!("{entropy} --format jsonl -"),
        "cat >out".into(),
    ];
    let run = |stages: &[String]| {
        let line = format!("set -o pipefail; {}", stages.join(" | "));
        Run::new("bash")
            .current_dir(directory.path())
            .args(["-c", &line])
            .output()
    };
    run(&stages).expect(0);
    for (at, fault) in ["cat nowhere", "head -c 30", "false", &format!("{cat} nowhere")]
        .iter()
        .enumerate()
    {
        let mut broken = stages.clone();
        broken[at] = (*fault).to_owned();
        assert_ne!(run(&broken).code, 0, "stage {at}");
    }
}

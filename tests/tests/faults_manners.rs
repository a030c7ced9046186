//! Rows of the fault matrix that concern arguments, surroundings and pipelines (A, C, R, S, W), on the tools that need no model.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use harness::{Done, Run, TempDir, code, temp_dir, tool, wait};
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

/// A tool as a user whom permissions bind; none where there is no such user to become.
fn bound(name: &str) -> Option<Run> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Some(Run::new(tool(name)));
    }
    let setpriv = harness::program("setpriv")?;
    let become_nobody = || {
        let run = Run::new(&setpriv).args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        run.arg(tool(name))
    };
    if become_nobody().arg("--version").output().code != 0 {
        harness::skip("setpriv", "another user cannot run the tools from where they are");
        return None;
    }
    Some(become_nobody())
}

#[test]
fn w_06_an_output_directory_that_cannot_take_a_file_is_an_error_of_the_environment() {
    let directory = scene();
    let path = |name: &str| directory.path().join(name);
    for folder in ["nowhere", "rows.jsonl"] {
        let output = path(folder).join("out");
        let run = entropy(directory.path()).arg("rows.jsonl").arg("-o").arg(&output);
        run.output().refused(4, folder);
        assert!(!output.exists());
    }
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(directory.path(), 0o755);
    for (folder, bits) in [("readonly", 0o555), ("closed", 0o666)] {
        fs::create_dir(path(folder)).unwrap();
        mode(&path(folder), bits);
        let Some(run) = bound("ds-entropy") else {
            return;
        };
        let run = run.arg(path("rows.jsonl")).arg("-o").arg(path(folder).join("out"));
        run.output().refused(4, folder);
        mode(&path(folder), 0o755);
        assert_eq!(fs::read_dir(path(folder)).unwrap().count(), 0);
    }
}

#[test]
fn w_11_of_several_processes_on_one_output_one_finishes() {
    for _ in 0..5 {
        let directory = scene();
        let start = |_| {
            let run = entropy(directory.path()).args(["--format", "jsonl", "rows.jsonl", "-o", "out"]);
            run.spawn()
        };
        let mut writers: Vec<_> = (0..4).map(start).collect();
        let end = |writer: &mut Child| code(wait(writer, Duration::from_secs(60)));
        let mut codes: Vec<i32> = writers.iter_mut().map(end).collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 5, 5, 5]);
        let text = fs::read_to_string(directory.path().join("out")).unwrap();
        assert!(
            text.lines().last().unwrap().contains("\"status\":\"complete\""),
            "{text}"
        );
        assert!(!directory.path().join(".out.partial").exists());
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

//! Rows of the fault matrix about output files and signals (W and S), on acts-cat as the writer.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Done, Run, TempDir, code, temp_dir, tool, wait};

/// A directory with a small array in npy form, the input of every writer here.
fn scene() -> (TempDir, PathBuf) {
    let directory = temp_dir();
    let path = directory.path().join("x.npy");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let mut header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (300, 16), }".to_vec();
    header.resize(118 - 1, b' ');
    header.push(b'\n');
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header);
    bytes.extend((0..300 * 16).flat_map(|index| (index as f32 * 0.37).sin().to_le_bytes()));
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn convert(input: &Path, output: &Path, more: &[&str]) -> Done {
    Run::new(tool("acts-cat"))
        .arg("--from")
        .arg(input)
        .arg("-o")
        .arg(output)
        .args(more)
        .output()
}

fn verifies(path: &Path) {
    Run::new(tool("acts-check")).arg("--full").arg(path).output().expect(0);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn w_07_an_existing_name_is_a_conflict_and_force_replaces_the_name_alone() {
    let (directory, input) = scene();
    let output = directory.path().join("y.acts");
    fs::write(&output, "old").unwrap();
    convert(&input, &output, &[]).refused(5, "exists");
    assert_eq!(fs::read(&output).unwrap(), b"old");
    convert(&input, &output, &["--force"]).expect(0);
    verifies(&output);

    convert(&input, directory.path(), &[]).refused(2, "directory");

    let (target, link) = (directory.path().join("target"), directory.path().join("link"));
    fs::write(&target, "kept").unwrap();
    symlink(&target, &link).unwrap();
    convert(&input, &link, &[]).refused(5, "exists");
    convert(&input, &link, &["--force"]).expect(0);
    assert_eq!(fs::read(&target).unwrap(), b"kept");
    verifies(&link);

    let dangling = directory.path().join("dangling");
    symlink(directory.path().join("nowhere"), &dangling).unwrap();
    convert(&input, &dangling, &[]).refused(5, "exists");

    convert(&input, Path::new("/dev/null"), &[]).expect(0);
    assert!(
        fs::metadata("/dev/null").unwrap().permissions().mode() & 0o020000 != 0,
        "/dev/null was replaced"
    );
}

#[test]
fn w_08_a_link_planted_at_the_partial_name_is_not_followed() {
    let (directory, input) = scene();
    let victim = directory.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, directory.path().join(".y.acts.partial")).unwrap();
    convert(&input, &directory.path().join("y.acts"), &[]).refused(5, ".y.acts.partial");
    assert_eq!(fs::read(&victim).unwrap(), b"kept");
}

#[test]
fn w_09_an_output_that_is_an_input_is_usage_and_the_input_stays() {
    let (directory, input) = scene();
    let before = fs::read(&input).unwrap();
    let (link, hard) = (directory.path().join("link"), directory.path().join("hard"));
    symlink(&input, &link).unwrap();
    fs::hard_link(&input, &hard).unwrap();
    let dotted = directory.path().join("./x.npy");
    for output in [&input, &link, &hard, &dotted] {
        convert(&input, output, &["--force"]).refused(2, "input");
        assert_eq!(fs::read(&input).unwrap(), before, "{}", output.display());
    }
}

#[test]
fn w_10_the_mode_follows_the_umask() {
    let (directory, input) = scene();
    for (mask, mode) in [("000", 0o666), ("027", 0o640), ("077", 0o600)] {
        let output = directory.path().join(format!("{mask}.acts"));
        Run::new("sh")
            .args(["-c", "umask $0; exec \"$1\" --from \"$2\" -o \"$3\""])
            .arg(mask)
            .arg(tool("acts-cat"))
            .arg(&input)
            .arg(&output)
            .output()
            .expect(0);
        assert_eq!(fs::metadata(&output).unwrap().mode() & 0o777, mode, "umask {mask}");
    }
}

#[test]
fn w_11_of_two_writers_one_finishes_and_the_other_is_a_conflict() {
    for _ in 0..10 {
        let (directory, input) = scene();
        let output = directory.path().join("y.acts");
        let start = || {
            Command::new(tool("acts-cat"))
                .arg("--from")
                .arg(&input)
                .arg("-o")
                .arg(&output)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut writers = [start(), start()];
        let mut codes: Vec<i32> = writers
            .iter_mut()
            .map(|writer| code(wait(writer, Duration::from_secs(60))))
            .collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 5]);
        verifies(&output);
        assert_eq!(names(directory.path()), ["x.npy", "y.acts"]);
    }
}

#[test]
fn w_12_a_stale_partial_is_a_conflict_with_a_hint_and_force_starts_over() {
    let (directory, input) = scene();
    let output = directory.path().join("y.acts");
    fs::write(directory.path().join(".y.acts.partial"), "left behind").unwrap();
    let done = convert(&input, &output, &[]).refused(5, "partial");
    assert!(done.stderr.contains("hint"), "{}", done.stderr);
    convert(&input, &output, &["--force"]).expect(0);
    verifies(&output);
    assert_eq!(names(directory.path()), ["x.npy", "y.acts"]);
}

#[test]
fn s_03_a_signal_ends_a_run_by_that_signal_and_leaves_nothing() {
    for (signal, expected) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (directory, input) = scene();
        let output = directory.path().join("y.acts");
        let mut child = Command::new(tool("acts-cat"))
            .args(["--from", "-", "-o"])
            .arg(&output)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Half of the input, and an open pipe: the run waits in the middle of its work.
        let bytes = fs::read(&input).unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        harness::signal(&child, signal);
        assert_eq!(code(wait(&mut child, Duration::from_secs(30))), expected, "SIG{signal}");
        drop(pipe);
        assert_eq!(names(directory.path()), ["x.npy"], "SIG{signal}");
    }
}

#[test]
fn s_08_a_producer_that_dies_mid_stream_is_refused_by_its_consumers() {
    let (directory, input) = scene();
    let whole = directory.path().join("y.acts");
    convert(&input, &whole, &[]).expect(0);
    let bytes = fs::read(&whole).unwrap();
    for cut in [1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let consumers: [(&str, &[&str]); 3] = [
            ("acts-check", &["-"]),
            ("acts-cat", &["-", "--to", "npy", "-o", "z.npy"]),
            ("flowlens-pca", &["-"]),
        ];
        for (name, args) in consumers {
            let done = Run::new(tool(name))
                .args(args)
                .current_dir(directory.path())
                .stdin(&bytes[..cut])
                .output();
            assert_eq!(done.code, 3, "{name} at {cut} bytes: {}", done.stderr);
        }
        assert!(!directory.path().join("z.npy").exists());
    }
}

#[test]
fn s_07_with_an_output_file_losing_stdout_does_not_stop_the_work() {
    let (directory, input) = scene();
    let output = directory.path().join("y.acts");
    let done = Run::new(tool("acts-cat"))
        .arg("--from")
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .stdout_closed_after(0);
    assert_eq!(done.code, 0, "{}", done.stderr);
    verifies(&output);
}

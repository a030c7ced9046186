//! Rows of the fault matrix that are made by failing system calls (W, S), on acts-cat as the writer: strace makes the k-th call of a
//! kind fail, or kills the process at it.

use std::fs;
use std::path::{Path, PathBuf};

use acts::{Depth, File, OpenOptions};
use harness::{Done, Run, TempDir, temp_dir, tool};

/// More calls of one kind than a small run makes.
const CALLS_MAX: usize = 200;

/// A directory with `x.npy`, an array of a megabyte.
fn scene() -> TempDir {
    let directory = temp_dir();
    let mut text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1024, 256), }".to_owned();
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend((0..1024 * 256u32).flat_map(|index| (index as f32 * 0.37).sin().to_le_bytes()));
    fs::write(directory.path().join("x.npy"), bytes).unwrap();
    directory
}

fn convert() -> Vec<PathBuf> {
    let words = ["--from", "x.npy", "-o", "x.acts", "-q", "--threads", "1"];
    [tool("acts-cat")].into_iter().chain(words.map(PathBuf::from)).collect()
}

/// Runs acts-cat under strace; none where strace is missing or may not trace. Gives what was traced too.
fn traced(directory: &Path, options: &[&str]) -> Option<(Done, String)> {
    let strace = harness::program("strace")?;
    let _ = fs::remove_file(directory.join("x.acts"));
    let _ = fs::remove_file(directory.join(".x.acts.partial"));
    let run = Run::new(strace).args(["-f", "-o", "trace"]).args(options);
    let done = run.args(convert()).current_dir(directory).output();
    let trace = fs::read_to_string(directory.join("trace")).unwrap_or_default();
    if trace.is_empty() {
        harness::skip("ptrace", format!("strace cannot trace here: {}", done.stderr.trim()));
        return None;
    }
    Some((done, trace))
}

/// A run with one fault, such as `write:error=ENOSPC:when=2`, and whether the fault was met.
fn injected(directory: &Path, fault: &str) -> Option<(Done, bool)> {
    let (done, trace) = traced(directory, &["-e", &format!("inject={fault}")])?;
    let was_met = trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL");
    Some((done, was_met))
}

fn verifies(bytes: Vec<u8>) -> bool {
    let Ok(file) = File::from_bytes(bytes, OpenOptions::default()) else {
        return false;
    };
    let mut is_sound = true;
    file.verify(Depth::Full, |_| is_sound = false).is_ok() && is_sound
}

/// What stands beside the input.
fn leftovers(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !matches!(name.as_str(), "x.npy" | "trace"))
        .collect()
}

/// Nothing under the final name, or a whole file there.
#[track_caller]
fn nothing_or_whole(directory: &Path, fault: &str) {
    let path = directory.join("x.acts");
    assert!(!path.exists() || verifies(fs::read(&path).unwrap()), "{fault}");
}

#[test]
fn w_04_failing_system_calls_are_reported_and_leave_nothing_or_a_whole_file() {
    let scene = scene();
    let mut met = 0;
    for (call, error) in [
        ("openat", "EMFILE"),
        ("write", "ENOSPC"),
        ("write", "EDQUOT"),
        ("fsync", "EIO"),
        ("flock", "ENOLCK"),
        ("rename", "EROFS"),
    ] {
        for when in ["1", "2", "3", "1+", "2+"] {
            let fault = format!("{call}:error={error}:when={when}");
            // The loader's own calls come first: they are not ours to report.
            let fault = match call {
                "openat" => format!("{fault} -P x.npy -P .x.acts.partial"),
                _ => fault,
            };
            let mut words = fault.split(' ');
            let inject = format!("inject={}", words.next().unwrap());
            let options: Vec<&str> = ["-e", &inject].into_iter().chain(words).collect();
            let Some((done, trace)) = traced(scene.path(), &options) else {
                return;
            };
            nothing_or_whole(scene.path(), &fault);
            if !trace.contains("(INJECTED)") {
                assert_eq!(done.code, 0, "{fault}: {}", done.stderr);
                continue;
            }
            met += 1;
            match done.code {
                0 => assert!(scene.path().join("x.acts").exists(), "{fault}"),
                4 if scene.path().join("x.acts").exists() => {}
                4 => assert_eq!(leftovers(scene.path()), Vec::<String>::new(), "{fault}"),
                code => panic!("{fault}: exit {code}: {}", done.stderr),
            }
        }
    }
    assert!(met > 10, "only {met} faults were met");
}

#[test]
fn w_05_interrupted_and_short_writes_change_nothing() {
    let scene = scene();
    Run::new(tool("acts-cat"))
        .args(["--from", "x.npy", "-o", "y.acts"])
        .current_dir(scene.path())
        .output()
        .expect(0);
    let expected = fs::read(scene.path().join("y.acts")).unwrap();
    for fault in [
        "write:error=EINTR:when=2",
        "write:retval=0:when=9999",
        "write:error=EINTR:when=1..3",
    ] {
        let Some((done, _)) = injected(scene.path(), fault) else {
            return;
        };
        assert_eq!(done.code, 0, "{fault}: {}", done.stderr);
        assert!(fs::read(scene.path().join("x.acts")).unwrap() == expected, "{fault}");
    }
}

#[test]
fn w_14_a_failed_fsync_is_never_asked_again() {
    let scene = scene();
    let Some((done, trace)) = traced(scene.path(), &["-e", "inject=fsync:error=EIO:when=1"]) else {
        return;
    };
    assert!(trace.contains("(INJECTED)"), "the fault was never met: {trace}");
    done.refused(4, "x.acts");
    // The kernel may have dropped the pages that it could not write: asking again would answer yes.
    assert_eq!(trace.matches("fsync(").count(), 1, "{trace}");
    assert_eq!(leftovers(scene.path()), Vec::<String>::new());
}

#[test]
fn w_15_a_directory_that_cannot_be_synced_is_said_and_the_file_is_whole() {
    let scene = scene();
    let Some((done, was_met)) = injected(scene.path(), "fsync:error=EIO:when=2") else {
        return;
    };
    assert!(was_met);
    done.refused(4, "the file is in place and whole");
    assert_eq!(leftovers(scene.path()), ["x.acts"]);
    nothing_or_whole(scene.path(), "fsync of the directory");
}

#[test]
fn w_16_a_rename_that_fails_leaves_nothing() {
    let scene = scene();
    for error in ["EXDEV", "EACCES", "ENOSPC"] {
        let Some((done, was_met)) = injected(scene.path(), &format!("rename:error={error}")) else {
            return;
        };
        assert!(was_met, "{error}");
        done.refused(4, "x.acts");
        assert_eq!(leftovers(scene.path()), Vec::<String>::new(), "{error}");
    }
}

#[test]
fn s_02_killed_at_any_call_there_is_nothing_or_a_whole_file() {
    let scene = scene();
    for call in ["write", "fsync", "rename"] {
        let mut kills = 0;
        for when in 1..CALLS_MAX {
            let fault = format!("{call}:signal=SIGKILL:when={when}");
            let Some((done, was_met)) = injected(scene.path(), &fault) else {
                return;
            };
            nothing_or_whole(scene.path(), &fault);
            if !was_met {
                assert_eq!(done.code, 0, "{fault}: {}", done.stderr);
                break;
            }
            kills += 1;
        }
        assert!(kills > 0, "no {call} was met");
    }
}

#[test]
fn s_02_two_outputs_of_one_run_are_each_whole_or_absent_wherever_it_is_killed() {
    let directory = temp_dir();
    let path = |name: &str| directory.path().join(name);
    let rows: String = (0..200)
        .map(|row| format!("{{\"text\":\"word {row} and word {}\"}}\n", row % 7))
        .collect();
    fs::write(path("rows.jsonl"), rows).unwrap();
    let Some(strace) = harness::program("strace") else {
        return;
    };
    let outputs = ["out", "counts"];
    let run = |options: &[&str]| {
        for name in outputs {
            let _ = fs::remove_file(path(name));
            let _ = fs::remove_file(path(&format!(".{name}.partial")));
        }
        let run = Run::new(&strace).args(["-f", "-o", "trace"]).args(options);
        run.arg(tool("ds-entropy"))
            .args(["rows.jsonl", "--threads", "1", "-o", "out", "--counts", "counts"])
            .current_dir(directory.path())
            .output()
    };
    let done = run(&[]);
    let trace = || fs::read_to_string(path("trace")).unwrap_or_default();
    if trace().is_empty() {
        return harness::skip("ptrace", format!("strace cannot trace here: {}", done.stderr.trim()));
    }
    done.expect(0);
    let whole = outputs.map(|name| fs::read(path(name)).unwrap());
    for call in ["write", "fsync", "rename"] {
        let mut kills = 0;
        for when in 1..CALLS_MAX {
            run(&["-e", &format!("inject={call}:signal=SIGKILL:when={when}")]);
            for (name, whole) in outputs.iter().zip(&whole) {
                let found = fs::read(path(name));
                assert!(found.is_err() || found.unwrap() == *whole, "{name} after {call} {when}");
            }
            if !trace().contains("killed by SIGKILL") {
                break;
            }
            kills += 1;
        }
        assert!(kills > 0, "no {call} was met");
    }
}

/// What a run does to its file, as the disk sees it.
#[derive(Debug, PartialEq)]
enum Step {
    Write(usize),
    Sync,
    Rename,
}

/// The steps of a run, from its trace.
fn steps(trace: &str) -> Vec<Step> {
    let of = |line: &str| {
        let result = line.rsplit_once(" = ")?.1.split(' ').next()?;
        let call = line.split_once(' ')?.1.trim_start();
        if call.starts_with("rename") {
            return Some(Step::Rename);
        }
        if !call.contains(".x.acts.partial>") {
            return None;
        }
        match call.split('(').next()? {
            "write" => Some(Step::Write(result.parse().ok()?)),
            "fsync" => Some(Step::Sync),
            other => panic!("{other} is no call that this test knows"),
        }
    };
    trace.lines().filter_map(of).collect()
}

/// A file of which some writes reached the disk and the others are holes; the last one that did may be torn.
fn image(whole: &[u8], writes: &[usize], kept: impl Fn(usize) -> bool, is_torn: bool) -> Vec<u8> {
    let mut image = Vec::new();
    let mut at = 0;
    for (number, length) in writes.iter().enumerate() {
        if kept(number) {
            image.resize(at, 0);
            let torn = if is_torn && number + 1 == writes.len() {
                length / 2
            } else {
                *length
            };
            image.extend_from_slice(&whole[at..at + torn]);
        }
        at += length;
    }
    image
}

#[test]
fn w_17_a_crash_leaves_the_old_file_or_the_new_one_whatever_was_not_yet_on_the_disk() {
    let scene = scene();
    let options = [
        "-y",
        "-s",
        "0",
        "-e",
        "trace=write,pwrite64,writev,fsync,rename,renameat,renameat2,ftruncate",
    ];
    let Some((done, trace)) = traced(scene.path(), &options) else {
        return;
    };
    done.expect(0);
    let whole = fs::read(scene.path().join("x.acts")).unwrap();
    let steps = steps(&trace);
    let lengths = |steps: &[Step]| -> Vec<usize> {
        let length = |step: &Step| match step {
            Step::Write(length) => Some(*length),
            _ => None,
        };
        steps.iter().filter_map(length).collect()
    };
    assert_eq!(lengths(&steps).iter().sum::<usize>(), whole.len(), "{trace}");
    let mut torn = 0;
    for end in 0..=steps.len() {
        let done = &steps[..end];
        let synced = done
            .iter()
            .rposition(|step| *step == Step::Sync)
            .map_or(0, |at| lengths(&done[..at]).len());
        let writes = lengths(done);
        // BOUND: all subsets of the last eight writes that nothing made durable.
        let open = (writes.len() - synced).min(8);
        for subset in 0..1u32 << open {
            for is_torn in [false, true] {
                let kept =
                    |number: usize| number + open < writes.len() || subset >> (writes.len() - 1 - number) & 1 == 1;
                let image = image(
                    &whole,
                    &writes,
                    |number| number < synced || kept(number),
                    is_torn && open > 0,
                );
                let is_whole = image == whole;
                torn += usize::from(!is_whole);
                // Once renamed, the name may be on the disk and what was not synced may not.
                assert!(
                    is_whole || !done.contains(&Step::Rename),
                    "step {end}, subset {subset:b}"
                );
                assert!(
                    is_whole || !verifies(image),
                    "step {end}, subset {subset:b}: a torn file verifies"
                );
            }
        }
    }
    assert!(torn > 8, "only {torn} torn images");
    assert!(
        steps.contains(&Step::Rename) && steps.contains(&Step::Sync),
        "{steps:?}"
    );
}

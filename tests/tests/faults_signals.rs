//! Rows of the fault matrix about signals and pipes (S): kills at any moment, pauses, and readers that are slow.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Done, Run, TempDir, code, peak_bytes, signal, temp_dir, tool, wait};

/// A directory with `x.npy`, an array of some megabytes.
fn scene(megabytes: usize) -> TempDir {
    let directory = temp_dir();
    let rows = megabytes * 1024;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 256), }}");
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend((0..rows as u32 * 256).flat_map(|index| (index as f32 * 0.37).sin().to_le_bytes()));
    fs::write(directory.path().join("x.npy"), bytes).unwrap();
    directory
}

fn convert(directory: &Path, more: &[&str]) -> Run {
    Run::new(tool("acts-cat"))
        .current_dir(directory)
        .args(["--from", "x.npy", "-o", "y.acts"])
        .args(more)
}

/// KILLS=200 for a night.
fn kill_count() -> u32 {
    std::env::var("KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

#[test]
fn s_01_killed_at_any_moment_there_is_nothing_or_a_whole_file() {
    let scene = scene(16);
    let path = |name: &str| scene.path().join(name);
    let clock = Instant::now();
    convert(scene.path(), &[]).output().expect(0);
    let whole = (clock.elapsed(), fs::read(path("y.acts")).unwrap());
    let (mut kills, mut partials) = (0, 0);
    for turn in 0..kill_count() {
        fs::remove_file(path("y.acts")).ok();
        fs::remove_file(path(".y.acts.partial")).ok();
        let mut child = convert(scene.path(), &[]).spawn();
        std::thread::sleep(whole.0.mul_f64(f64::from(turn) / f64::from(kill_count())));
        let _ = child.kill();
        kills += u32::from(!wait(&mut child, Duration::from_secs(10)).success());
        partials += u32::from(path(".y.acts.partial").exists());
        assert!(
            !path("y.acts").exists() || fs::read(path("y.acts")).unwrap() == whole.1,
            "kill {turn}"
        );
    }
    assert!(
        kills > 5 && partials > 0,
        "{kills} kills, {partials} in the middle of writing"
    );
    convert(scene.path(), &["--force"]).output().expect(0);
    assert!(fs::read(path("y.acts")).unwrap() == whole.1);
}

/// What Linux says of a running process.
fn status(child: &Child) -> String {
    fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap()
}

fn is_stopped(child: &Child) -> bool {
    status(child).contains("\nState:\tT")
}

#[test]
fn s_09_a_slow_reader_does_not_make_its_producer_grow() {
    let scene = scene(64);
    convert(scene.path(), &["--codec", "stored"]).output().expect(0);
    let rows = |count: &str| -> Child {
        Command::new(tool("acts-cat"))
            .args(["y.acts", "--to", "jsonl", "--threads", "1", "--head", count])
            .current_dir(scene.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let read = |child: &mut Child, bytes: usize| {
        let mut buffer = vec![0; bytes];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut buffer);
        read.expect("the producer has more to say");
    };
    let mut child = rows("1000000");
    read(&mut child, 1 << 20);
    let early = peak_bytes(&child).expect("it runs");
    for _ in 0..20 {
        read(&mut child, 64 << 10);
        std::thread::sleep(Duration::from_millis(50));
    }
    let late = peak_bytes(&child).expect("it runs");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(late < early + (8 << 20), "{early} bytes, then {late}");
}

#[test]
fn s_10_a_run_that_is_paused_gives_the_same_bytes() {
    let scene = scene(16);
    let path = |name: &str| -> PathBuf { scene.path().join(name) };
    convert(scene.path(), &[]).output().expect(0);
    fs::rename(path("y.acts"), path("whole.acts")).unwrap();
    let mut child = convert(scene.path(), &[]).spawn();
    let mut pause_count = 0;
    for _ in 0..10 {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        signal(&child, "STOP");
        std::thread::sleep(Duration::from_millis(20));
        pause_count += u32::from(is_stopped(&child));
        signal(&child, "CONT");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(pause_count > 0, "it was never stopped");
    assert_eq!(code(wait(&mut child, Duration::from_secs(60))), 0);
    assert!(fs::read(path("y.acts")).unwrap() == fs::read(path("whole.acts")).unwrap());
}

#[test]
fn s_10_no_byte_follows_the_clock() {
    let Some(faketime) = harness::program("faketime") else {
        return;
    };
    let scene = scene(1);
    let path = |name: &str| scene.path().join(name);
    convert(scene.path(), &[]).output().expect(0);
    let whole = fs::read(path("y.acts")).unwrap();
    for moment in ["-1 hour", "+10 years", "1970-01-02 00:00:00", "2040-01-01 00:00:00"] {
        let done: Done = Run::new(&faketime)
            .current_dir(scene.path())
            .args(["-f", moment])
            .arg(tool("acts-cat"))
            .args(["--from", "x.npy", "-o", "y.acts", "--force"])
            .output();
        done.expect(0);
        assert!(fs::read(path("y.acts")).unwrap() == whole, "{moment}");
    }
}

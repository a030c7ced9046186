//! Rows of the fault matrix about resources (R): memory, streams longer than memory, and devices that are not there.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acts::{Codec, Dtype, Header, TensorSpec, Writer};
use harness::{Done, Run, code, lettered_model, peak_bytes, temp_dir, tool, wait};

/// A run under a limit on its address space.
fn limited(kib: u64, program: &str, args: &[&str], directory: &Path) -> Run {
    Run::new("bash")
        .args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")])
        .arg(tool(program))
        .args(args)
        .current_dir(directory)
        // OpenBLAS starts threads of its own where it is linked, and does not bear that they cannot start.
        .env("OPENBLAS_NUM_THREADS", "1")
        .deadline(Duration::from_secs(60))
}

/// What a row may take beyond a program's own needs: a line of 16 MiB holds a million values at most, which are copied as their list grows.
const ROW_KIB: u64 = 400 << 10;

/// The least address space, in KiB, in which a call succeeds.
fn least_kib(program: &str, args: &[&str], directory: &Path) -> u64 {
    let (mut enough, mut little) = (16 << 20, 0);
    while enough - little > 1024 {
        let middle = (enough + little) / 2;
        match limited(middle, program, args, directory).output().code {
            0 => enough = middle,
            _ => little = middle,
        }
    }
    enough
}

#[test]
fn r_01_hostile_records_are_refused_in_little_more_memory_than_a_program_needs() {
    let directory = temp_dir();
    let place = directory.path();
    fs::write(place.join("sound.jsonl"), "{\"text\":\"one two\"}\n").unwrap();
    let keys: Vec<String> = (0..1_000_000).map(|key| format!("\"{key}\":0")).collect();
    let attacks = [
        ("depth", format!("{{\"text\":{}", "[".repeat(1_000_000))),
        ("keys", format!("{{{}}}", keys.join(","))),
        ("digits", format!("{{\"text\":\"a\",\"n\":1{}}}", "0".repeat(1_000_000))),
        ("values", format!("{{\"text\":[{}0]}}", "0,".repeat(2_000_000))),
        ("line", format!("{{\"text\":\"{}\"}}", "x".repeat(20 << 20))),
    ];
    let args = |name| ["--threads", "1", "--input-format", "jsonl", "--format", "jsonl", name];
    let least = least_kib("ds-entropy", &args("sound.jsonl"), place);
    for (name, text) in attacks {
        fs::write(place.join(name), text).unwrap();
        let done = limited(least + ROW_KIB, "ds-entropy", &args(name), place).output();
        done.refused(3, name);
    }
}

/// Bytes that one consumer reads; GIB=20 for a night.
fn stream_bytes() -> u64 {
    let gib: Option<u64> = std::env::var("GIB").ok().and_then(|text| text.parse().ok());
    gib.map_or(192 << 20, |gib| gib << 30)
}

/// Feeds a consumer from `fill` until `bytes` are through, and says the most memory that it held on the way, in MiB.
fn peak_while_fed(child: &mut Child, bytes: u64, piece: &[u8]) -> u64 {
    let mut pipe = child.stdin.take().unwrap();
    let mut peak = 0;
    let mut fed = 0;
    while fed < bytes {
        pipe.write_all(piece).expect("the consumer reads on");
        fed += piece.len() as u64;
        peak = peak.max(peak_mib(child));
    }
    peak
}

fn peak_mib(child: &Child) -> u64 {
    peak_bytes(child).expect("it runs") >> 20
}

fn consumer(program: &str, args: &[&str], directory: &Path) -> Child {
    Command::new(tool(program))
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn r_02_records_beyond_memory_are_counted_within_the_bound_that_was_given() {
    let directory = temp_dir();
    let line: String = (0..2000).map(|word| format!("w{} ", word % 97)).collect();
    let piece = format!("{{\"text\":\"{line}\"}}\n").repeat(100);
    let args = [
        "--threads",
        "2",
        "--max-memory",
        "64M",
        "--format",
        "jsonl",
        "--ngrams",
        "1",
        "-",
    ];
    let mut child = consumer("ds-entropy", &args, directory.path());
    let peak = peak_while_fed(&mut child, stream_bytes() / 4, piece.as_bytes());
    assert_eq!(code(wait(&mut child, Duration::from_secs(600))), 0);
    assert!(peak < 64 + 192, "{peak} MiB");
}

#[test]
fn r_02_a_container_beyond_memory_is_made_and_checked_in_bounded_memory() {
    let directory = temp_dir();
    let place = directory.path();
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::new("x", Dtype::F32, &[256]).codec(Codec::Stored)];
    header.fix_blocks().unwrap();
    // Written straight into the check, without a file between.
    let mut child = consumer("acts-check", &["-", "--threads", "2"], place);
    let mut writer = Writer::new(child.stdin.take().unwrap(), header, 1).unwrap();
    let piece = vec![0x3e; 1 << 20];
    let mut peak = 0;
    for _ in 0..stream_bytes() >> 20 {
        writer.push(0, &piece).unwrap();
        peak = peak.max(peak_mib(&child));
    }
    drop(writer.finish().unwrap());
    assert_eq!(code(wait(&mut child, Duration::from_secs(600))), 0);
    assert!(peak < 128, "{peak} MiB");
}

#[test]
fn r_03_memory_that_ends_anywhere_is_an_error_of_the_environment_and_no_abort() {
    let directory = temp_dir();
    let place = directory.path();
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::new("x", Dtype::F32, &[256])];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    let values: Vec<u8> = (0..4u32 << 20)
        .flat_map(|index| (index as f32).sin().to_le_bytes())
        .collect();
    writer.push(0, &values).unwrap();
    fs::write(place.join("x.acts"), writer.finish().unwrap().0).unwrap();
    let line: String = (0..2000).map(|word| format!("w{word} ")).collect();
    let rows = format!("{{\"text\":\"{line}\"}}\n").repeat(2000);
    fs::write(place.join("rows.jsonl"), rows).unwrap();
    let calls: [(&str, &[&str]); 3] = [
        ("acts-check", &["--full", "--threads", "1", "--no-map", "x.acts"]),
        (
            "acts-cat",
            &["x.acts", "--threads", "1", "--to", "raw", "-o", "out", "--force"],
        ),
        ("ds-entropy", &["--threads", "1", "--format", "jsonl", "rows.jsonl"]),
    ];
    for (program, args) in calls {
        let start = least_kib(program, &["--version"], place) + 2048;
        let end = least_kib(program, args, place);
        let step = ((end.saturating_sub(start)) / 24).max(64);
        let (mut failures, mut aborts) = (0, 0);
        for kib in (start..end + 2 * step).step_by(step as usize) {
            let Done { code, stderr, .. } = limited(kib, program, args, place).output();
            // where memory ends in the few bytes that glibc takes for itself as a thread begins, it aborts and asks nobody: one call in a
            // thousand here
            if code == 134 && stderr.contains("Fatal glibc error") {
                aborts += 1;
                continue;
            }
            assert!([0, 4].contains(&code), "{program} in {kib} KiB: exit {code}: {stderr}");
            failures += u32::from(code == 4);
            assert!(
                code == 0 || stderr.contains("memory") || stderr.contains("thread"),
                "{stderr}"
            );
        }
        assert!(aborts < 2, "{program}: glibc aborted {aborts} times");
        assert!(
            failures > 3,
            "{program}: memory ended {failures} times between {start} and {end} KiB"
        );
    }
}

#[test]
fn r_04_threads_that_cannot_start_are_done_without_or_are_an_error_of_the_environment() {
    let directory = temp_dir();
    let place = directory.path();
    let rows: String = (0..300)
        .map(|row| format!("{{\"text\":\"row {row} of many\"}}\n"))
        .collect();
    fs::write(place.join("rows.jsonl"), rows).unwrap();
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::new("x", Dtype::F32, &[256])];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push(0, &vec![0x3e; 1 << 20]).unwrap();
    fs::write(place.join("x.acts"), writer.finish().unwrap().0).unwrap();
    let calls: [(&str, &[&str]); 3] = [
        ("acts-check", &["--full", "--threads", "8", "x.acts"]),
        ("acts-cat", &["--to", "raw", "--threads", "8", "x.acts"]),
        ("ds-entropy", &["--threads", "8", "--format", "jsonl", "rows.jsonl"]),
    ];
    for (program, args) in calls {
        let plain = Run::new(tool(program)).current_dir(place).args(args).output().expect(0);
        // Stacks so large that three fit, and then none.
        let few = limited(4 << 20, program, args, place).env("RUST_MIN_STACK", (1u64 << 30).to_string());
        let few = few.output();
        match few.code {
            0 => assert_eq!(few.stdout, plain.stdout, "{program}"),
            _ => drop(few.refused(4, "thread")),
        }
        let none = limited(1 << 20, program, args, place).env("RUST_MIN_STACK", (1u64 << 40).to_string());
        none.output().refused(4, "thread");
    }
}

#[test]
fn r_05_a_device_that_is_not_there_is_an_error_of_the_environment() {
    let directory = temp_dir();
    lettered_model("llama", &directory.path().join("model"));
    fs::write(
        directory.path().join("rows.jsonl"),
        "{\"prompt\":\"a\",\"completion\":\"b\"}\n",
    )
    .unwrap();
    let calls: [(&str, &[&str]); 4] = [
        ("lm-gen", &["rows.jsonl"]),
        ("resid-dump", &["rows.jsonl", "-o", "out"]),
        ("vcl-train", &["--data", "rows.jsonl", "-o", "out"]),
        ("stable-regions", &["--random", "2", "rows.jsonl"]),
    ];
    for (program, args) in calls {
        let run = |device: &str| {
            let run = Run::new(tool(program)).current_dir(directory.path());
            run.args(["--model", "model", "--device", device]).args(args).output()
        };
        // On a machine with devices there are never so many.
        run("cuda:999").refused(4, "--device");
        assert!(!directory.path().join("out").exists(), "{program}");
    }
}

#[test]
fn j_04_a_gigabyte_without_an_end_of_line_is_refused_by_every_reader_of_records() {
    let directory = temp_dir();
    let calls: [(&str, &[&str]); 4] = [
        ("ds-entropy", &["--input-format", "jsonl", "-"]),
        ("refusal-eval", &["report", "-"]),
        ("skill-eval", &["report", "-"]),
        ("resid-plot", &["-", "-o", "x.svg"]),
    ];
    let piece = vec![b'x'; 1 << 20];
    for (program, args) in calls {
        let mut child = Command::new(tool(program))
            .args(args)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut peak = 0;
        let fed = (0..1024).take_while(|_| {
            peak = peak.max(peak_mib(&child));
            pipe.write_all(&piece).is_ok()
        });
        let fed = fed.count();
        drop(pipe);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(code(wait(&mut child, Duration::from_secs(60))), 3, "{program}: {said}");
        assert!(fed < 64, "{program} took {fed} MiB");
        assert!(peak < 128, "{program} held {peak} MiB");
    }
}

#[test]
fn a_damaged_tail_of_a_compressed_file_is_refused_and_members_may_follow_each_other() {
    let directory = temp_dir();
    let path = |name: &str| directory.path().join(name);
    let rows: String = (0..500)
        .map(|row| format!("{{\"text\":\"row {row} of many\"}}\n"))
        .collect();
    let packed = |program: &str| {
        let program = harness::program(program)?;
        Some(
            Run::new(program)
                .arg("-c")
                .stdin(rows.clone())
                .output()
                .expect(0)
                .stdout,
        )
    };
    let count = |name: &str| {
        let run = Run::new(tool("ds-entropy")).args(["--format", "jsonl"]).arg(path(name));
        run.output()
    };
    for (program, name) in [("gzip", "rows.jsonl.gz"), ("zstd", "rows.jsonl.zst")] {
        let Some(sound) = packed(program) else {
            continue;
        };
        fs::write(path(name), sound.repeat(2)).unwrap();
        let twice = count(name).expect(0);
        let counted = twice.records().into_iter().find(|row| row["type"] == "entropy");
        assert_eq!(counted.unwrap()["sample_count"], 1000, "{name}");
        for tail in 1..=8.min(sound.len()) {
            let at = sound.len() - tail;
            fs::write(path(name), &sound[..at]).unwrap();
            count(name).refused(3, name);
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            fs::write(path(name), flipped).unwrap();
            count(name).refused(3, name);
        }
        fs::write(path(name), [&sound[..], b"and more"].concat()).unwrap();
        count(name).refused(3, name);
    }
}

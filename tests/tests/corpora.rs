//! The seeds of the fuzz targets, each as it is and damaged at random places: what tests/fuzz looks for in hours holds here in seconds.
//!
//! MUTATIONS=1000 damages each seed so many times.

#[path = "../fuzz/properties/mod.rs"]
#[allow(dead_code, reason = "fuzz programs use the rest")]
mod properties;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Run, temp_dir, tool, workspace};
use properties::tools::uses;
use properties::{ROOT, TARGETS, memory};

/// BOUND: one reading. The slowest take milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

fn fuzz() -> PathBuf {
    workspace().join("tests/fuzz")
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(fuzz().join("corpus").join(target)).unwrap_or_else(|_| panic!("{target} has no seeds"));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    seeds.sort();
    seeds
}

fn mutations(usual: u64) -> u64 {
    let asked = std::env::var("MUTATIONS").ok();
    asked.map_or(usual, |text| text.parse().expect("MUTATIONS is a number"))
}

/// A copy with one to four edits, always the same for the same seed and round.
fn damaged(seed: &[u8], round: u64) -> Vec<u8> {
    let mut random = blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof();
    let mut number = || {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) as usize
    };
    let mut bytes = seed.to_vec();
    for _ in 0..=number() % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = number() % bytes.len();
        let until = |length: usize| (at + length).min(seed.len()).max(at);
        let end = bytes.len().min(until(1 + number() % 64));
        match number() % 6 {
            0 => bytes[at] ^= 1 << (number() % 8),
            1 => bytes[at] = number() as u8,
            // numbers of interest where a length or an offset may stand
            2 => {
                let value = [0u32, 1, u32::MAX, 1 << 31, 64, 0x184D_2A51][number() % 6];
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end.max(at))),
            _ => {
                let piece = bytes[at..end.max(at)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Each seed, and copies of it that are damaged.
fn inputs(target: &str, rounds: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    seeds(target).into_iter().flat_map(move |(name, seed)| {
        let copies: Vec<_> = (0..rounds)
            .map(|round| (format!("{name}, round {round}"), damaged(&seed, round)))
            .collect();
        std::iter::once((name, seed)).chain(copies)
    })
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let targets: BTreeSet<&str> = TARGETS
        .iter()
        .map(|(name, _)| *name)
        .chain(uses().iter().map(|used| used.name))
        .collect();
    let corpora = fs::read_dir(fuzz().join("corpus")).unwrap();
    let corpora: BTreeSet<String> = corpora
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        corpora.iter().map(String::as_str).eq(targets.iter().copied()),
        "{corpora:?} are the seeds of {targets:?}"
    );
    for used in uses() {
        let program = format!("fuzz_targets/{}.rs", used.tool().replace('-', "_"));
        assert!(fuzz().join(&program).exists(), "{} is run by no {program}", used.name);
    }
}

#[test]
fn any_bytes_are_refused_by_a_library_or_read() {
    let directory = temp_dir();
    ROOT.set(directory.path().to_owned()).unwrap();
    for (target, property) in TARGETS {
        for (input, bytes) in inputs(target, mutations(30)) {
            let start = Instant::now();
            // what a failure says of itself does not tell the input
            let ended = std::panic::catch_unwind(|| memory::bounded(target, || property(&bytes)));
            assert!(ended.is_ok(), "{target}: {input}");
            assert!(
                start.elapsed() < DEADLINE,
                "{target}: {input} takes {:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn any_bytes_are_refused_by_a_tool_or_read() {
    let directory = temp_dir();
    for used in uses() {
        for (input, bytes) in inputs(used.name, mutations(3)) {
            let run = Run::new(tool(used.tool())).args(used.given(&bytes, directory.path()));
            let done = run.deadline(DEADLINE).output();
            assert!(
                [0, 2, 3].contains(&done.code),
                "{}: {input}: exit {}: {}",
                used.name,
                done.code,
                done.stderr
            );
        }
    }
}

//! Rows of the fault matrix about resuming (C), on resid-dump: whatever happened to a run, resumed it gives the bytes of one that nothing happened to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use harness::{Done, Run, TempDir, code, lettered_model, signal, temp_dir, tool, wait};

/// More calls of one kind than a small run makes.
const CALLS_MAX: usize = 400;
const FLAGS: &str = "--positions all --sites logits,resid_post --codec stored --batch-tokens 64";

/// A model, prompts for several units, and the container of a run to which nothing happened.
struct Scene {
    directory: TempDir,
    whole: Vec<u8>,
}

impl Scene {
    fn new(prompt_count: usize) -> Scene {
        let directory = temp_dir();
        lettered_model("llama", &directory.path().join("model"));
        let prompts: String = (0..prompt_count)
            .map(|index| format!("{{\"prompt\":\"prompt number {index} which is long enough to fill sixty\"}}\n"))
            .collect();
        fs::write(directory.path().join("prompts.jsonl"), prompts).unwrap();
        let mut scene = Scene {
            directory,
            whole: Vec::new(),
        };
        scene.run("-o whole.acts").output().expect(0);
        scene.whole = fs::read(scene.path("whole.acts")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn arguments(&self, more: &str) -> Vec<String> {
        let line = format!("--model model prompts.jsonl --threads 1 {FLAGS} {more}");
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn run(&self, more: &str) -> Run {
        Run::new(tool("resid-dump"))
            .current_dir(self.directory.path())
            .args(self.arguments(more))
    }

    /// A run of `-o d.acts --resume` under strace with one fault, and whether it was met; none where strace may not trace.
    fn injected(&self, fault: &str) -> Option<(Done, bool)> {
        let run = Run::new(harness::program("strace")?)
            .args(["-f", "-o", "trace", "-e", &format!("inject={fault}")])
            .arg(tool("resid-dump"))
            .args(self.arguments("-o d.acts --resume"));
        let done = run.current_dir(self.directory.path()).output();
        let trace = fs::read_to_string(self.path("trace")).unwrap_or_default();
        if trace.is_empty() {
            harness::skip("ptrace", format!("strace cannot trace here: {}", done.stderr.trim()));
            return None;
        }
        let was_met = trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL");
        Some((done, was_met))
    }

    /// Resumes `d.acts` and compares.
    #[track_caller]
    fn ends_as_whole(&self, what: &str) {
        let done = self.run("-o d.acts --resume").output();
        assert_eq!(done.code, 0, "{what}: {}", done.stderr);
        assert!(fs::read(self.path("d.acts")).unwrap() == self.whole, "{what}");
        assert!(
            !self.path(".d.acts.partial").exists() && !self.path(".d.acts.journal").exists(),
            "{what}"
        );
    }

    fn clear(&self) {
        for name in ["d.acts", "d.acts.run.json", ".d.acts.partial", ".d.acts.journal"] {
            let _ = fs::remove_file(self.path(name));
        }
    }

    /// A run that stops in the middle, by its file: the partial file and the journal that it leaves.
    fn interrupted(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (_, was_met) = self.injected("write:signal=SIGKILL:when=30")?;
        assert!(was_met, "the run was over before it could be killed");
        let read = |name: &str| fs::read(self.path(name)).unwrap();
        Some((read(".d.acts.partial"), read(".d.acts.journal")))
    }
}

#[test]
fn c_02_killed_at_any_call_and_resumed_the_bytes_are_those_of_one_run() {
    let scene = Scene::new(16);
    for call in ["write", "fsync", "fdatasync", "rename"] {
        for when in 1..CALLS_MAX {
            scene.clear();
            let fault = format!("{call}:signal=SIGKILL:when={when}");
            let Some((done, was_met)) = scene.injected(&fault) else {
                return;
            };
            if !was_met {
                assert_eq!(done.code, 0, "{fault}: {}", done.stderr);
                assert!(when > 1 || call.ends_with("sync"), "no {call} was met");
                break;
            }
            scene.ends_as_whole(&fault);
        }
    }
}

#[test]
fn c_03_killed_while_it_resumes_three_times_in_a_row() {
    let scene = Scene::new(40);
    for when in [30, 6, 4, 3] {
        let Some((_, was_met)) = scene.injected(&format!("write:signal=SIGKILL:when={when}")) else {
            return;
        };
        assert!(was_met, "the run was over before write {when}");
    }
    scene.ends_as_whole("after four kills");
}

#[test]
fn c_05_a_flipped_bit_or_a_cut_anywhere_in_what_is_left_changes_no_byte_of_the_end() {
    let scene = Scene::new(40);
    let Some((partial, journal)) = scene.interrupted() else {
        return;
    };
    assert!(
        partial.len() > 1000 && journal.len() > 500,
        "{} {}",
        partial.len(),
        journal.len()
    );
    let step = |length: usize| (length / 10).max(1);
    for (name, sound) in [(".d.acts.partial", &partial), (".d.acts.journal", &journal)] {
        for at in (0..sound.len()).step_by(step(sound.len())) {
            for is_cut in [false, true] {
                scene.clear();
                fs::write(scene.path(".d.acts.partial"), &partial).unwrap();
                fs::write(scene.path(".d.acts.journal"), &journal).unwrap();
                let mut damaged = sound.clone();
                match is_cut {
                    true => damaged.truncate(at),
                    false => damaged[at] ^= 1 << (at % 8),
                }
                fs::write(scene.path(name), damaged).unwrap();
                let what = format!("{name} {} at {at}", if is_cut { "cut" } else { "flipped" });
                let done = scene.run("-o d.acts --resume").output();
                match done.code {
                    0 => assert!(fs::read(scene.path("d.acts")).unwrap() == scene.whole, "{what}"),
                    // A header of another kind is not ours to write over.
                    3 | 5 => assert!(!scene.path("d.acts").exists(), "{what}"),
                    other => panic!("{what}: exit {other}: {}", done.stderr),
                }
            }
        }
    }
}

#[test]
fn c_07_a_disk_that_fills_up_at_any_write_and_has_space_again() {
    let scene = Scene::new(16);
    let mut met = 0;
    for when in (1..CALLS_MAX).step_by(3) {
        scene.clear();
        let fault = format!("write:error=ENOSPC:when={when}+");
        let Some((done, was_met)) = scene.injected(&fault) else {
            return;
        };
        if !was_met {
            break;
        }
        met += 1;
        assert_eq!(done.code, 4, "{fault}: {}", done.stderr);
        assert!(
            !scene.path("d.acts").exists() || fs::read(scene.path("d.acts")).unwrap() == scene.whole,
            "{fault}"
        );
        scene.ends_as_whole(&fault);
    }
    assert!(met > 2, "the disk was never full");
}

#[test]
fn c_10_threads_umask_zone_locale_and_directory_may_change_between_the_runs() {
    let scene = Scene::new(40);
    if scene.interrupted().is_none() {
        return;
    }
    let root = scene.directory.path();
    let arguments: Vec<String> = scene
        .arguments("-o d.acts --resume")
        .into_iter()
        .map(|word| match word.as_str() {
            "model" | "prompts.jsonl" | "d.acts" => root.join(word).display().to_string(),
            "1" => "2".to_owned(),
            _ => word,
        })
        .collect();
    Run::new("sh")
        .args(["-c", "umask 077; cd /; exec \"$0\" \"$@\""])
        .arg(tool("resid-dump"))
        .args(arguments)
        .env("TZ", "Asia/Kathmandu")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("HOSTNAME", "elsewhere")
        .output()
        .expect(0);
    assert!(fs::read(scene.path("d.acts")).unwrap() == scene.whole);
}

/// Waits until a run has written some of its file, and stops it there.
fn pause(child: &Child, partial: &Path) {
    let start = Instant::now();
    while fs::metadata(partial).map_or(0, |found| found.len()) < 4096 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(child, "STOP");
}

#[test]
fn s_04_a_second_signal_ends_a_run_at_once_and_it_can_be_resumed() {
    let scene = Scene::new(400);
    for (first, second, expected) in [("INT", "INT", 130), ("TERM", "INT", 130), ("INT", "TERM", 143)] {
        scene.clear();
        let mut child = scene.run("-o d.acts --resume").spawn();
        pause(&child, &scene.path(".d.acts.partial"));
        // Apart, for two signals of one kind that wait together are one.
        signal(&child, first);
        signal(&child, "CONT");
        signal(&child, second);
        let clock = Instant::now();
        let ended = code(wait(&mut child, Duration::from_secs(10)));
        // The first may have ended it before the second came.
        let by_first = 128 + if first == "INT" { 2 } else { 15 };
        assert!(ended == expected || ended == by_first, "{first} {second}: {ended}");
        assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
        assert!(!scene.path("d.acts").exists(), "{first} {second}");
        scene.ends_as_whole(&format!("{first} {second}"));
    }
}

#[test]
fn c_12_of_two_resumes_at_once_one_finishes_and_the_other_is_a_conflict() {
    let scene = Scene::new(400);
    if scene.interrupted().is_none() {
        return;
    }
    let mut first = scene.run("-o d.acts --resume").spawn();
    pause(&first, &scene.path(".d.acts.partial"));
    scene.run("-o d.acts --resume").output().refused(5, "another process");
    signal(&first, "CONT");
    assert_eq!(code(wait(&mut first, Duration::from_secs(120))), 0);
    assert!(fs::read(scene.path("d.acts")).unwrap() == scene.whole);
}

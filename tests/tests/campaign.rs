//! Campaigns: the same promise tried many times. `make test` runs a few rounds; `FLOWLENS_CAMPAIGN=500` (`make campaign`) runs so many.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Done, Run, TempDir, lettered_model, temp_dir, tool};

/// Rounds where nobody asks for more.
const ROUND_COUNT: u64 = 10;

fn round_count() -> u64 {
    let asked = std::env::var("FLOWLENS_CAMPAIGN").ok();
    asked.map_or(ROUND_COUNT, |count| {
        count.parse().expect("FLOWLENS_CAMPAIGN is a number")
    })
}

/// One call of a tool: `OUT` stands for what it writes (a line without it prints), `IN/` for the directory of its inputs.
struct Job {
    name: &'static str,
    line: &'static str,
    /// What a call after a kill adds.
    again: &'static str,
}

const JOBS: [Job; 5] = [
    Job {
        name: "resid-dump",
        line: "--model IN/model IN/prompts.jsonl --positions all --sites logits,resid_post --codec stored --batch-tokens 64 -o OUT",
        again: "--resume",
    },
    Job {
        name: "lm-gen",
        line: "--model IN/model IN/prompts.jsonl --max-new-tokens 8 --batch 4 -o OUT",
        again: "--resume",
    },
    Job {
        name: "vcl-train",
        line: "--model IN/model --data IN/train.jsonl --raw --batch-size 4 --epochs 2 --checkpoint-every 2 \
               --aux vcl:k=2,gamma=0.5,window=0-1,sign=spread -o OUT",
        again: "--resume",
    },
    Job {
        name: "acts-cat",
        line: "--merge IN/part-0.acts IN/part-1.acts -o OUT",
        again: "--force",
    },
    Job {
        name: "ds-entropy",
        line: "IN/train.jsonl --view both --at 50 --ngrams 5 -o OUT",
        again: "--force",
    },
];

/// Calls that only read what the jobs above take, for threads and surroundings.
const READERS: [Job; 4] = [
    Job {
        name: "flowlens-pca",
        line: "IN/last.acts --group group --resamples 50",
        again: "",
    },
    Job {
        name: "stable-regions",
        line: "--model IN/model --across label --field prompt --limit 4 --steps 8 IN/prompts.jsonl -o OUT",
        again: "",
    },
    Job {
        name: "act-stats",
        line: "IN/last.acts",
        again: "",
    },
    Job {
        name: "refusal-eval",
        line: "judge IN/answers.jsonl -o OUT",
        again: "",
    },
];

struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let directory = temp_dir();
        let path = directory.path();
        lettered_model("llama", &path.join("model"));
        let prompt = |index: usize| {
            let label = ["safe", "unsafe"][index % 2];
            format!("{{\"id\":\"{index}\",\"label\":\"{label}\",\"prompt\":\"prompt number {index} of words\"}}\n")
        };
        let row = |index: usize| {
            format!(
                "{{\"prompt\":\"what is {index}?\",\"completion\":\" it is {} and {index}.\"}}\n",
                index % 7
            )
        };
        let answer = |index: usize| {
            let said = ["I cannot help with that.", "The answer is 4, as you can see."][index % 2];
            format!("{{\"id\":\"{index}\",\"prompt\":\"what is {index}?\",\"completion\":\"{said}\"}}\n")
        };
        for (name, text) in [
            ("prompts.jsonl", (0..48).map(prompt).collect::<String>()),
            ("train.jsonl", (0..48).map(row).collect()),
            ("answers.jsonl", (0..48).map(answer).collect()),
        ] {
            fs::write(path.join(name), text).expect("an input");
        }
        let scene = Scene { directory };
        let dump = "--model IN/model IN/prompts.jsonl --group label --positions last -o";
        for (more, output) in [("", "last"), ("--shard 0/2", "part-0"), ("--shard 1/2", "part-1")] {
            let words = scene.words(&format!("{dump} IN/{output}.acts {more}"), Path::new(""));
            Run::new(tool("resid-dump")).args(words).output().expect(0);
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn words(&self, line: &str, output: &Path) -> Vec<String> {
        let inputs = format!("{}/", self.directory.path().display());
        let word = |word: &str| match word {
            "OUT" => output.display().to_string(),
            _ => word.replace("IN/", &inputs),
        };
        line.split_whitespace().map(word).collect()
    }

    fn call(&self, job: &Job, output: &Path, more: &str) -> Run {
        Run::new(tool(job.name)).args(self.words(&format!("{} {more}", job.line), output))
    }

    /// What an undisturbed call writes, and how long it takes.
    fn whole(&self, job: &Job) -> (BTreeMap<PathBuf, Vec<u8>>, Duration) {
        let output = self.path(&format!("whole-{}", job.name));
        let start = Instant::now();
        let done = self.call(job, &output, "").output().expect(0);
        (products(job, &output, done), start.elapsed())
    }
}

/// What a call wrote, or printed.
fn products(job: &Job, output: &Path, done: Done) -> BTreeMap<PathBuf, Vec<u8>> {
    match job.line.ends_with("OUT") {
        true => written(output),
        false => BTreeMap::from([(PathBuf::new(), done.stdout)]),
    }
}

/// Files by name, without those that say when and how fast a run was.
fn written(output: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if !output.is_dir() {
        let bytes = fs::read(output).unwrap_or_else(|cause| panic!("{}: {cause}", output.display()));
        return BTreeMap::from([(PathBuf::new(), bytes)]);
    }
    let entries = fs::read_dir(output).expect("an output directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file() && !path.ends_with("run.json"))
        .map(|path| {
            (
                path.file_name().expect("a name").into(),
                fs::read(&path).expect("a file"),
            )
        })
        .collect()
}

/// A number that only depends on the round and what it is for.
fn drawn(round: u64, what: u64, below: u64) -> u64 {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    for _ in 0..3 {
        state ^= state >> 30;
        state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    (state >> 33) % below
}

#[test]
fn killed_at_any_moment_and_called_again_the_bytes_are_those_of_one_run() {
    let scene = Scene::new();
    let wholes: Vec<_> = JOBS.iter().map(|job| scene.whole(job)).collect();
    let mut kill_count = 0;
    for round in 0..round_count() {
        let at = round as usize % JOBS.len();
        let (job, (whole, duration)) = (&JOBS[at], &wholes[at]);
        let output = scene.path(&format!("round-{round}"));
        let mut more = "";
        for attempt in 0..1 + drawn(round, 99, 3) {
            let mut child = scene.call(job, &output, more).spawn();
            let share = drawn(round, attempt, 1000) as f64 / 1000.0;
            std::thread::sleep(duration.mul_f64(1.1 * share));
            let _ = child.kill();
            let status = child.wait().expect("a child that ends");
            kill_count += u64::from(!status.success());
            assert!(
                !output.exists() || written(&output) == *whole,
                "round {round}: what {} left under its final name is not whole",
                job.name
            );
            more = job.again;
        }
        scene.call(job, &output, more).output().expect(0);
        assert!(
            written(&output) == *whole,
            "round {round}: {} gives other bytes",
            job.name
        );
    }
    assert!(
        kill_count > round_count() / 4,
        "{kill_count} kills came before the end of a run"
    );
    eprintln!("{kill_count} kills in {} rounds", round_count());
}

/// Threads, locale, file mode mask, home, time zone and working directory.
fn surroundings(scene: &Scene, job: &Job, output: &Path, round: u64) -> Done {
    let threads = [1, 2, 3, 7][drawn(round, 0, 4) as usize];
    let locale = ["C", "tr_TR.UTF-8", "de_DE.UTF-8"][drawn(round, 1, 3) as usize];
    let mask = ["022", "077", "002"][drawn(round, 2, 3) as usize];
    let zone = ["UTC", "Asia/Kathmandu"][drawn(round, 3, 2) as usize];
    let place = ["/", "."][drawn(round, 4, 2) as usize];
    Run::new("sh")
        .args(["-c", &format!("umask {mask}; cd {place}; exec \"$0\" \"$@\"")])
        .arg(tool(job.name))
        .args(scene.words(&format!("--threads {threads} {}", job.line), output))
        .env("LC_ALL", locale)
        .env("TZ", zone)
        .output()
}

#[test]
fn threads_locale_mask_zone_and_directory_change_no_byte() {
    let scene = Scene::new();
    for (at, job) in JOBS.iter().chain(&READERS).enumerate() {
        let (whole, _) = scene.whole(job);
        for round in 0..round_count().div_ceil(5) {
            let output = scene.path(&format!("{}-{round}", job.name));
            let done = surroundings(&scene, job, &output, round * 31 + at as u64).expect(0);
            assert!(
                products(job, &output, done) == whole,
                "round {round}: {} gives other bytes",
                job.name
            );
        }
    }
}

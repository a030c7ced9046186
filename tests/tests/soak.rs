//! Tools on great inputs: each on a quarter and on the whole. What a tool holds may not grow with what it reads, but for what each line below says;
//! the time is told, not judged. `make test` takes a hundredth of the sizes below; `make soak` (`FLOWLENS_SOAK=1`) all.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use acts::{Dtype, Header, Site, TensorSpec, Writer};
use harness::{Run, TempDir, code, lettered_model, peak_bytes, temp_dir, tool};

const CONTAINER_BYTES: u64 = 50_000_000_000;
const RECORD_COUNT: u64 = 10_000_000;
const PROMPT_COUNT: u64 = 100_000;
/// What a peak may differ by from one run to the next, beside an eighth.
const SLACK_BYTES: u64 = 8 << 20;
/// What may be kept of a record: a digest, a place or two, in tables that grow by doubling.
const RECORD_BYTES: u64 = 96;
/// What may be kept of a prompt of ten words: prompts are all read before a model is, so that the plan covers them.
const PROMPT_BYTES: u64 = 2 << 10;

/// So much of a size as is asked for.
fn scaled(whole: u64) -> u64 {
    let share: f64 = std::env::var("FLOWLENS_SOAK").map_or(0.01, |share| {
        share.parse().expect("FLOWLENS_SOAK is a share of the whole, such as 1")
    });
    (whole as f64 * share) as u64
}

/// How many the whole has more than the quarter.
fn more(count: u64) -> u64 {
    scaled(count) * 3 / 4
}

/// Two directories with the same inputs, one with a quarter of them.
struct Scene {
    quarter: TempDir,
    whole: TempDir,
}

impl Scene {
    /// `make` writes an input of so many parts into a directory.
    fn new(count: u64, make: impl Fn(&Path, u64)) -> Scene {
        let scene = Scene {
            quarter: temp_dir(),
            whole: temp_dir(),
        };
        make(scene.quarter.path(), scaled(count) / 4);
        make(scene.whole.path(), scaled(count));
        scene
    }

    /// Runs a line on both and holds the peaks of memory against each other, of which the whole's may be so much greater.
    fn soak(&self, line: &str, growth_bytes: u64) {
        let (little, short) = peak_of(line, self.quarter.path());
        let (much, long) = peak_of(line, self.whole.path());
        let mebibytes = |bytes: u64| bytes >> 20;
        eprintln!(
            "{line}: {} MiB, {:.1} s; four times as much: {} MiB, {:.1} s",
            mebibytes(little),
            short.as_secs_f64(),
            mebibytes(much),
            long.as_secs_f64()
        );
        assert!(
            much < little + little / 8 + SLACK_BYTES + growth_bytes,
            "{line}: {little} bytes of memory, {much} for four times as much input"
        );
    }
}

/// The most memory that a call held, and how long it took.
fn peak_of(line: &str, directory: &Path) -> (u64, Duration) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let start = Instant::now();
    let mut child = Run::new(tool(program)).args(words).current_dir(directory).spawn();
    (watched(&mut child), start.elapsed())
}

fn watched(child: &mut Child) -> u64 {
    let mut peak = 0;
    loop {
        // one that has ended and was not waited for yet tells no peak
        peak = peak.max(peak_bytes(child).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("waiting") {
            let mut said = String::new();
            let pipe = child.stderr.as_mut().expect("a pipe");
            pipe.read_to_string(&mut said).expect("text");
            assert_eq!(code(status), 0, "{said}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Rows of 256 numbers, the same 64 again and again, so that the file is small.
fn container(directory: &Path, byte_count: u64) {
    let rows: Vec<u8> = (0..64 * 256_u32)
        .flat_map(|at| ((at.wrapping_mul(2_654_435_761) >> 8) as f32).to_le_bytes())
        .collect();
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::activations(Site::ResidPost, Some(0), Dtype::F32, 256)];
    header.fix_blocks().expect("sizes of blocks");
    let file = File::create(directory.join("rows.acts")).expect("a file");
    let mut writer = Writer::new(BufWriter::new(file), header, 2).expect("a container");
    for _ in 0..byte_count / rows.len() as u64 {
        writer.push(0, &rows).expect("rows");
    }
    writer.finish().expect("a whole container");
}

fn lines(directory: &Path, name: &str, count: u64, line: impl Fn(u64) -> String) {
    let mut file = BufWriter::new(File::create(directory.join(name)).expect("a file"));
    for index in 0..count {
        file.write_all(line(index).as_bytes()).expect("a line");
    }
    file.flush().expect("the last lines");
}

fn answer(index: u64) -> String {
    let said = ["I cannot help with that.", "The answer is 4, as you can see."][index as usize % 2];
    let label = ["safe", "unsafe"][index as usize / 2 % 2];
    let asked = index % 9973;
    format!("{{\"id\":\"{index}\",\"label\":\"{label}\",\"prompt\":\"what is {asked}?\",\"completion\":\"{said}\"}}\n")
}

#[test]
fn containers_of_any_length_are_read_and_written_in_the_same_memory() {
    let scene = Scene::new(CONTAINER_BYTES, container);
    let size = |directory: &TempDir| directory.path().join("rows.acts").metadata().expect("a file").len();
    // pages of a mapped file count as memory, though the system takes them back when it needs them
    let mapped = size(&scene.whole) - size(&scene.quarter);
    for (line, bytes_of_row) in [
        ("acts-check --full rows.acts", 0),
        ("acts-check --full --no-map rows.acts", 0),
        ("acts-cat rows.acts --to raw", 0),
        ("acts-cat rows.acts --to acts --codec zstd -o again.acts", 0),
        ("act-stats rows.acts", 0),
        // its group and its prompt
        ("flowlens-pca rows.acts", 8),
    ] {
        scene.soak(line, mapped + more(CONTAINER_BYTES) / 1024 * bytes_of_row);
    }
}

#[test]
fn of_records_that_are_counted_and_judged_little_is_kept() {
    let scene = Scene::new(RECORD_COUNT, |directory, count| {
        lines(directory, "answers.jsonl", count, answer);
    });
    let keys = more(RECORD_COUNT) * RECORD_BYTES;
    for (line, growth_bytes) in [
        ("ds-entropy answers.jsonl --max-memory 16M", keys + (16 << 20)),
        ("refusal-eval judge answers.jsonl -o verdicts.jsonl", keys),
        ("refusal-eval report verdicts.jsonl", keys),
    ] {
        scene.soak(line, growth_bytes);
    }
}

#[test]
fn of_prompts_that_are_answered_and_dumped_little_is_kept() {
    let scene = Scene::new(PROMPT_COUNT, |directory, count| {
        lettered_model("llama", &directory.join("model"));
        lines(directory, "prompts.jsonl", count, answer);
    });
    for line in [
        "lm-gen --model model prompts.jsonl --max-new-tokens 4 --batch 32 -o answers.jsonl",
        "resid-dump --model model prompts.jsonl --positions last -o last.acts",
    ] {
        scene.soak(line, more(PROMPT_COUNT) * PROMPT_BYTES);
    }
}

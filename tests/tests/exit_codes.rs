//! Wrong calls against the table of exit codes: 2 for the call, 3 for the data, 4 for the surroundings, 5 for what is
//! already there. Each says one line that names what the caller can act on.

use std::fs;

use harness::{Run, TempDir, lettered_model, temp_dir, tool};

/// Input files of each kind, some of them damaged.
fn scene() -> TempDir {
    let directory = temp_dir();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    lettered_model("llama", &directory.path().join("model"));
    fs::create_dir(directory.path().join("empty")).unwrap();
    write(
        "rows.jsonl",
        b"{\"id\":\"a\",\"prompt\":\"ab\",\"completion\":\"cd\",\"text\":\"ab cd\"}\n",
    );
    write("broken.jsonl", b"{\"prompt\":\n");
    write("numbers.jsonl", b"{\"prompt\":7,\"text\":7}\n");
    write(
        "cut.jsonl",
        b"{\"type\":\"begin\",\"schema\":\"flowlens/1\",\"tool\":\"t\",\"version\":\"0\"}\n",
    );
    write("there", b"old");
    write("no.acts", b"this is no container, whatever its name says");
    write("no.npy", b"\x93NUMPY\x01\0");
    write("tail.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c]);
    directory
}

/// The tool, its arguments, the exit code, and words of the line.
const CALLS: &[(&str, &str, i32, &str)] = &[
    ("acts-cat", "", 2, "FILE"),
    ("acts-cat", "no.acts --rows 5:1", 2, "--rows"),
    ("acts-cat", "no.acts --to webp", 2, "--to"),
    ("acts-cat", "no.acts --level 99", 2, "--level"),
    (
        "acts-cat",
        "no.acts --to npy -o there --tensor a --max-memory 1XB",
        2,
        "--max-memory",
    ),
    ("acts-cat", "no.acts", 3, "no.acts"),
    ("acts-cat", "--from no.npy -o out", 3, "no.npy"),
    ("acts-cat", "nowhere.acts", 4, "nowhere.acts"),
    ("acts-cat", "empty", 3, "empty"),
    ("acts-cat", "--from rows.jsonl -o there", 5, "there"),
    ("acts-check", "", 2, "FILE"),
    ("acts-check", "no.acts --sample 3/2", 2, "--sample"),
    ("acts-check", "no.acts", 3, "no.acts"),
    ("acts-check", "nowhere.acts", 4, "nowhere.acts"),
    ("ds-entropy", "rows.jsonl --draws=-1", 2, "--draws"),
    ("ds-entropy", "rows.jsonl --view sideways", 2, "--view"),
    ("ds-entropy", "rows.jsonl --shard 2/2", 2, "--shard"),
    ("ds-entropy", "rows.jsonl --fail-over h1", 2, "--fail-over"),
    ("ds-entropy", "broken.jsonl", 3, "broken.jsonl"),
    ("ds-entropy", "cut.jsonl", 3, "cut.jsonl"),
    ("ds-entropy", "tail.gz", 3, "tail.gz"),
    ("ds-entropy", "rows.jsonl --tokens broken.jsonl", 3, "broken.jsonl"),
    ("ds-entropy", "nowhere.jsonl", 4, "nowhere.jsonl"),
    ("ds-entropy", "rows.jsonl -o there", 5, "there"),
    ("ds-entropy", "rows.jsonl -o empty", 2, "empty"),
    ("ds-entropy", "rows.jsonl -o rows.jsonl --force", 2, "rows.jsonl"),
    ("ds-entropy", "rows.jsonl -o nowhere/out", 4, "nowhere"),
    (
        "ds-entropy",
        "rows.jsonl --format jsonl --fail-over token_count=0",
        1,
        "",
    ),
    ("lm-gen", "rows.jsonl", 2, "--model"),
    (
        "lm-gen",
        "rows.jsonl --model model --temperature=-1",
        2,
        "--temperature",
    ),
    ("lm-gen", "rows.jsonl --model model --top-p 2", 2, "--top-p"),
    ("lm-gen", "rows.jsonl --model model --raw --chat", 2, "--raw"),
    ("lm-gen", "rows.jsonl --model empty", 3, "config.json"),
    ("lm-gen", "broken.jsonl --model model", 3, "broken.jsonl"),
    ("lm-gen", "numbers.jsonl --model model", 3, "prompt"),
    ("lm-gen", "rows.jsonl --model model -o there", 5, "there"),
    ("resid-dump", "rows.jsonl --model model", 2, "--output"),
    (
        "resid-dump",
        "rows.jsonl --model model -o out --sites nowhere",
        2,
        "--sites",
    ),
    (
        "resid-dump",
        "rows.jsonl --model model -o out --layers 99",
        2,
        "--layers",
    ),
    ("resid-dump", "rows.jsonl --model nowhere -o out", 4, "nowhere"),
    ("resid-dump", "broken.jsonl --model model -o out", 3, "broken.jsonl"),
    ("resid-dump", "rows.jsonl --model model -o there", 5, "there"),
    ("vcl-train", "--model model -o out", 2, "--data"),
    (
        "vcl-train",
        "--model model --data rows.jsonl -o out --aux nothing",
        2,
        "--aux",
    ),
    (
        "vcl-train",
        "--model model --data rows.jsonl -o out --lr many",
        2,
        "--lr",
    ),
    (
        "vcl-train",
        "--model model --data broken.jsonl -o out",
        3,
        "broken.jsonl",
    ),
    (
        "vcl-train",
        "--model model --data nowhere.jsonl -o out",
        4,
        "nowhere.jsonl",
    ),
    ("vcl-train", "--model model --data rows.jsonl -o there", 5, "there"),
    ("flowlens-pca", "no.acts --components many", 2, "--components"),
    ("flowlens-pca", "no.acts --layout round", 2, "--layout"),
    ("flowlens-pca", "no.acts", 3, "no.acts"),
    ("flowlens-pca", "nowhere.acts", 4, "nowhere.acts"),
    ("stable-regions", "--model model rows.jsonl", 2, "--random"),
    (
        "stable-regions",
        "--model model --random 2 --steps 1 rows.jsonl",
        2,
        "--steps",
    ),
    (
        "stable-regions",
        "--model model --pairs broken.jsonl",
        3,
        "broken.jsonl",
    ),
    (
        "stable-regions",
        "--model model --pairs nowhere.jsonl",
        4,
        "nowhere.jsonl",
    ),
    ("refusal-eval", "", 2, "subcommand"),
    ("refusal-eval", "judge rows.jsonl --judge nobody", 2, "--judge"),
    ("refusal-eval", "report broken.jsonl", 3, "broken.jsonl"),
    ("refusal-eval", "report nowhere.jsonl", 4, "nowhere.jsonl"),
    ("skill-eval", "prompts --bench chess rows.jsonl", 2, "--bench"),
    ("skill-eval", "report broken.jsonl", 3, "broken.jsonl"),
    ("skill-eval", "report nowhere.jsonl", 4, "nowhere.jsonl"),
    ("steer-vec", "", 2, "subcommand"),
    ("steer-vec", "mean -o out", 2, "DUMP"),
    ("dro-train", "", 2, "subcommand"),
    ("dro-train", "prompts --harmful rows.jsonl", 2, "--harmless"),
    (
        "dro-train",
        "prompts --harmful broken.jsonl --harmless rows.jsonl",
        3,
        "broken.jsonl",
    ),
    (
        "dro-train",
        "learn --model model --verdicts rows.jsonl rows.jsonl",
        2,
        "--output",
    ),
    ("resid-plot", "", 2, "FILE"),
    ("resid-plot", "rows.jsonl -o x.bmp", 2, "x.bmp"),
    ("resid-plot", "broken.jsonl -o x.svg", 3, "broken.jsonl"),
    ("resid-plot", "nowhere.jsonl -o x.svg", 4, "nowhere.jsonl"),
    ("lm-gen", "--model model --device gpu rows.jsonl", 2, "--device"),
    ("lm-gen", "--model model --device cuda:x rows.jsonl", 2, "--device"),
    ("resid-dump", "--model model --device cpu:1 rows.jsonl", 2, "--device"),
    ("stable-regions", "--model model --device gpu rows.jsonl", 2, "--device"),
    ("steer-vec", "select --model model --device gpu", 2, "--device"),
    (
        "vcl-train",
        "--model model --device gpu --data rows.jsonl -o out",
        2,
        "--device",
    ),
];

#[test]
fn wrong_calls_end_as_the_table_of_exit_codes_says() {
    let scene = scene();
    let mut wrong = Vec::new();
    for (name, line, expected, words) in CALLS {
        let run = Run::new(tool(name)).current_dir(scene.path());
        let done = run.args(line.split_whitespace()).output();
        let lines: Vec<&str> = done.stderr.lines().collect();
        let is_clear = match expected {
            1 => true,
            _ => {
                lines.len() <= 2
                    && lines
                        .first()
                        .is_some_and(|line| line.starts_with(&format!("{name}: error: ")))
            }
        };
        if done.code != *expected || !is_clear || !done.stderr.contains(words) {
            wrong.push(format!(
                "{name} {line}: {} for {expected}: {}",
                done.code,
                done.stderr.trim()
            ));
        }
        assert_eq!(fs::read(scene.path().join("there")).unwrap(), b"old", "{name} {line}");
        assert!(!scene.path().join("out").exists(), "{name} {line}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_code_of_a_refusal() {
    for code in 1..=5 {
        assert!(CALLS.iter().any(|call| call.2 == code), "{code}");
    }
    assert!(CALLS.len() >= 50);
}

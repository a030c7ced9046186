//! The world as a process: the same seed, the same bytes; and nothing the evaluation asks was answered in the instructions.

use harness::Run;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILES: [&str; 10] = [
    "corpus.jsonl",
    "corpus-held-out.jsonl",
    "general.jsonl",
    "general-held-out.jsonl",
    "safety.jsonl",
    "prompts.csv",
    "skills.jsonl",
    "init/config.json",
    "init/tokenizer.json",
    "init/tokenizer_config.json",
];

fn generate(directory: &Path, name: &str, more: &[&str]) -> PathBuf {
    let target = directory.join(name);
    Run::new(env!("CARGO_BIN_EXE_world"))
        .arg(&target)
        .args(more)
        .output()
        .expect(0);
    target
}

fn rows(path: PathBuf) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_another_world() {
    let directory = harness::temp_dir();
    let small = ["--documents", "400", "--instructions", "200"];
    let one = generate(directory.path(), "one", &small);
    let again = generate(directory.path(), "again", &small);
    let other = generate(directory.path(), "other", &[&small[..], &["--seed", "2"]].concat());
    for file in FILES {
        assert_eq!(
            fs::read(one.join(file)).unwrap(),
            fs::read(again.join(file)).unwrap(),
            "{file}"
        );
    }
    assert_ne!(
        fs::read(one.join("corpus.jsonl")).unwrap(),
        fs::read(other.join("corpus.jsonl")).unwrap()
    );
}

#[test]
fn nothing_that_is_asked_was_answered_in_the_instructions() {
    let directory = harness::temp_dir();
    let world = generate(directory.path(), "world", &[]);
    let taught: BTreeSet<String> = ["general.jsonl", "safety.jsonl"]
        .iter()
        .flat_map(|file| rows(world.join(file)))
        .map(|row| row["messages"][0]["content"].as_str().unwrap().to_string())
        .collect();
    let prompts = fs::read_to_string(world.join("prompts.csv")).unwrap();
    let asked: Vec<&str> = prompts
        .lines()
        .skip(1)
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    assert!(asked.len() > 200);
    for prompt in asked {
        assert!(!taught.contains(prompt), "{prompt}");
    }
    for skill in rows(world.join("skills.jsonl")) {
        assert!(!taught.contains(skill["prompt"].as_str().unwrap()));
        let choices: BTreeSet<&str> = skill["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c.as_str().unwrap())
            .collect();
        assert_eq!(choices.len(), 4, "{skill}");
    }
}

#[test]
fn general_data_shows_as_many_harmless_uses_as_asked_for() {
    let directory = harness::temp_dir();
    let harmless = |name: &str, count: &str| {
        let world = generate(
            directory.path(),
            name,
            &["--harmless-uses", count, "--documents", "100"],
        );
        rows(world.join("general.jsonl"))
            .iter()
            .filter(|row| row["topic"] == "harmless")
            .count()
    };
    assert_eq!(harmless("none", "0"), 0);
    let some = harmless("some", "1");
    assert!((80..320).contains(&some), "{some} of 4000 rows");
}

#[test]
fn an_existing_directory_is_kept() {
    let directory = harness::temp_dir();
    Run::new(env!("CARGO_BIN_EXE_world"))
        .arg(directory.path())
        .output()
        .refused(5, "exists");
}

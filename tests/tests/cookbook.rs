//! Every recipe of the cookbook runs on the model and the prompts that the project ships, and answers.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use harness::{Run, program, skip, temp_dir, tool, workspace};

fn recipes() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("scripts/cookbook")).expect("the cookbook");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_none());
    found.sort();
    found
}

fn python() -> PathBuf {
    env::var_os("FLOWLENS_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Whether this machine has what a recipe calls beside our tools.
fn has_what_it_needs(recipe: &str) -> bool {
    let programs = ["jq", "make", "cmp"];
    let missing = programs
        .iter()
        .filter(|name| recipe.contains(**name))
        .any(|name| program(name).is_none());
    let has_python = || {
        let import = Command::new(python())
            .args(["-c", "import blake3, numpy, zstandard"])
            .output();
        import.is_ok_and(|output| output.status.success())
    };
    if recipe.contains("python3") && !has_python() {
        skip(
            "numpy",
            format!(
                "{} has no blake3, numpy and zstandard (FLOWLENS_PYTHON names another)",
                python().display()
            ),
        );
        return false;
    }
    !missing
}

#[test]
fn every_recipe_runs_and_says_what_it_answers() {
    let recipes = recipes();
    assert_eq!(recipes.len(), 12);
    let tools = tool("acts-cat")
        .parent()
        .map(PathBuf::from)
        .expect("a directory of tools");
    let path = env::var_os("PATH").unwrap_or_default();
    let python = python().parent().map(PathBuf::from);
    let first = [Some(tools), python.filter(|directory| directory.is_absolute())];
    let path = env::join_paths(first.into_iter().flatten().chain(env::split_paths(&path))).expect("a PATH");
    for recipe in recipes {
        let text = fs::read_to_string(&recipe).expect("a recipe");
        assert!(text.starts_with("#!/bin/sh\n# "), "{}", recipe.display());
        if !has_what_it_needs(&text) {
            continue;
        }
        let directory = temp_dir();
        let done = Run::new(&recipe)
            .current_dir(directory.path())
            .env("PATH", &path)
            .env("PYTHONPATH", workspace().join("scripts/python"))
            .env("MODEL", workspace().join("scripts/repro/base"))
            .env("DATA", workspace().join("scripts/cookbook"))
            .output();
        assert_eq!(done.code, 0, "{}: {}", recipe.display(), done.stderr);
        for entry in fs::read_dir(directory.path()).expect("its products") {
            let product = entry.expect("an entry");
            let bytes = product.metadata().expect("a product").len();
            assert!(bytes > 0, "{}: {:?} is empty", recipe.display(), product.file_name());
        }
    }
}

/// The commands of the page's blocks of `console`, and what it says they print.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let blocks = page
        .split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, None) => panic!("{line} stands before a command"),
        }
    }
    found
}

/// A text without its numbers, which differ in their last digits between processors.
fn words(text: &str) -> Vec<&str> {
    let has_digit = |word: &&str| word.chars().any(|letter| letter.is_ascii_digit());
    text.split_whitespace().filter(|word| !has_digit(word)).collect()
}

#[test]
fn the_first_ten_minutes_run_and_print_what_the_page_says() {
    if ["jq", "bash"].iter().any(|name| program(name).is_none()) {
        return;
    }
    let directory = temp_dir();
    let place = |name: &str| directory.path().join(name);
    fs::create_dir(place("model")).expect("a directory");
    for entry in fs::read_dir(workspace().join("scripts/repro/base")).expect("the model") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, place("model").join(path.file_name().expect("a name"))).expect("a copy");
    }
    let data = workspace().join("scripts/cookbook");
    let prompts = ["harmless.jsonl", "harmful.jsonl"].map(|name| fs::read_to_string(data.join(name)).expect("prompts"));
    fs::write(place("prompts.jsonl"), prompts.concat()).expect("the prompts");
    let tools = tool("acts-cat")
        .parent()
        .map(PathBuf::from)
        .expect("a directory of tools");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([tools].into_iter().chain(env::split_paths(&path))).expect("a PATH");
    let page = fs::read_to_string(workspace().join("docs/ten-minutes.md")).expect("the page");
    let commands = commands(&page);
    assert!(commands.len() > 10);
    for (command, printed) in commands {
        let done = Run::new("bash")
            .args(["-o", "pipefail", "-c", &command])
            .current_dir(directory.path())
            .env("PATH", &path)
            .output()
            .expect(0);
        assert_eq!(words(done.text()), words(&printed), "{command}");
    }
}

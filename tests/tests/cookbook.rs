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

//! The Python package: its own tests, against the built tools, file by file. What Python lacks here is skipped, and said.

use std::path::PathBuf;
use std::process::Command;

use harness::{skip, tool, workspace};

/// The tests of `scripts/python/tests/NAME.py`.
fn unittest(name: &str) {
    let python = std::env::var("FLOWLENS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import blake3, numpy, zstandard"])
        .output();
    if !has.is_ok_and(|output| output.status.success()) {
        return skip(
            "numpy",
            format!("{python} has no blake3, numpy and zstandard (FLOWLENS_PYTHON names another)"),
        );
    }
    let bin = tool("acts-check")
        .parent()
        .map(PathBuf::from)
        .expect("a directory of tools");
    let output = Command::new(&python)
        .args(["-B", "-m", "unittest", "-v", &format!("tests.{name}")])
        .current_dir(workspace().join("scripts/python"))
        .env("FLOWLENS_BIN", bin)
        .env("OMP_NUM_THREADS", "1")
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("running Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let ran = said.lines().find(|line| line.starts_with("Ran "));
    assert!(ran.is_some_and(|line| !line.starts_with("Ran 0 ")), "{said}");
    for line in said.lines().filter(|line| line.contains("... skipped")) {
        skip("python", line);
    }
}

#[test]
fn containers_are_read_and_damage_is_refused() {
    unittest("test_container");
}

#[test]
fn containers_are_written_as_the_tools_take_them() {
    unittest("test_writer");
}

#[test]
fn record_streams_are_checked() {
    unittest("test_stream");
}

#[test]
fn models_are_dumped_watched_and_trained_as_the_tools_do() {
    unittest("test_models");
}

#[test]
fn other_programs_read_what_is_exported() {
    unittest("test_exports");
}

#[test]
fn the_wheel_holds_the_tools_and_is_reproducible() {
    unittest("test_wheel");
}

#[test]
fn the_package_has_the_version_of_the_workspace() {
    unittest("test_version");
}

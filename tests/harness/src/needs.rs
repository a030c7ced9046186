//! What a test needs and the project does not hold: data, programs, a kind of processor.
//!
//! A test without it says `skipped: NAME: why` and passes, unless `FLOWLENS_REQUIRE` (names divided by commas) names what is missing:
//! `data`, `smollm2`, a program, `ptrace`, `namespaces`, or a processor's feature as Linux calls it. `.ci/run` names what its machine has.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::thread;

use crate::workspace;

/// Says that this test cannot run here; fails it where it must.
#[track_caller]
pub fn skip(need: &str, why: impl Display) {
    let required = env::var("FLOWLENS_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == need),
        "{need} is required: {why}"
    );
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // Straight to stderr: what is printed by `eprintln!` is shown of failed tests only.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Third-party data, by its path in `FLOWLENS_DATA`, or else in `../shared/data` as seen from the project's root.
#[track_caller]
pub fn data(path: &str) -> Option<PathBuf> {
    let root = env::var_os("FLOWLENS_DATA").map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    skip(
        "data",
        format!(
            "{} is not here (FLOWLENS_DATA names another directory)",
            found.display()
        ),
    );
    None
}

/// SmolLM2-135M-Instruct as a GGUF file: `model.gguf` of the directory `FLOWLENS_SMOLLM2`, which `scripts/models/smollm2` fills.
#[track_caller]
pub fn smollm2() -> Option<PathBuf> {
    let found = env::var_os("FLOWLENS_SMOLLM2").map(|directory| PathBuf::from(directory).join("model.gguf"));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        skip(
            "smollm2",
            "SmolLM2 is not here (scripts/models/smollm2 DIR brings it, FLOWLENS_SMOLLM2 names DIR)",
        );
    }
    found
}

/// A program of this machine.
#[track_caller]
pub fn program(name: &str) -> Option<OsString> {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        skip(name, format!("{name} is not installed"));
    }
    found.map(PathBuf::into_os_string)
}

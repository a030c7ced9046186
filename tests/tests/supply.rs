//! What the workspace is made of besides its own code: where it comes from, on which terms, and what its build scripts may do.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use harness::{program, temp_dir, workspace};
use serde_json::Value;

/// Terms that allow anyone to use and pass on the binaries under MIT or Apache-2.0.
const TERMS: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Zlib",
    "Unicode-3.0",
    "ISC",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
];

/// What a build script that fetches something is written with.
const REACHES_OUT: [&str; 10] = [
    "TcpStream",
    "UdpSocket",
    "reqwest",
    "ureq",
    "minreq",
    "hyper::",
    "curl",
    "wget",
    "git2",
    "\"git\"",
];

fn packages() -> Vec<Value> {
    // Sources that only other systems need may never have been fetched.
    let made = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace())
        .output()
        .expect("running cargo");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let all = made["packages"].as_array().expect("packages").clone();
    all.into_iter().filter(|package| !package["source"].is_null()).collect()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// One alternative of every part is among the terms.
fn allowed(expression: &str) -> bool {
    let parts = expression.replace(['(', ')'], "");
    let one_of = |part: &str| {
        let mut terms = part.split(" OR ").flat_map(|term| term.split('/'));
        terms.any(|term| TERMS.contains(&term.trim()))
    };
    parts.split(" AND ").all(one_of)
}

#[test]
fn every_package_comes_from_the_registry_with_its_digest_on_terms_that_can_be_passed_on() {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("the lock file");
    let foreign = lock.split("[[package]]").filter(|entry| entry.contains("\nsource = "));
    for entry in foreign {
        assert!(entry.contains("\nsource = \"registry+"), "{entry}");
        assert!(entry.contains("\nchecksum = \""), "{entry}");
    }
    for package in packages() {
        assert!(
            allowed(text(&package, "license")),
            "{} {}",
            package["name"],
            package["license"]
        );
    }
    assert!(!allowed("GPL-3.0-only") && !allowed("MIT AND GPL-2.0") && !allowed(""));
    assert!(allowed("(MIT OR GPL-2.0) AND Unicode-3.0"));
}

#[test]
fn no_build_script_reaches_out() {
    let mut scripts = 0;
    for package in packages() {
        for target in package["targets"].as_array().expect("targets") {
            if target["kind"][0] != "custom-build" {
                continue;
            }
            let source = fs::read_to_string(text(target, "src_path")).expect("a build script");
            let code: Vec<&str> = source
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            for word in REACHES_OUT {
                let found = code.iter().find(|line| line.contains(word));
                assert!(found.is_none(), "{}: {found:?}", package["name"]);
            }
            scripts += 1;
        }
    }
    assert!(scripts > 10, "{scripts}");
}

#[test]
fn the_bill_of_materials_names_every_package_with_digest_and_terms() {
    let Some(python) = program("python3") else { return };
    let directory = temp_dir();
    let made = Command::new(python)
        .arg("scripts/sbom")
        .arg(directory.path())
        .current_dir(workspace())
        .output()
        .expect("running Python");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect(name);
    let bill: Value = serde_json::from_str(&read("flowlens.cdx.json")).expect("JSON");
    let parts = bill["components"].as_array().expect("components");
    let names: BTreeSet<&str> = parts.iter().map(|part| text(part, "bom-ref")).collect();
    for wanted in ["candle-core", "ndarray-linalg", "clap", "serde_json", "memmap2", "zstd"] {
        assert!(
            names
                .iter()
                .any(|name| name.starts_with(&format!("pkg:cargo/{wanted}@"))),
            "{wanted}"
        );
    }
    for part in parts.iter().filter(|part| part["purl"].is_string()) {
        assert!(
            part["hashes"][0]["content"]
                .as_str()
                .is_some_and(|digest| digest.len() == 64),
            "{part}"
        );
        assert!(allowed(text(&part["licenses"][0], "expression")), "{part}");
    }
    for edge in bill["dependencies"].as_array().expect("edges") {
        for other in edge["dependsOn"].as_array().expect("names") {
            assert!(names.contains(other.as_str().expect("a name")), "{other}");
        }
    }
    assert!(read("THIRD-PARTY.txt").contains("Permission is hereby granted"));
}

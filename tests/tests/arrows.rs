//! Holds the arrows of ARCHITECTURE.md: tools use libraries and what joins them, libraries stand on leaf crates, and no arrow goes sideways.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

struct Package {
    name: String,
    directory: String,
    /// Workspace packages it depends on, outside of tests.
    uses: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(harness::workspace())
        .output()
        .expect("running cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let root = metadata["workspace_root"].as_str().expect("workspace_root");
    let list = metadata["packages"].as_array().expect("packages");
    list.iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().expect("manifest_path");
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            Package {
                name: package["name"].as_str().expect("name").to_string(),
                directory: manifest.trim_start_matches(root).trim_matches('/').to_string(),
                uses: dependencies
                    .iter()
                    .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
                    .map(|dependency| dependency["name"].as_str().expect("name").to_string())
                    .collect(),
            }
        })
        .collect()
}

/// What two libraries need, once; they import none of ours.
const LEAVES: &[&str] = &["foreign", "json", "products", "ranks"];
const LIBRARIES: &[&str] = &["acts", "model", "numerics", "process", "records"];
/// What joins libraries, where several tools need the same joint.
const JOINTS: &[&str] = &["steering"];

#[test]
fn arrows_go_down_only() {
    for package in packages() {
        let (floor, _) = package.directory.split_once('/').unwrap_or((&package.directory, ""));
        let allowed: BTreeSet<&str> = match floor {
            "lib" if LEAVES.contains(&package.name.as_str()) => BTreeSet::new(),
            "lib" if LIBRARIES.contains(&package.name.as_str()) => LEAVES.iter().copied().collect(),
            "lib" if JOINTS.contains(&package.name.as_str()) => LIBRARIES.iter().chain(LEAVES).copied().collect(),
            "lib" => panic!("{} is neither a library, nor a leaf, nor a joint", package.name),
            "tools" => JOINTS.iter().chain(LIBRARIES).chain(LEAVES).copied().collect(),
            _ => continue,
        };
        let others: Vec<&String> = package
            .uses
            .iter()
            .filter(|name| !allowed.contains(name.as_str()))
            .collect();
        assert!(others.is_empty(), "{} uses {others:?}", package.name);
    }
}

#[test]
fn only_flowlens_pca_carries_lapack() {
    let root = harness::workspace();
    for entry in std::fs::read_dir(root.join("tools")).expect("tools/") {
        let path = entry.expect("an entry of tools/").path();
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).expect("Cargo.toml");
        let asks = manifest.contains("\"lapack\"");
        assert_eq!(asks, path.ends_with("flowlens-pca"), "{}", path.display());
    }
}

#[test]
fn every_tool_has_the_same_file_names() {
    for entry in std::fs::read_dir(harness::workspace().join("tools")).expect("tools/") {
        let path = entry.expect("an entry of tools/").path();
        for name in [
            "src/main.rs",
            "src/cli.rs",
            "src/plan.rs",
            "src/run.rs",
            "src/report.rs",
            "tests/cli.rs",
        ] {
            assert!(path.join(name).exists(), "{} has no {name}", path.display());
        }
    }
}

//! Documentation is a rendering: man pages and the help blocks of the README are what the tools print.
//!
//! `UPDATE=1 cargo test -p flowlens-tests --test docs` (or `make man`) writes them anew; the diff is the review.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Run, tool, tools, workspace};

fn compare(path: &Path, rendered: &[u8], stale: &mut Vec<PathBuf>) {
    if fs::read(path).is_ok_and(|present| present == rendered) {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, rendered).expect("writing a rendered page");
    } else {
        stale.push(path.to_path_buf());
    }
}

#[test]
fn man_pages_are_what_the_tools_render() {
    let mut stale = Vec::new();
    for name in tools() {
        let page = Run::new(tool(&name)).arg("--man").output().expect(0);
        compare(&workspace().join(format!("man/{name}.1")), &page.stdout, &mut stale);
    }
    assert!(stale.is_empty(), "run `make man` and review: {stale:?}");
}

#[test]
fn no_man_page_outlives_its_tool() {
    let tools = tools();
    for entry in fs::read_dir(workspace().join("man")).expect("man/") {
        let path = entry.expect("an entry of man/").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "1") {
            assert!(tools.contains(&name), "{} has no tool", path.display());
        }
    }
}

#[test]
fn every_man_page_is_well_formed() {
    if harness::program("groff").is_none() {
        return;
    }
    for entry in fs::read_dir(workspace().join("man")).expect("man/") {
        let path = entry.expect("an entry of man/").path();
        let output = Command::new("groff")
            .args(["-Kutf8", "-t", "-man", "-Tutf8", "-ww", "-z"])
            .arg(&path)
            .output()
            .expect("running groff");
        let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(warnings.is_empty(), "{}: {warnings}", path.display());
    }
}

#[test]
fn the_about_line_is_the_package_description() {
    for name in tools() {
        let manifest = fs::read_to_string(workspace().join(format!("tools/{name}/Cargo.toml"))).expect("Cargo.toml");
        let description = manifest
            .lines()
            .find_map(|line| line.strip_prefix("description = \""))
            .and_then(|line| line.strip_suffix('"'))
            .expect("a description");
        let help = Run::new(tool(&name)).arg("-h").output().expect(0);
        let first = help.text().lines().next().unwrap_or_default().to_lowercase();
        assert_eq!(first, description.to_lowercase(), "{name}");
    }
}

/// A README block ```` ```console ```` whose one command is `$ TOOL --help` or `-h` shows what the tool prints.
#[test]
fn readme_help_blocks_are_what_the_tools_print() {
    let path = workspace().join("README.md");
    let text = fs::read_to_string(&path).expect("README.md");
    let mut rendered = String::new();
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        rendered.push_str(line);
        rendered.push('\n');
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let Some((name, flag)) = command.split_once(' ') else {
            continue;
        };
        if !(flag == "--help" || flag == "-h") || !tools().iter().any(|tool| tool == name) {
            continue;
        }
        count += 1;
        let help = Run::new(tool(name)).arg(flag).env("COLUMNS", "100").output().expect(0);
        rendered.push_str(help.text());
        // What stood there before ends at the fence.
        for old in lines.by_ref() {
            if old.starts_with("```") {
                rendered.push_str(old);
                rendered.push('\n');
                break;
            }
        }
    }
    assert!(count > 0, "README.md shows no tool's help");
    let mut stale = Vec::new();
    compare(&path, rendered.as_bytes(), &mut stale);
    assert!(stale.is_empty(), "run `make man` and review README.md");
}

#[test]
fn every_file_that_readme_links_to_is_there() {
    let text = fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let targets: Vec<&str> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect();
    assert!(!targets.is_empty(), "README.md links to no file");
    for target in targets {
        assert!(workspace().join(target).exists(), "README.md links to {target}");
    }
}

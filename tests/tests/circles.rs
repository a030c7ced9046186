//! No circle of modules inside a crate: what two files need of each other lies below both.
//!
//! The modules are the files and directories right under `src`; a use is `crate::NAME` outside of comments and unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_crate_has_a_circle_of_modules() {
    let mut circles = Vec::new();
    for part in ["lib", "tools", "scripts"] {
        for crate_directory in entries(&harness::workspace().join(part)) {
            let source = crate_directory.join("src");
            let left = circle(uses_of(&source));
            if !left.is_empty() {
                circles.push(format!("{}: {}", crate_directory.display(), left.join(", ")));
            }
        }
    }
    assert!(
        circles.is_empty(),
        "modules that need each other:\n{}",
        circles.join("\n")
    );
}

#[test]
fn modules_that_need_each_other_are_found_and_those_beside_them_are_not() {
    let directory = harness::temp_dir();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    write("above.rs", "use crate::one;");
    write("one.rs", "use crate::{\n    below::{self, Thing},\n    two,\n};");
    write("two.rs", "fn f() { crate::three::g() }");
    fs::create_dir(directory.path().join("three")).expect("a directory");
    write("three/mod.rs", "");
    write("three/deep.rs", "use crate::one::h;");
    write("below.rs", "// crate::one\n#[cfg(test)]\nmod tests { use crate::one; }");
    write("main.rs", "use crate::above;");
    assert_eq!(circle(uses_of(directory.path())), ["one", "three", "two"]);
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The modules of a crate, and which others each of them names.
fn uses_of(source: &Path) -> Uses {
    let mut uses = Uses::new();
    for path in entries(source) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_root = ["main", "lib", "tests"].contains(&name.as_str());
        if !is_root && (path.is_dir() || path.extension().is_some_and(|extension| extension == "rs")) {
            uses.entry(name).or_default().extend(named_below(&path));
        }
    }
    let modules: BTreeSet<String> = uses.keys().cloned().collect();
    for (name, used) in &mut uses {
        used.retain(|other| other != name && modules.contains(other));
    }
    uses
}

/// Names after `crate::` in a file, or in all files of a directory.
fn named_below(path: &Path) -> BTreeSet<String> {
    if path.is_dir() {
        let files = entries(path);
        let sources = files
            .iter()
            .filter(|path| path.file_stem().is_some_and(|name| name != "tests"));
        return sources.flat_map(|path| named_below(path)).collect();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let code = code.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

/// `a` of `a::b`; `a` and `c` of `{a::{self, b}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else {
        return vec![identifier(path)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(list[start..at].trim()));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// Takes away modules that use none of the others, and those that none of the others uses, until nothing changes: what is left goes round.
fn circle(mut uses: Uses) -> Vec<String> {
    loop {
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        let ends: BTreeSet<String> = uses
            .iter()
            .filter(|(name, uses)| uses.is_empty() || !used.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        if ends.is_empty() {
            return uses.into_keys().collect();
        }
        uses.retain(|name, _| !ends.contains(name));
        uses.values_mut()
            .for_each(|uses| uses.retain(|name| !ends.contains(name)));
    }
}

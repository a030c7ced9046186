//! Every type of record: in the code that writes it, in `records::TYPES` and in man/records.5 alike.

use std::collections::BTreeSet;
use std::path::Path;

/// Types that the sources of tools and of lib/records write: structs with a serde tag, marks among them.
fn written() -> BTreeSet<String> {
    let root = harness::workspace();
    let mut types = BTreeSet::new();
    collect(&root.join("lib/records/src"), &mut types);
    for tool in std::fs::read_dir(root.join("tools")).expect("tools/") {
        collect(&tool.expect("a tool").path().join("src"), &mut types);
    }
    types
}

fn collect(directory: &Path, types: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, types);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let Some((_, rest)) = line.split_once("tag = \"type\"") else {
                continue;
            };
            let name = rest
                .strip_prefix(", rename = \"")
                .and_then(|rest| rest.split('"').next());
            // One form, so that no writer escapes this test.
            let name = name.unwrap_or_else(|| panic!("{}: a tagged type without its name: {line}", path.display()));
            types.insert(name.to_owned());
        }
    }
}

/// Types of the page's table.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(harness::workspace().join("man/records.5")).expect("man/records.5");
    let (_, table) = page.split_once("\n\\fBtype\\fR").expect("the table of types");
    let (table, _) = table.split_once("\n.TE").expect("its end");
    let names = table
        .lines()
        .filter_map(|line| line.strip_suffix("\tT{"))
        .filter(|line| *line != "T}");
    names.flat_map(|names| names.split(", ")).map(str::to_owned).collect()
}

#[test]
fn every_type_that_a_tool_writes_is_listed_and_documented() {
    let listed: BTreeSet<String> = records::TYPES.iter().map(|name| name.to_string()).collect();
    assert_eq!(listed.len(), records::TYPES.len(), "a type is listed twice");
    assert_eq!(written(), listed, "sources and records::TYPES");
    assert_eq!(documented(), listed, "man/records.5 and records::TYPES");
}

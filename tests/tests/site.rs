//! The documentation site: built offline from what is there once, and every link of it leads somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use harness::{program, skip, temp_dir, tool, tools, workspace};

/// Every kind of picture that resid-plot draws of its own accord.
const PICTURES: [&str; 15] = [
    "candidates",
    "concentration",
    "interpolation",
    "law",
    "magnitudes",
    "massive",
    "perplexity",
    "projection",
    "refusal",
    "skill",
    "slice",
    "sparsity",
    "spectrum",
    "training",
    "trajectory",
];

/// What stands in quotes behind each `key=` of a page.
fn values<'p>(page: &'p str, key: &str) -> Vec<&'p str> {
    let mark = format!(" {key}=\"");
    let behind = page.split(mark.as_str()).skip(1);
    behind.filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_site_is_built_offline_and_no_link_of_it_is_broken() {
    let python = std::env::var("FLOWLENS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import mkdocs"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        return skip(
            "mkdocs",
            format!("{python} has no mkdocs (FLOWLENS_PYTHON names another)"),
        );
    }
    if program("mandoc").is_none() {
        return;
    }
    let directory = temp_dir();
    let built = Command::new(&python)
        .arg(workspace().join("scripts/site/build"))
        .arg(directory.path())
        .arg(tool("resid-plot").parent().expect("a directory"))
        .output()
        .expect("running Python");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(directory.path()).expect("the site") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "html") {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            pages.insert(name, fs::read_to_string(&path).expect("a page"));
        }
    }
    for tool in tools().iter().filter(|tool| *tool != "flowlens") {
        let page = &pages[&format!("{tool}.html")];
        assert!(page.contains("id=\"exit-status\""), "{tool}");
        let link = format!("<a href=\"{tool}.html\"><code>{tool}</code>");
        assert!(
            pages["index.html"].contains(&link),
            "the first page leads not to {tool}"
        );
    }
    for kind in PICTURES {
        assert!(pages["gallery.html"].contains(&format!("gallery-{kind}.svg")), "{kind}");
    }
    for (name, page) in pages.iter().filter(|(name, _)| *name != "404.html") {
        for source in values(page, "src") {
            assert!(!source.contains("//"), "{name} fetches {source}");
        }
        for target in values(page, "href") {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let at = if file.is_empty() { name } else { file };
            assert!(directory.path().join(at).exists(), "{name} links to {target}");
            if let Some(linked) = pages.get(at).filter(|_| !anchor.is_empty()) {
                assert!(linked.contains(&format!("id=\"{anchor}\"")), "{name} links to {target}");
            }
        }
    }
}

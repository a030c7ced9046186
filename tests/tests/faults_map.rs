//! `tests/faults.md` names every row of the fault matrix and its tests; this holds it against the tests that there are. UPDATE=1
//! writes their names anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use harness::workspace;

/// Rows by letter: containers, record streams, writing, signals, mapping, resources, model directories, arguments, resume.
const ROW_COUNTS: [(char, usize); 9] = [
    ('T', 20),
    ('J', 12),
    ('W', 17),
    ('S', 11),
    ('M', 5),
    ('R', 6),
    ('L', 10),
    ('A', 5),
    ('C', 13),
];

/// Names of tests by row.
type Map = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_row_is_listed_with_exactly_the_tests_that_bear_its_name() {
    let path = workspace().join("tests/faults.md");
    let text = fs::read_to_string(&path).unwrap();
    let found = found();
    let lines: Vec<String> = text.lines().map(|line| with_tests(line, &found)).collect();
    let lines = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &lines).unwrap();
    }
    assert!(
        text == lines,
        "tests/faults.md is out of step with the tests (UPDATE=1 rewrites it)"
    );

    let rows = |letter: &char, count: &usize| -> Vec<String> {
        (1..=*count).map(|row| format!("{letter}-{row:02}")).collect()
    };
    let rows: BTreeSet<String> = ROW_COUNTS
        .iter()
        .flat_map(|(letter, count)| rows(letter, count))
        .collect();
    let listed: BTreeSet<String> = text.lines().filter_map(row_of_line).collect();
    assert_eq!(listed, rows);
    let tested: BTreeSet<String> = found.into_keys().collect();
    assert_eq!(tested, rows, "rows without a test, or tests of rows that there are not");
}

/// A line of the file with the tests of its row.
fn with_tests(line: &str, found: &Map) -> String {
    let Some(row) = row_of_line(line) else {
        return line.to_owned();
    };
    let quoted = |tests: &BTreeSet<String>| -> Vec<String> { tests.iter().map(|test| format!("`{test}`")).collect() };
    let tests = found
        .get(&row)
        .map_or("none".to_owned(), |tests| quoted(tests).join(", "));
    let (fault, _) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
    format!("{fault} | {tests} |")
}

/// The row that a line of the table is about.
fn row_of_line(line: &str) -> Option<String> {
    let (row, _) = line.strip_prefix("| ")?.split_once(" | ")?;
    row_of(&(row.to_lowercase().replace('-', "_") + "_")).filter(|found| found == row)
}

/// Tests named after a row, such as `t_01_…` or `j01_…`, wherever they stand.
fn found() -> Map {
    let mut map = Map::new();
    for folder in ["lib", "tools", "tests"] {
        collect(&workspace().join(folder), &mut map);
    }
    map
}

fn collect(path: &Path, map: &mut Map) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        entries.for_each(|entry| collect(&entry.unwrap().path(), map));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        for line in fs::read_to_string(path).unwrap().lines() {
            let rest = line.trim_start().strip_prefix("fn ");
            let name = rest.and_then(|rest| rest.split('(').next());
            if let Some((row, name)) = name.and_then(|name| Some((row_of(name)?, name))) {
                map.entry(row).or_default().insert(name.to_owned());
            }
        }
    }
}

fn row_of(name: &str) -> Option<String> {
    let (letter, rest) = name.split_at_checked(1)?;
    let digits = rest.strip_prefix('_').unwrap_or(rest);
    let (number, rest) = digits.split_at_checked(2)?;
    let mut letters = ROW_COUNTS.iter().map(|(row, _)| row.to_ascii_lowercase().to_string());
    let is_row = letters.any(|row| row == letter);
    let is_numbered = number.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with('_');
    (is_row && is_numbered).then(|| format!("{}-{number}", letter.to_uppercase()))
}

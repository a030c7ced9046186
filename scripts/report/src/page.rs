//! The page: findings first, then pictures, then tables with the paper's numbers beside ours. It fetches nothing, and is read on a phone, in the
//! dark and on paper too.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use process::{Error, Outcome, Result, ResultExt};
use serde::Serialize;

use crate::html::escape;
use crate::runs::Runs;
use crate::summary::Run;
use crate::{findings, rows, tables};

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// A summary of each run
    #[arg(value_name = "RUNS")]
    runs: PathBuf,

    /// The benchmark whose false refusals are in question
    #[arg(long, value_name = "NAME")]
    bench: String,

    /// Records of ds-entropy
    #[arg(long, value_name = "FILE")]
    entropy: PathBuf,

    /// Records of stable-regions for the base model, the highest share, and that with the loss
    #[arg(long, value_name = "FILE")]
    regions: PathBuf,

    /// HTML about the model and its data
    #[arg(long, value_name = "FILE")]
    about: Option<PathBuf>,

    /// Settings tried before: a table of tabs
    #[arg(long, value_name = "FILE")]
    tried: Option<PathBuf>,

    /// Pictures; where one is empty, FILE.reason beside it says why
    #[arg(value_name = "FILE.svg")]
    pictures: Vec<PathBuf>,
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let all: Vec<Run> = rows::read(&flags.runs)?;
    let none = || Error::input(flags.runs.display(), "no run in it observes the loss only");
    let runs = Runs::new(&all, &flags.bench).ok_or_else(none)?;
    let mut page = String::from(HEAD);
    page += &findings::list(&runs);
    page += "<h2>Pictures</h2>\n";
    for path in &flags.pictures {
        page += &figure(path)?;
    }
    page += &tables::entropy(&rows::read(&flags.entropy)?);
    page += &tables::shares(&runs);
    page += &tables::cure(&runs);
    page += &tables::benchmarks(&runs);
    page += &tables::regions(&rows::read(&flags.regions)?, &runs);
    if let Some(about) = &flags.about {
        page += &fs::read_to_string(about).at(about.display())?;
    }
    if let Some(tried) = &flags.tried {
        page += &tables::tried(&fs::read_to_string(tried).at(tried.display())?);
    }
    page += "</body></html>\n";
    let mut out = process::stdout();
    out.write_all(page.as_bytes()).at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

/// A picture in the page; the reason, where its records hold nothing to draw.
fn figure(path: &Path) -> Result<String> {
    let picture = fs::read_to_string(path).at(path.display())?;
    let is_of_file = |line: &&str| line.starts_with("<?xml") || line.starts_with("<!DOCTYPE");
    let mut body: String = picture.split_inclusive('\n').filter(|line| !is_of_file(line)).collect();
    if picture.is_empty() {
        let reason = path.with_extension("reason");
        let text = fs::read_to_string(&reason).at(reason.display())?;
        body = format!("<p>No picture: {}</p>\n", escape(&text));
    }
    Ok(format!("<figure>\n{body}</figure>\n"))
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>flowlens: false refusals, measured</title>
<style>
:root { --ink: #1a1a1a; --paper: #fff; --line: #ddd; --faint: #666 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616; --line: #3a3a3a; --faint: #9a9a9a } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--paper) }
table { display: block; overflow-x: auto; border-collapse: collapse; margin: 1rem 0; font-size: .9rem }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } caption { text-align: left; font-weight: 600; padding: .4rem 0 }
.paper { color: var(--faint) } svg { max-width: 100%; height: auto; background: #fff } figure { margin: 1.5rem 0; break-inside: avoid }
@media print { :root { --ink: #000; --paper: #fff } body { margin: 0; max-width: none } tr { break-inside: avoid } }
</style></head><body>
<h1>False refusals, measured</h1>
"#;

//! The tables of a write-up in Markdown: what was found of each claim, and every number of each run.

use std::io::Write;
use std::path::PathBuf;

use process::{Outcome, Result, ResultExt};
use serde::Serialize;

use crate::claims::Claim;
use crate::html::{round, within};
use crate::rows;
use crate::summary::{Bench, Run};

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// Summaries of the runs that there are
    #[arg(value_name = "RUNS")]
    runs: Vec<PathBuf>,

    /// What was found of each claim
    #[arg(long, value_name = "FILE")]
    claims: PathBuf,

    /// The benchmark of safe and unsafe prompts
    #[arg(long, value_name = "NAME", default_value = "xstest")]
    bench: String,

    /// The benchmark of prompts that only look harmful
    #[arg(long, value_name = "NAME", default_value = "orbench")]
    beside: String,
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let mut runs = Vec::<Run>::new();
    for path in &flags.runs {
        runs.extend(rows::read::<Run>(path)?);
    }
    let order = |run: &Run| (run.settings.arm != "share", run.settings.arm.clone(), run.settings.seed);
    runs.sort_by(|one, other| {
        let by_share = one.settings.share.total_cmp(&other.settings.share);
        order(one).cmp(&order(other)).then(by_share)
    });
    let claims: Vec<Claim> = rows::read(&flags.claims)?;
    let mut out = process::stdout();
    write!(out, "{}\n{}", of_claims(&claims), of_runs(&runs, flags)).at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

fn table(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let rule = vec!["---".to_owned(); titles.len()];
    [line(&head), line(&rule)]
        .into_iter()
        .chain(rows.map(|cells| line(&cells)))
        .collect()
}

fn of_claims(claims: &[Claim]) -> String {
    let titles = [
        "#",
        "claim",
        "runs",
        "estimate [95 %]",
        "p, Holm",
        "smallest effect",
        "verdict",
    ];
    let row = |claim: &Claim| {
        vec![
            claim.claim.to_string(),
            claim.what.clone(),
            claim.run_count.to_string(),
            match claim.low {
                Some(_) => within(claim.estimate, claim.low, claim.high, 3),
                None => round(claim.estimate, 3),
            },
            round(claim.p_holm, 4),
            round(claim.smallest_effect, 2),
            claim.verdict.name().to_owned(),
        ]
    };
    table(&titles, claims.iter().map(row))
}

fn of_runs(runs: &[Run], flags: &Flags) -> String {
    let titles = [
        "run",
        "false refusal [95 %]",
        "nonsense",
        "unsafe refused",
        &format!("{} refused", flags.beside),
        "held-out loss",
        "skill",
        "C4 window",
        "C4 stack",
        "alignment PC_ID",
    ];
    let row = |run: &Run| {
        let bench = run.benches.get(&flags.bench).cloned().unwrap_or_default();
        let beside: Option<&Bench> = run.benches.get(&flags.beside);
        vec![
            run.settings.run.clone(),
            within(
                bench.false_refusal,
                bench.false_refusal_low,
                bench.false_refusal_high,
                3,
            ),
            round(bench.nonsense, 3),
            round(bench.harmful, 3),
            round(beside.and_then(|bench| bench.safe), 3),
            round(run.held_out_loss, 3),
            round(run.skill(), 3),
            round(run.window_c_k, 3),
            round(run.stack_c_k, 3),
            round(run.alignment_id, 3),
        ]
    };
    table(&titles, runs.iter().map(row))
}

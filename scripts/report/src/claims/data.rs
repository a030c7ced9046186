//! Claim 1: what is true of the data before any model is trained.

use std::path::Path;

use process::{Error, Result};

use super::{Found, Rule, Test};
use crate::rows::{self, AtTokens, Entropy};

/// Repetition of safety answers beside general ones, each at the same number of tokens: all four measures must be lower.
pub fn repetition(safety: Option<&Path>, general: Option<&Path>) -> Result<Test> {
    let measured = |path: Option<&Path>| path.map(at_tokens).transpose();
    Ok(Test {
        claim: 1,
        what: "safety data is more repetitive: H1, H2, MSTTR and distinct-2 of its answers are lower; bits of H1",
        rule: Rule::Effect(-0.5),
        found: measured(safety)?
            .zip(measured(general)?)
            .map(|(safety, general)| found(&safety, &general)),
    })
}

fn at_tokens(path: &Path) -> Result<AtTokens> {
    let row = rows::read::<Entropy>(path)?.pop();
    let missing = || Error::input(path.display(), "no measures at a number of tokens (ds-entropy --at)");
    row.and_then(|row| row.at).ok_or_else(missing)
}

fn found(safety: &AtTokens, general: &AtTokens) -> Found {
    let measures = |at: &AtTokens| [at.h1, at.h2, at.msttr, at.distinct_2];
    let mut pairs = measures(safety).into_iter().zip(measures(general));
    Found {
        estimate: safety.h1 - general.h1,
        interval: None,
        p: None,
        rest_holds: pairs.all(|(safety, general)| safety < general),
        run_count: 0,
    }
}

//! Claims 1 and 11: what is true of the data before any model is trained.

use std::path::Path;

use numerics::rng::Rng;
use numerics::statistics::{mean, mean_difference, quantile};
use process::{Error, Result};
use records::Completion;

use super::{Found, LEVEL, RESAMPLE_COUNT, Rule, Test};
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

/// How likely the base model finds the answers: mean perplexity, general less safety, where the tail of safety must be the heavier one.
pub fn perplexity(safety: Option<&Path>, general: Option<&Path>, rng: &Rng) -> Result<Test> {
    let measured = |path: Option<&Path>| path.map(perplexities).transpose();
    Ok(Test {
        claim: 11,
        what: "safety answers have a lower mean perplexity under the base model, and a heavier tail: general less safety",
        rule: Rule::Effect(0.0),
        found: measured(safety)?
            .zip(measured(general)?)
            .and_then(|(safety, general)| compared(&safety, &general, rng)),
    })
}

/// Of every answer that has one, in ascending order.
fn perplexities(path: &Path) -> Result<Vec<f64>> {
    let scored: Vec<Completion> = rows::read(path)?;
    let perplexity = |row: &Completion| {
        let tokens = row.token_count.filter(|tokens| *tokens > 0)?;
        Some((-row.log_prob? / tokens as f64).exp())
    };
    let mut found: Vec<f64> = scored.iter().filter_map(perplexity).collect();
    if found.is_empty() {
        return Err(Error::input(
            path.display(),
            "no answer has a log-likelihood (lm-gen --score)",
        ));
    }
    found.sort_by(f64::total_cmp);
    Ok(found)
}

fn compared(safety: &[f64], general: &[f64], rng: &Rng) -> Option<Found> {
    let tail = |ascending: &[f64]| Some(quantile(ascending, 0.99)? / quantile(ascending, 0.5)?);
    let (interval, p) = mean_difference(safety, general, RESAMPLE_COUNT, LEVEL, rng)?;
    Some(Found {
        estimate: mean(general)? - mean(safety)?,
        interval: Some(interval),
        p: Some(p),
        rest_holds: tail(safety)? / tail(general)? > 1.0,
        run_count: 1,
    })
}

//! Refusal without generation: by the probability of the tokens that open one.

use crate::report::RefusalToken;
use model::Tokenizer;
use numerics::statistics::{largest, softmax};

/// A token opens refusals if at least this share of harmful prompts is answered with it first,
const SHARE_MIN: f64 = 0.1;
/// and its odds there are so many times those among harmless ones: odds, because a model that refuses too much opens many of these with it too.
const ODDS_RATIO_MIN: f64 = 2.0;

/// ln P − ln (1 − P), P being the probability of the tokens.
pub fn score(logits: &[f32], tokens: &[u32]) -> f64 {
    let probabilities = softmax(logits);
    let p: f64 = tokens.iter().map(|&id| probabilities[id as usize]).sum();
    (p + 1e-8).ln() - (1.0 - p + 1e-8).ln()
}

pub fn mean_score(logits: &[Vec<f32>], tokens: &[u32]) -> f64 {
    logits.iter().map(|logits| score(logits, tokens)).sum::<f64>() / logits.len() as f64
}

/// Σ p (ln (p + 1e-6) − ln (q + 1e-6)).
pub fn divergence(base: &[f32], other: &[f32]) -> f64 {
    let pairs = softmax(base).into_iter().zip(softmax(other));
    pairs.map(|(p, q)| p * ((p + 1e-6).ln() - (q + 1e-6).ln())).sum()
}

pub fn mean_divergence(base: &[Vec<f32>], others: &[Vec<f32>]) -> f64 {
    let pairs = base.iter().zip(others);
    pairs.map(|(base, other)| divergence(base, other)).sum::<f64>() / base.len() as f64
}

/// The tokens with which the model opens its answers to harmful prompts, and less those to harmless ones; the most frequent first.
pub fn found(harmful: &[Vec<f32>], harmless: &[Vec<f32>], tokenizer: &Tokenizer) -> Vec<RefusalToken> {
    let firsts = |logits: &[Vec<f32>]| logits.iter().map(|logits| largest(logits) as u32).collect::<Vec<u32>>();
    let (harmful, harmless) = (firsts(harmful), firsts(harmless));
    let share = |of: &[u32], id: u32| of.iter().filter(|&&one| one == id).count() as f64 / of.len() as f64;
    let mut ids = harmful.clone();
    ids.sort_unstable();
    ids.dedup();
    let mut tokens: Vec<RefusalToken> = ids
        .into_iter()
        .map(|id| (id, share(&harmful, id), share(&harmless, id)))
        .filter(|&(_, here, there)| opens_refusals(here, there))
        .map(|(id, here, there)| RefusalToken {
            share_harmful: Some(here),
            share_harmless: Some(there),
            ..given(id, tokenizer)
        })
        .collect();
    tokens.sort_by(|a, b| {
        b.share_harmful
            .partial_cmp(&a.share_harmful)
            .expect("shares are numbers")
    });
    tokens
}

fn opens_refusals(here: f64, there: f64) -> bool {
    here >= SHARE_MIN && here * (1.0 - there) >= ODDS_RATIO_MIN * there * (1.0 - here) && here > there
}

pub fn given(token_id: u32, tokenizer: &Tokenizer) -> RefusalToken {
    RefusalToken {
        token_id,
        text: tokenizer.decode(&[token_id], false).unwrap_or_default(),
        share_harmful: None,
        share_harmless: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_log_odds_of_the_tokens() {
        // probabilities 1/2, 1/4, 1/4
        let logits = [2f32.ln(), 0.0, 0.0];
        assert!((score(&logits, &[0])).abs() < 1e-7);
        assert!((score(&logits, &[1, 2])).abs() < 1e-7);
        assert!((score(&logits, &[1]) - (1f64 / 3.0).ln()).abs() < 1e-6);
    }

    #[test]
    fn a_token_opens_refusals_if_its_odds_are_twice_those_among_harmless_prompts() {
        for (here, there, opens) in [
            (0.5, 0.0, true),
            (0.2, 0.1, true),
            (0.98, 0.6, true),
            (1.0, 0.99, true),
            (1.0, 1.0, false),
            (0.6, 0.5, false),
            (0.09, 0.0, false),
        ] {
            assert_eq!(opens_refusals(here, there), opens, "{here} {there}");
        }
    }

    #[test]
    fn divergence_is_that_of_the_definition() {
        let (p, q) = ([0f32, 0.0], [3f32.ln(), 0.0]);
        let wanted = 0.5 * (0.500001f64 / 0.750001).ln() + 0.5 * (0.500001f64 / 0.250001).ln();
        assert!((divergence(&p, &q) - wanted).abs() < 1e-7);
        assert!(divergence(&q, &q).abs() < 1e-15);
    }
}

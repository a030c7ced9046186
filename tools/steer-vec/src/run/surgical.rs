//! `surgical`: the direction of false refusals, without its part along that of true ones (Wang et al. 2024).

use process::{Common, Error, Result, ResultExt};

use super::search::{Kept, Search};
use crate::cli::SurgicalArgs;
use crate::plan::Trial;
use crate::product::Found;
use crate::vectors::{difference, dot, without};

pub fn run(common: &Common, flags: &SurgicalArgs, trial: &Trial) -> Result<Found> {
    let pseudo = trial
        .pseudo
        .as_ref()
        .ok_or_else(|| Error::bug("surgical", "has no pseudo-harmful prompts"))?;
    let decoder = trial.checkpoint.load().at(flags.search.model.model.display())?;
    let mut search = Search::begin(&flags.search, trial, &decoder)?;
    let harmful = search.train(&trial.harmful, Kept::Refused)?;
    let harmless = search.train(&trial.harmless, Kept::Answered)?;
    let falsely = search.train(pseudo, Kept::Refused)?;
    let refused = search.validation(pseudo, Kept::All)?;
    let answered = search.validation(&trial.harmless, Kept::All)?;
    let count = trial.speech.tail_count;
    let means = |prompts: &[Vec<u32>]| search.passes.means(prompts, count).at("--model");
    let (of_harmful, of_harmless, of_falsely) = (means(&harmful)?, means(&harmless)?, means(&falsely)?);
    let vectors = search.vectors(count, |layer, at| {
        let base = &of_harmless[layer][at];
        let truly = difference(&of_harmful[layer][at], base);
        surgical(&difference(&of_falsely[layer][at], base), &truly, flags.lambda)
    });
    let rules = search.rules(flags.kl_max, None);
    search.finish(common, "surgical", vectors, (&refused, &answered), rules)
}

/// What is left of one vector without a share of its part along another.
fn surgical(falsely: &[f64], truly: &[f64], lambda: f64) -> Vec<f64> {
    let share = lambda * dot(falsely, truly) / (dot(truly, truly) + 1e-8);
    without(falsely, share, truly)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_along_the_true_direction() {
        let (falsely, truly) = ([3.0, 1.0, 2.0], [2.0, 0.0, 0.0]);
        let left = surgical(&falsely, &truly, 1.0);
        assert!(left[0].abs() < 1e-7 && left[1..] == [1.0, 2.0]);
        assert_eq!(surgical(&falsely, &truly, 0.0), falsely);
    }
}

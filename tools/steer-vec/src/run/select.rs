//! `select`: the refusal direction of Arditi et al. (2024).

use process::{Common, Result, ResultExt};

use super::search::{Kept, Search};
use crate::cli::SelectArgs;
use crate::plan::Trial;
use crate::product::Found;
use crate::vectors::difference;

pub fn run(common: &Common, flags: &SelectArgs, trial: &Trial) -> Result<Found> {
    let decoder = trial.checkpoint.load().at(flags.search.model.model.display())?;
    let mut search = Search::begin(&flags.search, trial, &decoder)?;
    let harmful = search.train(&trial.harmful, Kept::Refused)?;
    let harmless = search.train(&trial.harmless, Kept::Answered)?;
    let refused = search.validation(&trial.harmful, Kept::Refused)?;
    let answered = search.validation(&trial.harmless, Kept::Answered)?;
    let count = trial.speech.tail_count;
    let means = |prompts: &[Vec<u32>]| search.passes.means(prompts, count).at("--model");
    let (of_harmful, of_harmless) = (means(&harmful)?, means(&harmless)?);
    let vectors = search.vectors(count, |layer, at| {
        difference(&of_harmful[layer][at], &of_harmless[layer][at])
    });
    let rules = search.rules(flags.kl_max, Some(flags.induced_min));
    search.finish(common, "select", vectors, (&refused, &answered), rules)
}

//! `prompts`: a benchmark in, prompt records out.

use process::{Common, Outcome, Result, ResultExt};
use records::{Status, Writer};

use super::begin;
use crate::bench;
use crate::cli::PromptsArgs;
use crate::plan::Questions;

pub fn run(flags: &PromptsArgs, common: &Common) -> Result<Outcome> {
    let (questions, target) = Questions::new(flags)?;
    if common.plan {
        return process::plan::print(&questions);
    }
    let made = bench::prompts(&questions)?;
    let outcome = say_left_out(&made.left_out, common);
    let mut writer = Writer::new(target.open()?);
    writer.begin(&begin(&questions.digest()?), &()).at("output")?;
    for prompt in &made.prompts {
        writer.row(prompt).at("output")?;
    }
    writer
        .end(Status::partial_if(outcome == Outcome::Partial), &())
        .at("output")?
        .commit()?;
    Ok(outcome)
}

/// Says what could not be asked; then the run is partial.
pub fn say_left_out(left_out: &[String], common: &Common) -> Outcome {
    for what in left_out {
        process::warn(common, &format!("left out: {what}"));
    }
    if left_out.is_empty() {
        Outcome::Complete
    } else {
        Outcome::Partial
    }
}

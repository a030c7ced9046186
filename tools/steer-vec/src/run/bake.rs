//! `bake`: from a plan and a model to a directory of weights.

use model::Checkpoint;
use process::{Error, Outcome, Result, ResultExt};
use steering::Plan;

use crate::bake::{Directions, Directory};
use crate::cli::BakeArgs;

pub fn run(flags: &BakeArgs, checkpoint: &Checkpoint) -> Result<Outcome> {
    let subject = flags.steer.display();
    let plan = Plan::read(&flags.steer)?;
    plan.check_model(checkpoint, flags.allow_other_model)
        .map_err(|cause| Error::input(&subject, cause))?;
    let directions = Directions::of(&plan, checkpoint.config()).map_err(|cause| Error::input(&subject, cause))?;
    let writers = checkpoint.config().stream_writers().ok_or_else(|| {
        let cause = "norms stand between its sublayers and the residual stream, so no matrix before them can keep a direction out";
        Error::input(flags.model.display(), cause).hint("steer while it runs: --steer")
    })?;
    let directory = Directory::create(&flags.output)?;
    directory.copy(checkpoint)?;
    directory.weights(checkpoint, &writers, &directions)?;
    checkpoint.check_unchanged().at(flags.model.display())?;
    directory.commit()?;
    Ok(Outcome::Complete)
}

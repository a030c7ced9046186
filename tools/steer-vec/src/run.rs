//! From a command to the file that runs it.

mod au;
mod bake;
mod clip;
mod cluster;
mod flip;
mod function;
mod mean;
mod plane;
mod search;
mod select;
mod surgical;

use std::path::PathBuf;

use process::{Error, Outcome, OutputFlags, Result};

use crate::cli::{Args, Command};
use crate::plan::{Opened, Plan};
use crate::product::{Found, deliver};

pub fn run(args: Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let (common, name) = (&args.common, plan.command);
    let (found, output, inputs) = match (&args.command, &opened) {
        (Command::Mean(flags), Opened::Groups(groups)) => {
            (mean::run(flags, groups)?, &flags.rows.output, &flags.rows.dumps)
        }
        (Command::Plane(flags), Opened::Groups(groups)) => {
            (plane::run(flags, groups)?, &flags.rows.output, &flags.rows.dumps)
        }
        (Command::Au(flags), Opened::Groups(groups)) => {
            (au::run(flags, groups)?, &flags.rows.output, &flags.rows.dumps)
        }
        (Command::Cluster(flags), Opened::Groups(groups)) => {
            (cluster::run(flags, groups)?, &flags.rows.output, &flags.rows.dumps)
        }
        (Command::Function(flags), Opened::Groups(groups)) => {
            (function::run(flags, groups)?, &flags.rows.output, &flags.rows.dumps)
        }
        (Command::Select(flags), Opened::Search(trial)) => {
            let inputs = [flags.search.harmful.clone(), flags.search.harmless.clone()];
            let found = select::run(common, flags, trial)?;
            return finished(&plan, &flags.search.output, &inputs, &found);
        }
        (Command::Surgical(flags), Opened::Search(trial)) => {
            let search = &flags.search;
            let inputs = [
                search.harmful.clone(),
                search.harmless.clone(),
                flags.pseudo_harmful.clone(),
            ];
            let found = surgical::run(common, flags, trial)?;
            return finished(&plan, &search.output, &inputs, &found);
        }
        (Command::Clip(flags), Opened::Tensors(tensors)) => (clip::run(flags, tensors)?, &flags.output, &flags.dumps),
        (Command::Flip(flags), Opened::Flip(checkpoint, layers)) => {
            let found = flip::run(flags, checkpoint, layers)?;
            return finished(&plan, &flags.output, &[], &found);
        }
        (Command::Bake(flags), Opened::Bake(checkpoint)) => return bake::run(flags, checkpoint),
        _ => return Err(Error::bug(name, "is not opened for this")),
    };
    finished(&plan, output, inputs, &found)
}

/// Where nothing was good enough, the answer is no.
fn finished(plan: &Plan, output: &OutputFlags, inputs: &[PathBuf], found: &Found) -> Result<Outcome> {
    deliver(plan, output, inputs, found)?;
    Ok(match found.plan {
        Some(_) => Outcome::Complete,
        None => Outcome::Verdict,
    })
}

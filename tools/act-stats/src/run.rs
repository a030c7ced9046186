//! From a command to the file that runs it.

mod fit;
mod measure;
mod merge;

use crate::cli::{Args, Command};
use crate::plan;
use process::{Outcome, Result};

pub fn run(args: Args) -> Result<Outcome> {
    match &args.command {
        Some(Command::Fit(flags)) => {
            let (plan, opened) = plan::fit::Plan::new(flags)?;
            match args.common.plan {
                true => process::plan::print(&plan),
                false => fit::run(&plan, &opened),
            }
        }
        Some(Command::Merge(flags)) => {
            let (plan, opened) = plan::merge::open(flags)?;
            match args.common.plan {
                true => process::plan::print(&plan),
                false => merge::run(opened),
            }
        }
        None => {
            let (plan, opened) = plan::measure::Plan::new(&args.measure)?;
            match args.common.plan {
                true => process::plan::print(&plan),
                false => measure::run(&plan, &opened, &args.common),
            }
        }
    }
}

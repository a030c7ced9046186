//! From a command to the file that runs it.

mod fit;
mod measure;
mod merge;

use crate::cli::{Args, Command};
use crate::part::Merge;
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
            let merge = Merge::of(&flags.inputs)?;
            match args.common.plan {
                true => process::plan::print(merge.plan()),
                false => merge::run(merge, flags.format.resolve(None)),
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

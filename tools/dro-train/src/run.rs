//! From a command to the file that runs it.

mod learn;
mod prompts;

use process::{Error, Outcome, Result};

use crate::cli::Args;
use crate::plan::{Opened, Plan};

pub fn run(args: Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    match (&plan, opened) {
        (Plan::Prompts(plan), Opened::Prompts { prompts, target }) => prompts::run(plan, &prompts, &target),
        (Plan::Learn(plan), Opened::Learn(learn)) => learn::run(plan, *learn, &args.common),
        _ => Err(Error::bug("plan", "is not opened for this")),
    }
}

//! From a command to the file that runs it; here is also what all of them write first.

mod pipeline;
mod prompts;
mod report;
mod score;

use process::{Outcome, Result};
use records::Begin;

use crate::cli::{Args, Command};

pub fn run(args: Args) -> Result<Outcome> {
    match &args.command {
        Command::Prompts(flags) => prompts::run(flags, &args.common),
        Command::Score(flags) => score::run(flags, &args.common),
        Command::Report(flags) => report::run(flags, &args.common),
        Command::Run(flags) => pipeline::run(flags, &args.common),
    }
}

/// The first record of an output whose plan has this digest.
fn begin(plan_digest: &str) -> Begin {
    Begin::new(process::tool_name(), process::VERSION).plan_digest(plan_digest)
}

//! From a command to the file that runs it; here is also what all of them write first.

mod calibrate;
mod diff;
mod judge;
mod pipeline;
mod prompts;
mod pseudo_label;
mod report;
mod sample;

use process::{Common, Outcome, Result};
use records::Begin;
use serde::Serialize;

use crate::cli::{Args, Command};
use crate::plan;

pub fn run(args: Args) -> Result<Outcome> {
    let common = &args.common;
    match &args.command {
        Command::Prompts(flags) => carry_out(plan::prompts::Plan::new(flags)?, prompts::run, common),
        Command::Judge(flags) => carry_out(plan::judge::Plan::new(flags, common)?, judge::run, common),
        Command::Report(flags) => carry_out(plan::report::Plan::new(flags)?, report::run, common),
        Command::Diff(flags) => carry_out(plan::diff::Plan::new(flags)?, diff::run, common),
        Command::Sample(flags) => carry_out(plan::sample::Plan::new(flags)?, sample::run, common),
        Command::PseudoLabel(flags) => carry_out(plan::pseudo_label::Plan::new(flags)?, pseudo_label::run, common),
        Command::Calibrate(flags) => carry_out(plan::calibrate::Plan::new(flags, common)?, calibrate::run, common),
        Command::Run(flags) => carry_out(plan::pipeline::Plan::new(flags, common)?, pipeline::run, common),
    }
}

/// Runs a plan, or prints it where nothing else is asked for.
fn carry_out<P: Serialize, O>(
    (plan, opened): (P, O),
    run: fn(&P, O, &Common) -> Result<Outcome>,
    common: &Common,
) -> Result<Outcome> {
    match common.plan {
        true => process::plan::print(&plan),
        false => run(&plan, opened, common),
    }
}

/// The first record of an output made by `plan`.
fn begin(plan: &impl Serialize) -> Result<Begin> {
    Ok(Begin::new(process::tool_name(), process::VERSION).plan_digest(process::plan::digest(plan)?))
}

//! report: what `scripts/repro/Makefile` does beside calling the tools: data drawn from published files, settings as files and as choices, a
//! line of measures for each run, the page, the cost.
//!
//! It computes nothing that a tool does not record, means, correlations and tests over runs apart.

mod base;
mod choose;
mod claims;
mod cost;
mod draw;
mod findings;
mod html;
mod markdown;
mod page;
mod rows;
mod runs;
mod settings;
mod summary;
mod tables;

use clap::{Parser, Subcommand};
use process::{Outcome, Result};
use serde::Serialize;

/// Settings, summaries, costs and the page of a reproduction: run by scripts/repro/Makefile.
#[derive(Debug, Parser)]
#[command(name = "report", version)]
struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    common: process::Common,
}

#[derive(Debug, Subcommand, Serialize)]
enum Command {
    /// Write settings as JSON; a file that is there must hold the same
    Settings(settings::Flags),
    /// Print one line with every number of a run that the page takes
    Summary(summary::Flags),
    /// Print what the runs say of each claim of the protocol
    Claims(claims::Flags),
    /// Print how false refusals differ between two ways of training, over their seeds
    Change(claims::change::Flags),
    /// Print the tables of a write-up: the claims and every run
    Markdown(markdown::Flags),
    /// Print the page, from the summaries of all runs
    Page(page::Flags),
    /// Print what runs cost, from what the tools say of them on stdin
    Cost(cost::Flags),
    /// Print rows of training data as conversations, or those held out
    Rows(draw::RowsFlags),
    /// Print the rows whose answers are as long as those of another file
    Matched(draw::MatchedFlags),
    /// Print the prompts to develop on, or the others
    Pick(draw::PickFlags),
    /// Print the training setting with the least held-out loss
    ChooseRate(choose::RateFlags),
    /// Print the cure with the fewest false refusals that costs little
    ChooseCure(choose::CureFlags),
    /// Print or check the held-out loss of the shipped base model, from the records of vcl-train on stdin
    Base(base::Flags),
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

fn main() -> ! {
    process::main::<Args>(run)
}

fn run(args: Args) -> Result<Outcome> {
    if args.common.plan {
        return process::plan::print(&args.command);
    }
    match args.command {
        Command::Settings(flags) => settings::write(&flags),
        Command::Summary(flags) => summary::print(&flags),
        Command::Claims(flags) => claims::print(&flags),
        Command::Change(flags) => claims::change::print(&flags),
        Command::Markdown(flags) => markdown::print(&flags),
        Command::Page(flags) => page::print(&flags),
        Command::Cost(flags) => cost::print(&flags),
        Command::Rows(flags) => draw::rows(&flags),
        Command::Matched(flags) => draw::matched(&flags),
        Command::Pick(flags) => draw::pick(&flags),
        Command::ChooseRate(flags) => choose::rate(&flags),
        Command::ChooseCure(flags) => choose::cure(&flags),
        Command::Base(flags) => base::print(&flags),
    }
}

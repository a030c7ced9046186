//! `acts-check`: verifies activation containers.

mod cli;
mod plan;
mod report;
mod run;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

//! refusal-eval: judge completions for refusal and report rates with intervals.

mod answers;
mod benchmarks;
mod cli;
mod judge;
mod plan;
mod report;
mod run;
mod table;
mod tally;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

//! refusal-eval: judge completions for refusal and report rates with intervals.

mod answers;
mod benchmarks;
mod cli;
mod groups;
mod judge;
mod labels;
mod pairs;
mod plan;
mod reliability;
mod report;
mod run;
mod table;
mod tally;
mod verdicts;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

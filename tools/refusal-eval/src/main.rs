//! refusal-eval: judge completions for refusal and report rates with intervals.

mod answers;
mod benchmarks;
mod class;
mod cli;
mod correction;
mod exchange;
mod groups;
mod inspect;
mod judge;
mod labels;
mod opis;
mod page;
mod pairs;
mod plan;
mod reliability;
mod report;
mod run;
mod self_training;
mod strata;
mod table;
mod tally;
mod verdicts;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

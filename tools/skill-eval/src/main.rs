//! skill-eval: measure general ability on published benchmarks.

mod answer;
mod bench;
mod cli;
mod exchange;
mod extract;
mod instructions;
mod lm_eval;
mod plan;
mod report;
mod rows;
mod run;
mod sandbox;
mod scorer;
mod table;
mod tally;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

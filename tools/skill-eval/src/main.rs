//! skill-eval: measure general ability on MMLU, GSM8K, BBH and HumanEval.

mod answer;
mod bench;
mod cli;
mod extract;
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

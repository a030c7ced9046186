//! `ds-entropy`: how repetitive a fine-tuning data set is.

mod cli;
mod compression;
mod corpus;
mod counts;
mod input;
mod intake;
mod loss;
mod measure;
mod ngrams;
mod openings;
mod plan;
mod refusals;
mod report;
mod run;
mod store;
mod table;
mod tokens;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

//! act-stats: how large activations are, and by which law that changes.

mod cli;
mod measure;
mod part;
mod plan;
mod report;
mod run;
mod source;
mod subject;
mod table;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

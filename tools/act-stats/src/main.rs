//! act-stats: how large activations are, and by which law that changes.

mod cli;
mod measure;
mod plan;
mod report;
mod run;
mod source;
mod table;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

//! `lm-merge`: makes a model directory of a model and its adapters.

mod cli;
mod plan;
mod report;
mod run;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

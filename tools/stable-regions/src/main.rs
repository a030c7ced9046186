//! stable-regions: how the read-out of a model answers while one residual vector moves from prompt A to prompt B.

mod cli;
mod cloud;
mod distance;
mod engine;
mod interpolation;
mod merge;
mod pairs;
mod plan;
mod ready;
mod report;
mod run;
mod slices;
mod summary;
mod sweep;
mod table;
mod triples;
mod verdicts;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

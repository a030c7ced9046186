//! stable-regions: how the read-out of a model answers while one residual vector moves from prompt A to prompt B.

mod cli;
mod distance;
mod engine;
mod merge;
mod pairs;
mod plan;
mod report;
mod run;
mod slices;
mod summary;
mod sweep;
mod table;
mod verdicts;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

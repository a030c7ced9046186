//! steer-vec: find the vectors that steer a language model, and write them as a plan.

mod bake;
mod candidate;
mod cli;
mod dump;
mod passes;
mod plan;
mod product;
mod prompts;
mod refusal;
mod report;
mod run;
mod vectors;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

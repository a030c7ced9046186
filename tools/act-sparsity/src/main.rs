//! act-sparsity: which inputs of its matrices a model can do without.

mod cli;
mod criterion;
mod dump;
mod level;
mod matrix;
mod perplexity;
mod plan;
mod report;
mod run;
mod search;
mod study;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

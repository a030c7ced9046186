//! lm-gen: generate and score completions with a language model.

mod cli;
mod decode;
mod directions;
mod merge;
mod plan;
mod prompts;
mod report;
mod resume;
mod run;
mod sample;
mod score;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

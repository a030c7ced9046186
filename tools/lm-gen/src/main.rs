//! lm-gen: generate and score completions with a language model.

mod cli;
mod contrast;
mod decode;
mod merge;
mod output;
mod plan;
mod prefix;
mod prompts;
mod report;
mod resume;
mod run;
mod sample;
mod score;
mod units;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

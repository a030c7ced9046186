//! `resid-dump`: runs a language model over prompts and writes its residual stream.

mod cli;
mod collector;
mod dump;
mod inspect;
mod layout;
mod moments;
mod plan;
mod prompts;
mod report;
mod run;
mod selection;
mod verify;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

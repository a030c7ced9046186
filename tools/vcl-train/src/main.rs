//! vcl-train: fine-tuning, with or without auxiliary losses.

mod auxiliary;
mod checkpoint;
mod cli;
mod init;
mod learner;
mod meeting;
mod micro;
mod mixture;
mod objective;
mod order;
mod origin;
mod plan;
mod publish;
mod reader;
mod recipe;
mod report;
mod run;
mod sample;
mod schedule;
mod settings;
mod share;
mod tally;
#[cfg(test)]
mod tests;
mod trainer;
mod transport;
mod work;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

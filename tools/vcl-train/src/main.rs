//! vcl-train: supervised fine-tuning with the Variance Concentration Loss.

mod aux;
mod checkpoint;
mod cli;
mod data;
mod init;
mod learner;
mod plan;
mod publish;
mod recipe;
mod report;
mod run;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

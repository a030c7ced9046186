//! `acts-cat`: prints, slices, converts, merges and salvages activation containers.

mod cli;
mod gguf;
mod import;
mod merge;
mod npy;
mod parquet;
mod plan;
mod report;
mod rows;
mod run;
mod safetensors;
mod salvage;
mod slice;
mod source;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

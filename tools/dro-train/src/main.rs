//! dro-train: learn a system message in the model's own space, by directed representation optimisation (arXiv 2401.18018).

mod anchors;
mod cli;
mod heads;
mod objective;
mod plan;
mod product;
mod prompts;
mod queries;
mod report;
mod run;
mod settings;
mod space;
mod states;
#[cfg(test)]
mod tests;
mod trainer;

fn main() -> ! {
    model::memory::keep_freed_buffers();
    process::main::<cli::Args>(run::run)
}

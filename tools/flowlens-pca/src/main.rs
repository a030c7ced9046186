//! flowlens-pca: principal components, concentration and trajectories of residual-stream activations.

mod basis;
mod cli;
mod compare;
mod container;
mod fit;
#[cfg(target_os = "linux")]
mod openblas;
mod plan;
mod report;
mod rows;
mod run;
mod source;
mod spread;
mod stability;
mod table;
mod trajectory;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

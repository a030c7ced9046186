//! resid-plot: draws the records of the other tools as SVG, PNG or one self-contained HTML page.

mod cli;
mod draw;
mod figure;
mod figures;
mod plan;
mod report;
mod run;
mod source;

fn main() -> ! {
    process::main::<cli::Args>(run::run)
}

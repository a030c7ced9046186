//! `flowlens`: one front door to the tools. A command that is a tool becomes that tool before a flag is read, so it behaves as it does alone.

mod cli;
mod commands;
mod doctor;
mod plan;
mod report;
mod run;

fn main() -> ! {
    match commands::called() {
        Some(tool) => process::become_tool("flowlens", tool),
        None => process::main::<cli::Args>(run::run),
    }
}

//! The readers that steer-vec alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/steer-vec/src"]
mod tool {
    pub mod bake;
    pub mod candidate;
    pub mod cli;
    pub mod dump;
    pub mod passes;
    pub mod plan;
    pub mod product;
    pub mod prompts;
    pub mod refusal;
    pub mod report;
    pub mod run;
    pub mod vectors;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

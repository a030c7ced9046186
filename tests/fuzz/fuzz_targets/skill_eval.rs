//! The readers that skill-eval alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/skill-eval/src"]
mod tool {
    pub mod answer;
    pub mod bench;
    pub mod cli;
    pub mod exchange;
    pub mod extract;
    pub mod instructions;
    pub mod lm_eval;
    pub mod plan;
    pub mod report;
    pub mod rows;
    pub mod run;
    pub mod sandbox;
    pub mod scorer;
    pub mod table;
    pub mod tally;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

//! The readers that refusal-eval alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/refusal-eval/src"]
mod tool {
    pub mod answers;
    pub mod benchmarks;
    pub mod class;
    pub mod cli;
    pub mod correction;
    pub mod exchange;
    pub mod groups;
    pub mod inspect;
    pub mod judge;
    pub mod labels;
    pub mod opis;
    pub mod page;
    pub mod pairs;
    pub mod plan;
    pub mod reliability;
    pub mod report;
    pub mod run;
    pub mod self_training;
    pub mod strata;
    pub mod table;
    pub mod tally;
    pub mod verdicts;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

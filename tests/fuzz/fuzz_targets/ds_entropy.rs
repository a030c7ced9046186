//! The readers that ds-entropy alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/ds-entropy/src"]
mod tool {
    pub mod cli;
    pub mod compression;
    pub mod corpus;
    pub mod counts;
    pub mod input;
    pub mod intake;
    pub mod loss;
    pub mod measure;
    pub mod ngrams;
    pub mod openings;
    pub mod plan;
    pub mod refusals;
    pub mod report;
    pub mod run;
    pub mod store;
    pub mod table;
    pub mod tokens;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

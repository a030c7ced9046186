//! The readers that stable-regions alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/stable-regions/src"]
mod tool {
    pub mod cli;
    pub mod cloud;
    pub mod distance;
    pub mod engine;
    pub mod interpolation;
    pub mod merge;
    pub mod pairs;
    pub mod plan;
    pub mod ready;
    pub mod report;
    pub mod run;
    pub mod slices;
    pub mod summary;
    pub mod sweep;
    pub mod table;
    pub mod triples;
    pub mod verdicts;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

//! The readers that acts-check alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/acts-check/src"]
mod tool {
    pub mod cli;
    pub mod plan;
    pub mod report;
    pub mod run;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

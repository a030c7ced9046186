//! The readers that lm-gen alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/lm-gen/src"]
mod tool {
    pub mod cli;
    pub mod contrast;
    pub mod decode;
    pub mod merge;
    pub mod output;
    pub mod plan;
    pub mod prefix;
    pub mod prompts;
    pub mod report;
    pub mod resume;
    pub mod run;
    pub mod sample;
    pub mod score;
    pub mod units;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

//! The readers that resid-plot alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/resid-plot/src"]
mod tool {
    pub mod cli;
    pub mod draw;
    pub mod figure;
    pub mod figures;
    pub mod plan;
    pub mod report;
    pub mod run;
    pub mod source;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

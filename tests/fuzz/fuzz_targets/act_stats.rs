//! The readers that act-stats alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/act-stats/src"]
mod tool {
    pub mod cli;
    pub mod measure;
    pub mod part;
    pub mod plan;
    pub mod report;
    pub mod run;
    pub mod source;
    pub mod subject;
    pub mod table;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

//! The readers that acts-cat alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/acts-cat/src"]
mod tool {
    pub mod cli;
    pub mod gguf;
    pub mod import;
    pub mod merge;
    pub mod npy;
    pub mod parquet;
    pub mod plan;
    pub mod report;
    pub mod rows;
    pub mod run;
    pub mod safetensors;
    pub mod salvage;
    pub mod slice;
    pub mod source;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

//! The readers that flowlens-pca alone has.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "a program of one tool")]
mod properties;

#[path = "../../../tools/flowlens-pca/src"]
mod tool {
    pub mod basis;
    pub mod cli;
    pub mod compare;
    pub mod container;
    pub mod fit;
    #[cfg(target_os = "linux")]
    pub mod openblas;
    pub mod plan;
    pub mod report;
    pub mod rows;
    pub mod run;
    pub mod source;
    pub mod spread;
    pub mod stability;
    pub mod table;
    pub mod trajectory;
}

use tool::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::tools::fuzz::<cli::Args>(run::run, data));

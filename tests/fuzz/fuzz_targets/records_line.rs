//! Any bytes as a record stream and as a dataset.

#![no_main]

#[path = "../properties/records_line.rs"]
mod records_line;

libfuzzer_sys::fuzz_target!(|data: &[u8]| records_line::check(data));

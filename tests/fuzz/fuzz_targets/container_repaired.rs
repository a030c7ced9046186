//! The property `repaired` of properties/container.rs.

#![no_main]

#[path = "../properties/container.rs"]
#[allow(dead_code, reason = "one target, one property")]
mod container;

libfuzzer_sys::fuzz_target!(|data: &[u8]| container::repaired(data));

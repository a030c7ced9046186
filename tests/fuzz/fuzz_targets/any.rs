//! The targets that are reached through libraries: FUZZ_TARGET names the one to run.
//!
//! A panic that our borders catch (`foreign::guarded`) is no finding, though libFuzzer aborts in a hook before anything can catch: the
//! border's own hook stands in front of it, and reports only what is not guarded.

#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code, reason = "tools have programs of their own")]
mod properties;

use std::sync::LazyLock;

use properties::{TARGETS, Target, memory};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    *found.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is in no table"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory::bounded(TARGET.0, || (TARGET.1)(data)));

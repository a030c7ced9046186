//! What a call of refusal-eval will do. Each command has its own `Plan`, which `--plan` prints and every output is hashed with, and
//! its own `Opened`: what the plan is carried out with, so that a run reads no flag but the common ones.

pub mod calibrate;
pub mod diff;
pub mod judge;
pub mod pipeline;
pub mod prompts;
pub mod pseudo_label;
pub mod report;
pub mod sample;

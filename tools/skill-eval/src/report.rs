//! The rows of skill-eval, all of which other tools read.

pub use records::{SkillReport, Versus};

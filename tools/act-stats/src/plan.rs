//! From arguments to what will be done, a file for each command.

pub mod fit;
pub mod measure;

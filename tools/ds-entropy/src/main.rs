//! `ds-entropy`: how repetitive a fine-tuning data set is.

mod tokens;

fn main() {}

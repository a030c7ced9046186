//! The table of commands that are tools, and the call of one.

use process::Sibling;
use std::env;

/// Command and tool. Every tool stands here; a test compares it with what there is.
pub const TOOLS: [(&str, &str); 16] = [
    ("entropy", "ds-entropy"),
    ("dump", "resid-dump"),
    ("pca", "flowlens-pca"),
    ("stats", "act-stats"),
    ("sparsity", "act-sparsity"),
    ("train", "vcl-train"),
    ("gen", "lm-gen"),
    ("merge", "lm-merge"),
    ("steer", "steer-vec"),
    ("dro", "dro-train"),
    ("refusal", "refusal-eval"),
    ("skill", "skill-eval"),
    ("regions", "stable-regions"),
    ("plot", "resid-plot"),
    ("cat", "acts-cat"),
    ("check", "acts-check"),
];

/// The call of a tool, where the first word is a command that is one.
pub fn called() -> Option<Sibling> {
    let mut words = env::args_os().skip(1);
    let first = words.next()?;
    let (_, tool) = TOOLS
        .into_iter()
        .find(|(command, tool)| first == *command || first == *tool)?;
    Some(Sibling::new(tool).args(words))
}

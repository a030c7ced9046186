//! The arguments of `flowlens`. The doc comments are the help text and the man page.

use clap::{Args as Flags, Parser, Subcommand};
use std::path::PathBuf;

/// Call any tool of flowlens, and ask what this machine can do
///
/// `flowlens dump ...` is `resid-dump ...`, and so on for every command that names a tool; a tool's own name is a command too. What follows
/// goes to the tool as it is, and so do input, output and exit code: `flowlens dump --help` is its help. The tools need no front command,
/// and pipes are as well made of them.
#[derive(Debug, Clone, Parser)]
#[command(name = "flowlens", version, after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub common: process::Common,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// How repetitive is this fine-tuning data? (ds-entropy)
    Entropy,
    /// What is in the residual stream? (resid-dump)
    Dump,
    /// In how few directions does its variance lie? (flowlens-pca)
    Pca,
    /// How large are activations, and where are the massive ones? (act-stats)
    Stats,
    /// Which inputs can matrices do without? (act-sparsity)
    Sparsity,
    /// Fine-tune with an auxiliary loss. (vcl-train)
    Train,
    /// What does the model answer? (lm-gen)
    Gen,
    /// Make one model of a base and its adapters. (lm-merge)
    Merge,
    /// Which direction refuses? (steer-vec)
    Steer,
    /// Learn a system message. (dro-train)
    Dro,
    /// Which answers refuse? (refusal-eval)
    Refusal,
    /// Did general ability survive? (skill-eval)
    Skill,
    /// Where are the plateaus between two prompts? (stable-regions)
    Regions,
    /// Draw records. (resid-plot)
    Plot,
    /// Print, convert and merge containers. (acts-cat)
    Cat,
    /// Verify containers. (acts-check)
    Check,
    /// What can this machine do: processor, kernels, memory, tools and their versions. Ends with 1 where a tool is missing or of another version.
    Doctor(Doctor),
    /// One HTML page of every record stream in a directory.
    Report(Report),
}

#[derive(Debug, Clone, Flags)]
pub struct Doctor {
    #[command(flatten)]
    pub format: process::FormatFlags,
}

#[derive(Debug, Clone, Flags)]
pub struct Report {
    /// The directory whose .jsonl files are drawn.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    #[command(flatten)]
    pub output: process::OutputFlags,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  The geometry of a model's residual stream:
    flowlens dump --model DIR prompts.jsonl -o - | flowlens pca -

  Will it run here, and how fast a kernel is there?
    flowlens doctor

  A page of what a run recorded:
    flowlens report run/ -o report.html
";

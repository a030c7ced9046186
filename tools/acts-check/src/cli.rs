//! The arguments of acts-check. The doc comments are the help text and the man page.

use clap::Parser;
use std::path::PathBuf;

/// Verify activation containers
///
/// Without a flag a container's header, manifest and seek table are verified and compared with the length of the file:
/// truncation, appended bytes and a lying index are found within milliseconds whatever the size. --full also verifies and
/// decodes every block and recomputes each tensor's digest and its counts of NaN and infinite elements. A container on
/// stdin or in a pipe is always verified in full.
///
/// One record per container and tensor goes to stdout, one per damaged block too. A refused container is exit code 3 and
/// one line on stderr, after all containers were looked at.
#[derive(Debug, Clone, Parser)]
#[command(name = "acts-check", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Containers; `-` is stdin.
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Verify and decode every block.
    #[arg(long, conflicts_with = "sample")]
    pub full: bool,

    /// Verify the blocks whose number leaves INDEX when divided by COUNT.
    #[arg(long, value_name = "INDEX/COUNT", value_parser = parse_sample)]
    pub sample: Option<(u64, u64)>,

    /// Accept containers that are marked partial or salvaged.
    #[arg(long)]
    pub allow_partial: bool,

    /// Read with pread instead of a memory map, as network disks prefer.
    #[arg(long)]
    pub no_map: bool,

    #[command(flatten)]
    pub common: process::Common,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

fn parse_sample(text: &str) -> Result<(u64, u64), String> {
    let (index, count) = text.split_once('/').ok_or("expected INDEX/COUNT, for example 0/100")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
    let (index, count) = (number(index)?, number(count)?);
    if index < count {
        Ok((index, count))
    } else {
        Err(format!("index {index} is not below count {count}"))
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  Is this file whole?
    acts-check dump.acts

  Is every byte of it sound?
    acts-check --full dump.acts

  A different hundredth of a large archive every night:
    acts-check --sample 17/100 /archive/*.acts

  Which tensors hold NaN?
    acts-check --full dump.acts | jq -r 'select(.nan_count > 0).tensor'
";

//! The flags that mean the same in every tool. Doc comments here are the help text and the man pages.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::Result;
use crate::output::{Existing, Output};
use crate::shard::Shard;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// One JSON line a second on stderr.
    Json,
    /// Nothing.
    None,
}

/// What every tool accepts.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// Worker threads (default: the cores this process may use).
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096), help_heading = "Common options")]
    pub threads: Option<u16>,

    /// Show progress on stderr.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "MODE",
        help_heading = "Common options"
    )]
    pub progress: ProgressMode,

    /// Say nothing on stderr but errors.
    #[arg(short, long, global = true, help_heading = "Common options")]
    pub quiet: bool,

    /// Say more on stderr.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "quiet",
        help_heading = "Common options"
    )]
    pub verbose: bool,

    /// Print what would be done as JSON, and stop.
    #[arg(long, global = true, help_heading = "Common options")]
    pub plan: bool,
}

impl Common {
    /// The number of worker threads to use.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            Some(count) => usize::from(count),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What is laid over a model.
#[derive(Args, Clone, Debug, Default)]
pub struct AdapterFlags {
    /// Merge the low-rank adapter of DIR, in PEFT's format, into the model as it is loaded; several are merged in the order given.
    #[arg(long = "adapter", value_name = "DIR")]
    pub adapters: Vec<PathBuf>,

    /// Take adapters that say they were made for another model.
    #[arg(long, requires = "adapters")]
    pub other_base: bool,
}

/// Where a result goes.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputFlags {
    /// Write to FILE; `-` is stdout. A file appears under its name only when it is complete.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Replace an output that exists, or start over a partial one.
    #[arg(long)]
    pub force: bool,
}

impl OutputFlags {
    /// Opens where records go: FILE, else stdout. `inputs` are the files being read: none of them is written onto.
    pub fn open(&self, inputs: &[PathBuf]) -> Result<Output> {
        self.target(inputs).open()
    }

    /// The same, to be opened later.
    pub fn target(&self, inputs: &[PathBuf]) -> Target {
        Target {
            path: self.output.clone().unwrap_or_else(|| PathBuf::from("-")),
            existing: Existing::from_flags(self.force, false),
            inputs: inputs.to_vec(),
        }
    }
}

/// Where records go, not opened yet.
pub struct Target {
    path: PathBuf,
    existing: Existing,
    /// The files being read: none of them is written onto.
    inputs: Vec<PathBuf>,
}

impl Target {
    pub fn open(&self) -> Result<Output> {
        Output::create(&self.path, self.existing, &self.inputs)
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Records.
    Jsonl,
    /// For reading.
    Table,
}

/// The choice between records and a table, and one rule where none is made.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct FormatFlags {
    /// Records (jsonl), or a table for people. The default is a table on a terminal and records in a pipe or a file.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

impl FormatFlags {
    /// The format of what goes to `output`, or to stdout where none is named.
    pub fn resolve(self, output: Option<&Path>) -> Format {
        let is_stdout = output.is_none_or(|path| path == Path::new("-"));
        self.format.unwrap_or(match is_stdout && io::stdout().is_terminal() {
            true => Format::Table,
            false => Format::Jsonl,
        })
    }
}

/// Which part of the input to process.
#[derive(Args, Clone, Debug, Default)]
pub struct ShardFlags {
    /// Process shard INDEX (from 0) of COUNT, assigned by content; also read from SHARD_INDEX and SHARD_COUNT, the
    /// task of a scheduler's array, or RANK and WORLD_SIZE: see flowlens(7).
    #[arg(long, value_name = "INDEX/COUNT", value_parser = Shard::parse)]
    pub shard: Option<Shard>,
}

impl ShardFlags {
    /// The flag, else the environment, else the whole.
    pub fn resolve(&self) -> Result<Shard> {
        match self.shard {
            Some(shard) => Ok(shard),
            None => Ok(Shard::from_environment()?.unwrap_or(Shard::WHOLE)),
        }
    }
}

/// A size such as `64M`, `1.5GiB` or `4096`: binary units, with or without `iB`/`B`.
pub fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    let malformed = || format!("{text:?} is not a size such as 4096, 64M or 2GiB");
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KB" | "KiB" => 10,
        "M" | "MB" | "MiB" => 20,
        "G" | "GB" | "GiB" => 30,
        "T" | "TB" | "TiB" => 40,
        _ => return Err(malformed()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(1 << shift)
            .ok_or_else(|| format!("{text:?} is over 2^64 bytes"));
    }
    let fraction: f64 = number.parse().map_err(|_| malformed())?;
    let bytes = fraction * (1u64 << shift) as f64;
    if !(0.0..9.0e18).contains(&bytes) || shift == 0 {
        return Err(malformed());
    }
    Ok(bytes as u64)
}

/// A confidence or a power.
pub fn parse_probability(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p < 1.0 => Ok(p),
        _ => Err("a probability lies strictly between 0 and 1".to_string()),
    }
}

/// A choice as it is typed, and as it stands in records.
pub fn word(choice: impl clap::ValueEnum) -> String {
    let value = choice.to_possible_value().expect("no choice is hidden");
    value.get_name().to_owned()
}

/// How exact products are, of a tool that runs a model.
#[derive(clap::Args, Clone, Debug)]
pub struct PrecisionFlag {
    /// How exact products of f32 on the CPU are: full, or medium, which is faster where the processor has a tile unit (Intel AMX).
    ///
    /// With medium, products take 16 bits of every number there, and are summed in f32. Against f64 they are then wrong by about
    /// 4.1e-6 of the output (rms, of 768 products each, three dimensions a hundred times as large as the rest); at full precision by 4.2e-7, in
    /// bf16 by 2.2e-3.
    /// `kernel` in `compute` says what was used: amx-bf16x3, or on other processors the kernel of full precision.
    #[arg(long, value_name = "WORD", default_value = "full", value_parser = ["full", "medium"])]
    pub precision: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64M"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        for text in ["", "1e9", "1XB", "18446744073709551616", "-1", "1.5", ".", "99999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}

//! The arguments of acts-cat. The doc comments are the help text and the man page.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Print, slice, convert, merge and salvage activation containers
///
/// Without a flag the header is printed, and one record per tensor. --head, --rows and --tensor choose rows; --to converts
/// them, to the format that the output's name says where --to does not. --from makes a container of npy and safetensors
/// files, also of vLLM's per-request dumps of hidden states. --merge puts the shards of one run together: the result holds
/// the bytes that the run would have written in one piece. --salvage keeps what verifies of a damaged container.
///
/// A container on stdin or in a pipe is verified while it is copied to a temporary file, then read like any other.
#[derive(Debug, Clone, Parser)]
#[command(name = "acts-cat", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Containers; `-` is stdin. One, except under --merge.
    #[arg(value_name = "FILE", required_unless_present = "from")]
    pub inputs: Vec<PathBuf>,

    /// Make a container of npy or safetensors files, or of a directory of vLLM dumps; `-` is stdin.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["inputs", "merge", "salvage", "header", "head", "rows", "tensor", "to"])]
    pub from: Vec<PathBuf>,

    /// What --from reads (default: told by the file's first bytes and its tensors).
    #[arg(long, value_name = "FORMAT", requires = "from")]
    pub input_format: Option<InputFormat>,

    /// Name of the tensor that --from makes; layers are NAME.0, NAME.1 and so on.
    #[arg(long, value_name = "NAME", default_value = "data", requires = "from")]
    pub name: String,

    /// Print the header and a record per tensor, and nothing else.
    #[arg(long, conflicts_with_all = ["to", "head", "rows", "merge", "salvage"])]
    pub header: bool,

    /// The first N rows of each tensor.
    #[arg(long, value_name = "N", conflicts_with_all = ["rows", "merge", "salvage"])]
    pub head: Option<u64>,

    /// Rows A up to but not B, counted from 0; either may be left out.
    #[arg(long, value_name = "A:B", value_parser = parse_rows, conflicts_with_all = ["merge", "salvage"])]
    pub rows: Option<(Option<u64>, Option<u64>)>,

    /// Tensors by name, with * and ? as in a shell; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["merge", "salvage"])]
    pub tensor: Vec<String>,

    /// Format of the output.
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["merge", "salvage"])]
    pub to: Option<OutputFormat>,

    /// Codec of the container that is made (default: as the input, zstd-planes for --from).
    #[arg(long, value_name = "CODEC", value_parser = clap::value_parser!(acts::Codec), conflicts_with_all = ["merge", "salvage"])]
    pub codec: Option<acts::Codec>,

    /// zstd level of the container that is made, 1 to 19.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19), conflicts_with_all = ["merge", "salvage"])]
    pub level: Option<i32>,

    /// Element type of float tensors in the container that is made, rounded to nearest even.
    #[arg(long, value_name = "DTYPE", value_parser = clap::value_parser!(acts::Dtype), conflicts_with_all = ["merge", "salvage"])]
    pub store_dtype: Option<acts::Dtype>,

    /// Merge the shards of one run: coverage, overlap and configuration are checked, the order of one run restored.
    #[arg(long, conflicts_with = "salvage")]
    pub merge: bool,

    /// Merge shards that different devices or kernels computed.
    #[arg(long, requires = "merge")]
    pub allow_mixed_compute: bool,

    /// Decoded blocks that --merge keeps in memory.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = process::parse_bytes)]
    pub max_memory: u64,

    /// Keep what verifies of a damaged container; the result is marked as salvaged.
    #[arg(long)]
    pub salvage: bool,

    /// Read containers that are marked partial or salvaged.
    #[arg(long)]
    pub allow_partial: bool,

    /// Read with pread instead of a memory map, as network disks prefer.
    #[arg(long)]
    pub no_map: bool,

    #[command(flatten)]
    pub output: process::OutputFlags,

    #[command(flatten)]
    pub common: process::Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    Npy,
    Safetensors,
    /// One safetensors file per request: hidden_states (tokens, layers, width) and token_ids (tokens).
    Vllm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// One `row` record per row.
    Jsonl,
    /// The elements, little-endian.
    Raw,
    /// One tensor; bf16 becomes f32, which loses nothing.
    Npy,
    Safetensors,
    /// One tensor, a list column beside its row tables.
    Parquet,
    /// A control vector of llama.cpp: one direction per layer, or the additions of a steering plan.
    Gguf,
    Acts,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

/// Bounds of a row range as typed.
pub type RowBounds = (Option<u64>, Option<u64>);

fn parse_rows(text: &str) -> Result<RowBounds, String> {
    let (start, end) = text.split_once(':').ok_or("expected A:B, for example 100:200")?;
    let bound = |text: &str| match text {
        "" => Ok(None),
        _ => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("{text:?} is not a row number")),
    };
    let (start, end) = (bound(start)?, bound(end)?);
    match (start, end) {
        (Some(start), Some(end)) if start > end => Err(format!("row {start} comes after row {end}")),
        bounds => Ok(bounds),
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  What is in this container?
    acts-cat dump.acts

  Ten rows of two layers, with token and position, as JSON lines:
    acts-cat dump.acts --tensor 'resid_post.?' --head 10

  An array into a container, and back to the same bytes:
    acts-cat --from x.npy -o x.acts
    acts-cat x.acts -o y.npy

  A container whose rows other programs read through a map:
    acts-cat dump.acts --codec stored -o mapped.acts

  A refusal direction of flowlens-pca, or a plan of steer-vec that adds, for llama.cpp's --control-vector:
    acts-cat refusal.acts -o refusal.gguf

  Eight shards into one file:
    acts-cat --merge shard-*.acts -o dump.acts

  What a broken disk left:
    acts-cat --salvage damaged.acts -o rescued.acts
";

//! The arguments of stable-regions. The doc comments are the help text and the man page.

use clap::{ArgGroup, Parser, ValueEnum};
use process::{AdapterFlags, Layers};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Find plateaus and boundaries of the residual stream.
///
/// Runs prompt A, replaces the residual of its last position after one block by X(α) on the way from A's own activation to B's, and
/// measures how far a later read-out moves. A curve with plateaus and one sharp rise crosses the border of a stable region; a linear
/// response is a straight line of slope 1 (Janiak et al., arXiv 2409.17113).
///
/// Keys and values of A's prefix are computed once; every α is a pass of one token, all α and many pairs in one batch.
///
/// Pairs come from --pairs, or are built: --random from texts, --last-token from a list, --across from prompts of two groups.
/// Several --model directories (checkpoints) run over the same pairs and are compared pair by pair with the first.
#[derive(Debug, Clone, Parser)]
#[command(name = "stable-regions", version, after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("source").required(true).multiple(true))]
pub struct Args {
    /// The models: directories (config.json, safetensors, tokenizer), GGUF files, or names in the local cache of the Hugging Face hub
    /// (org/name[@revision]); the first is the one that others are compared with
    #[arg(long, value_name = "MODEL", required = true, num_args = 1..)]
    pub model: Vec<PathBuf>,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Pairs as records: id, a, b, and if wanted group, id_a, id_b; tokens_a and tokens_b may stand for the texts
    #[arg(long, value_name = "FILE", group = "source", conflicts_with_all = ["last_token", "across"])]
    pub pairs: Option<PathBuf>,

    /// Build N pairs of unrelated windows of tokens from TEXT; with --across, draw N pairs of prompts
    #[arg(long, value_name = "N", group = "source", conflicts_with_all = ["pairs", "last_token"], requires = "texts")]
    pub random: Option<usize>,

    /// Tokens in a window of --random
    #[arg(long, value_name = "TOKENS", default_value_t = 10)]
    pub length: usize,

    /// Build pairs that differ in the last token only: lines of PROMPT, WORD, WORD and perhaps a group, with tabs between
    #[arg(long, value_name = "LIST", group = "source", conflicts_with = "across")]
    pub last_token: Option<PathBuf>,

    /// Build pairs across the two values of FIELD in the prompts of TEXT: A has the value met first
    #[arg(long, value_name = "FIELD", group = "source", requires = "texts")]
    pub across: Option<String>,

    /// Texts or prompts to build pairs from
    #[arg(value_name = "TEXT", id = "texts")]
    pub texts: Vec<PathBuf>,

    /// Field that holds a text
    #[arg(long, value_name = "FIELD")]
    pub field: Option<String>,

    /// Format of every input (default: by its name)
    #[arg(long, value_name = "FORMAT")]
    pub input_format: Option<records::dataset::InputFormat>,

    /// Through each model's chat template; the default is the raw prompt
    #[arg(long)]
    pub chat: bool,

    /// A beginning-of-sequence token before each prompt; the paper runs without
    #[arg(long, value_enum, default_value = "off")]
    pub bos: Bos,

    /// Blocks after which the residual is replaced: indices and ranges (0,3,5-8; -1 is the last), a window of depth (0.3-0.5), or all
    /// before the one that is read
    #[arg(
        long,
        alias = "layer",
        value_name = "LAYERS",
        default_value = "0",
        allow_hyphen_values = true
    )]
    pub layers: Layers,

    /// Block after which the answer is read; -1 is the last
    #[arg(long, value_name = "LAYER", default_value = "-1", allow_hyphen_values = true)]
    pub read_layer: Layers,

    /// What is read there; post-norm and logits apply the final norm (and head) to any block's residual
    #[arg(long, value_enum, default_value = "post-norm")]
    pub read: Read,

    /// The way from A to B: straight; on the sphere about the mean activation; or turning at a constant rate
    #[arg(long, value_enum, default_value = "linear")]
    pub path: PathKind,

    /// Distances, each a curve of its own that goes from 0 to 1 (kl and logit always compare next-token scores)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "l2")]
    pub distance: Vec<Distance>,

    /// Values of α, both ends among them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub steps: u32,

    /// Also find where the curve first reaches one half, to EPS in α, by narrowing its step of the grid
    #[arg(long, value_name = "EPS")]
    pub bisect: Option<f64>,

    /// Pairs whose read-out moves no further than this are dropped and counted
    #[arg(long, value_name = "DISTANCE", default_value_t = 0.01)]
    pub min_distance: f64,

    /// Count sign flips of the MLP gates between A and B in every later block
    #[arg(long)]
    pub gate_flips: bool,

    /// Also go from A in a random direction, as far as B is: drawn with the mean and covariance of the run's activations
    #[arg(long)]
    pub baseline: bool,

    /// Planes through three prompts: records with id, a, b, c
    #[arg(long, value_name = "FILE", group = "source")]
    pub slice: Option<PathBuf>,

    /// Also write the fields of the slices as a container (slice.a, slice.b, slice.c); - is stdout, with the records in a file
    #[arg(long, value_name = "FILE", requires = "slice")]
    pub slice_fields: Option<PathBuf>,

    /// Samples of a slice along each axis, from -0.25 to 1.25
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub slice_steps: u32,

    /// Verdicts of refusal-eval: joined to the pairs by prompt id, with a table of where the border lies per verdict
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,

    /// Whose verdicts, where the file has several judges
    #[arg(long, value_name = "NAME", requires = "verdicts")]
    pub judge: Option<String>,

    /// Seed of every draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Only the first N pairs
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,

    /// Skip and count pairs that cannot be measured (equal ends, one token, too long) instead of stopping
    #[arg(long)]
    pub keep_going: bool,

    /// Print the pairs as records, with their tokens under the first model, and stop
    #[arg(long)]
    pub list_pairs: bool,

    /// Summaries only, without a record per pair
    #[arg(long)]
    pub summary: bool,

    #[command(flatten)]
    pub format: process::FormatFlags,

    /// Compute type
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "f16", "bf16"])]
    pub dtype: String,

    #[command(flatten)]
    pub precision: process::PrecisionFlag,

    /// Device: cpu, cuda or cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = model::device::known)]
    pub device: String,

    #[command(flatten)]
    pub steering: steering::SteeringFlags,

    /// Rows (pairs times α) in one pass
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..))]
    pub batch_rows: u32,

    #[command(flatten)]
    pub mixed: process::MixedCompute,

    /// Join the records of all shards of this plan: verify that they cover it once, restore the order of one run, summarise
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["shard", "list_pairs"])]
    pub merge: Vec<PathBuf>,

    #[command(flatten)]
    pub output: process::OutputFlags,

    #[command(flatten)]
    pub shard: process::ShardFlags,

    #[command(flatten)]
    pub common: process::Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bos {
    /// As the tokenizer does it
    Auto,
    /// Exactly one
    On,
    /// None
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Read {
    /// The residual itself
    PreNorm,
    /// After the final norm
    PostNorm,
    /// Next-token scores
    Logits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    Linear,
    Arc,
    Slerp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// d(α) / d(1), d the distance from A's read-out
    L2,
    /// d_A / (d_A + d_B)
    Relative,
    /// KL(A ‖ X(α)) over KL(A ‖ X(1))
    Kl,
    /// How far the score difference of the two ends' top tokens has gone from A's to B's
    Logit,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  The paper's experiment: 1,000 unrelated pairs of 10 tokens, 50 steps:
    stable-regions --model DIR --random 1000 --length 10 book.txt > regions.jsonl

  Sharper with training? The same pairs through three checkpoints:
    stable-regions --model step-100 step-1000 step-9000 --random 200 book.txt --summary --format table

  Four shards on four machines, then one result:
    stable-regions --model DIR --pairs pairs.jsonl --shard 0/4 > 0.jsonl
    stable-regions --model DIR --pairs pairs.jsonl --merge 0.jsonl 1.jsonl 2.jsonl 3.jsonl

  Where is the border between benign and harmful prompts, and does a false refusal sit behind it?
    stable-regions --model DIR --across label prompts.csv --field prompt --bisect 1e-3 --verdicts verdicts.jsonl
";

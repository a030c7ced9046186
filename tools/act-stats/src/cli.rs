//! The arguments of act-stats. The doc comments are the help text and the man page.

use clap::{Parser, Subcommand, ValueEnum};
use process::{Common, FormatFlags, Layers, parse_probability};
use std::path::PathBuf;

/// Measure how large activations are.
///
/// Reads activations (.acts, as resid-dump writes them or acts-cat makes them from npy and safetensors) and writes, for every component
/// (a site, such as resid_post), layer and group of prompts: mean, deviation, root mean square, extremes and where they stand, the
/// largest magnitude of each token over its median, massive activations and their dimensions, quantiles, entropy and a histogram of
/// magnitudes, and what eight-bit integers would lose. One record says where the largest magnitude of all is.
///
/// FILE is a container, several are the shards of one run. Standard input holds container bytes or the tensor records of a resid-dump
/// that wrote a file; the first byte tells them apart. Container bytes from a pipe are kept in an unlinked file in TMPDIR.
///
/// Sums are exact and rounded once, so equal rows give equal bytes whatever the number of threads, blocks or shards. Memory grows
/// with the prompts and by a quarter of a MiB for each component and group (half where numbers are no bf16s), not with the rows.
/// Containers of bf16 are read once; others are read a second time for --int8, whose scales are known only after the first.
#[derive(Debug, Clone, Parser)]
#[command(name = "act-stats", version, after_long_help = NOTES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub measure: MeasureArgs,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Fit laws to a measure over training steps or sizes
    Fit(FitArgs),
    /// Put together what --part wrote of every shard of a run: the bytes are those of one call with all containers
    Merge(MergeArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct MeasureArgs {
    /// Containers of one run; - or nothing is stdin
    #[arg(value_name = "FILE")]
    pub inputs: Vec<PathBuf>,

    /// Which components, separated by commas (default: all)
    #[arg(long, value_name = "SITES", value_delimiter = ',')]
    pub components: Vec<String>,

    /// Layers: all, indices and ranges (0,3,5-8; -1 is the last), or a window of depth (0.3-0.5), where block l of L has depth (l+1)/L
    #[arg(long, value_name = "LAYERS", default_value = "all", allow_hyphen_values = true)]
    pub layers: Layers,

    /// Divide prompts by FIELD of their sample records (group, bench, id, …)
    #[arg(long, value_name = "FIELD")]
    pub group: Option<String>,

    /// How many of the largest magnitudes to write, signed and with their places
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub top: u32,

    /// Quantiles of the magnitudes: the least that this share of them does not exceed. Exact for bf16, to 0.4 % for other types
    #[arg(long, value_name = "P,…", default_value = "0.25,0.5,0.75,0.9,0.99,0.999", value_delimiter = ',', value_parser = parse_probability)]
    pub quantiles: Vec<f64>,

    /// Scales of eight-bit integers, by the magnitude that gets the last code: the largest (max), a quantile (0.999), or a number (at:1.5);
    /// none for none
    #[arg(long, value_name = "SCALE,…", default_value = "max,0.999", value_delimiter = ',', value_parser = parse_scale)]
    pub int8: Vec<Scale>,

    /// A massive activation has a magnitude above X …
    #[arg(long, value_name = "X", default_value_t = 100.0, value_parser = parse_positive)]
    pub massive_magnitude: f64,

    /// … and above X times the lower median magnitude of its token
    #[arg(long, value_name = "X", default_value_t = 1000.0, value_parser = parse_positive)]
    pub massive_ratio: f64,

    /// Also measure the smallest set of dimensions that carries this share of a token's Σ|x|, and how long dimensions stay in it
    #[arg(long, value_name = "SHARE", value_parser = parse_probability)]
    pub dim_flow: Option<f64>,

    /// Tokens on end from which a dimension of --dim-flow counts as shared
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub run: u32,

    /// Also measure the share of numbers that change by less than X from one row of a prompt to the next
    #[arg(long, value_name = "X", value_parser = parse_positive)]
    pub temporal: Option<f64>,

    /// Resample the largest magnitude of all: N prompts with replacement, from each group in its proportion (repeatable by commas)
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub bootstrap: Vec<u64>,

    /// Resamples of each size of --bootstrap
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    pub resamples: u64,

    /// Seed of every draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// FILE is one shard of a run: write what is known of it, for act-stats merge. Scales of --int8 that follow from the whole run
    /// (max, a quantile) are then for containers of bf16 alone
    #[arg(long, conflicts_with = "format")]
    pub part: bool,

    /// Read files with pread instead of mapping them (network disks)
    #[arg(long)]
    pub no_map: bool,

    #[command(flatten)]
    pub format: FormatFlags,
}

#[derive(Debug, Clone, clap::Args)]
pub struct FitArgs {
    /// Records, X=FILE for those of one step or size, or FILE where every record holds its own under --x; - or nothing is stdin
    #[arg(value_name = "[X=]FILE")]
    pub inputs: Vec<PathBuf>,

    /// The key of the step or size, where the file's argument does not name it
    #[arg(long, value_name = "KEY", default_value = "step")]
    pub x: String,

    /// The measure: a key, or a path of keys (int8.max.sqnr_db)
    #[arg(long, value_name = "PATH", default_value = "ratio_sample_mean")]
    pub y: String,

    /// Laws, compared by Akaike's criterion where there are several
    #[arg(
        long,
        value_enum,
        value_name = "LAW,…",
        default_value = "massive",
        value_delimiter = ','
    )]
    pub law: Vec<LawName>,

    /// Leave out series that do not determine a law instead of stopping; ends with exit code 6
    #[arg(long)]
    pub keep_going: bool,

    #[command(flatten)]
    pub format: FormatFlags,
}

#[derive(Debug, Clone, clap::Args)]
pub struct MergeArgs {
    /// What --part wrote, of every shard once, in any order
    #[arg(value_name = "PART", required = true)]
    pub inputs: Vec<PathBuf>,

    #[command(flatten)]
    pub format: FormatFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum LawName {
    /// A·e^(-λx)·ln x + K with x = γt + t0: massive activations in training
    Massive,
    /// K + B·(1 - e^(-βt))
    FirstOrder,
    /// The step response of a damped oscillator, from K to K + B
    SecondOrder,
    /// c·t^(-α) + K
    Power,
    /// e^(b - c·t^α) + K
    StretchedDecay,
    /// a + b·t
    Linear,
    /// a + b·ln t
    Logarithm,
}

impl process::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// The magnitude that gets the last code of eight bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    None,
    Max,
    Quantile(f64),
    At(f64),
}

pub fn parse_scale(text: &str) -> Result<Scale, String> {
    match (text, text.strip_prefix("at:")) {
        ("none", _) => Ok(Scale::None),
        ("max", _) => Ok(Scale::Max),
        (_, Some(limit)) => parse_positive(limit).map(Scale::At),
        (share, None) => parse_probability(share)
            .map(Scale::Quantile)
            .map_err(|_| format!("{text:?} is none of max, a share between 0 and 1, at:NUMBER and none")),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is not a number above 0")),
    }
}

const NOTES: &str = "\
WHAT THE NUMBERS MEAN:
  The ratio of a token is its largest magnitude over the lower of the two middle ones (as torch.median takes it; numpy averages the
  two). A token whose median is 0 has no ratio, and any magnitude above --massive-magnitude is massive there.

  ratio_max and ratio_mean are over tokens, ratio_sample_mean is the mean over prompts of the largest ratio among their tokens.

  The histogram has 512 bins over 1e-8 .. 1e8, equal on a logarithmic scale; bin i begins at 10^(i/32 - 8). Its entropy is in nats, over
  the bins and the two sides, and depends on the width of the bins.

  Both figures of --int8 belong together: under the largest magnitude the error relative to the root mean square looks small although
  nearly every ordinary number is rounded to 0 (rel_mae near 1), and under a quantile it is the other way round.

  The largest magnitude of all is taken over embed, resid_*, attn_out, mlp_out and final_norm; gates, inner inputs and logits stay out.

  For a container without sample records (made from npy) every row is a prompt of its own, at position 0.

  A fit's standard errors come from the linearised law and equal, independent errors of the points. aic is n ln(RSS/n) + 2 (p + 1) and
  compares laws of one series only. A series with no more distinct steps than parameters, one that does not vary, and one that leaves a
  direction of the parameters open are refused. The law of massive activations has its peak at (e^W(1/λ) - t0)/γ, which is observable
  if it lies behind step 0.

EXAMPLES:
  Where are the massive activations?
    act-stats prompts.acts --format table

  Straight from the model:
    resid-dump model/ prompts.jsonl --positions all --sites resid_post,mlp_out -o - | act-stats --group group > act.jsonl

  Two scales and their losses, layer by layer:
    act-stats prompts.acts | jq -c 'select(.type == \"act\") | [.component, .layer_index, .int8]'

  Each task of an array measures its own shard, and one job puts them together:
    act-stats --part shard-$SLURM_ARRAY_TASK_ID.acts > part-$SLURM_ARRAY_TASK_ID.jsonl
    act-stats merge part-*.jsonl > act.jsonl

  How sure is the largest magnitude?
    act-stats prompts.acts --group bench --bootstrap 1000,2000

  How the ratio of the largest activations grows and fades in training:
    for step in 0 512 1000 2000; do act-stats $step.acts > $step.jsonl; done
    act-stats fit --law massive,first_order,second_order 0=0.jsonl 512=512.jsonl 1000=1000.jsonl …
";

//! The arguments of flowlens-pca. The doc comments are the help text and the man page.

use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// Measure the geometry of the residual stream.
///
/// Reads activations (.acts, as resid-dump writes them or acts-cat makes them from npy and safetensors) or moments, and writes one
/// record per layer and one for all layers together: explained variance, concentration C_k, participation ratio, effective rank,
/// stable rank, alpha-ReQ, IsoScore, entropy, norms, dispersion, anisotropy and intrinsic dimension; then, for groups of prompts, how
/// far they lie apart and the trajectory of their centres on the principal components.
///
/// FILE is a container, several are the shards of one run. Standard input holds container bytes or the tensor records of a resid-dump
/// that wrote a file; the first byte tells them apart. Container bytes from a pipe are kept in an unlinked file in TMPDIR, because
/// most measures need the rows twice.
///
/// Rows are centred on one mean over all rows, as in the paper, and the covariance is divided by N. Logarithms are natural. A measure
/// that is not defined is left out. Equal arguments and input give equal bytes, whatever the number of threads or shards.
#[derive(Debug, Clone, Parser)]
#[command(name = "flowlens-pca", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Containers of one run; - or nothing is stdin
    #[arg(value_name = "FILE")]
    pub inputs: Vec<PathBuf>,

    /// Which activations, where a container holds several kinds
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,

    /// Layers: all, indices and ranges (0,3,5-8; -1 is the last), or a window of depth (0.3-0.5), where block l of L has depth (l+1)/L
    #[arg(long, value_name = "LAYERS", default_value = "all", allow_hyphen_values = true)]
    pub layers: process::Layers,

    /// Rows of the whole analysis: (prompt, layer) pairs in one space, or prompts in the space of all layers side by side
    /// (default: stacked; concat with --stability)
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub layout: Option<Layout>,

    /// Centre the whole analysis on one mean, or every layer on its own
    #[arg(long, value_enum, default_value_t = Center::Global, value_name = "MEAN")]
    pub center: Center,

    /// Divide prompts by FIELD of their sample records (group, bench, id, …)
    #[arg(long, value_name = "FIELD")]
    pub group: Option<String>,

    /// Leave out the first row of every prompt that has more than its last position
    #[arg(long)]
    pub drop_bos: bool,

    /// Leave out dimensions: a list (12,700), or auto for those of massive activation (root mean square 30 times the median's)
    #[arg(long, value_name = "auto|LIST")]
    pub drop_dims: Option<String>,

    /// Components to keep: id (the intrinsic dimension by TwoNN, rounded up), or the K leading ones alone, found by a block method
    /// without the rest of the spectrum
    #[arg(long, value_name = "id|K", default_value = "id")]
    pub components: String,

    /// Which measures: all, or those that moments allow (one pass over the rows; no intrinsic dimension, dispersion, silhouette and
    /// no intervals)
    #[arg(long, value_enum, value_name = "WHICH")]
    pub measures: Option<Measures>,

    /// Multiply in f64 throughout: eigenvalues to 1e-12 instead of 1e-7, at most twice the time
    #[arg(long)]
    pub exact: bool,

    /// Also write the trajectories of single prompts: ids, or all
    #[arg(long, value_name = "ID,…|all")]
    pub prompts: Option<String>,

    /// Save means and components
    #[arg(long, value_name = "OUT")]
    pub basis: Option<PathBuf>,

    /// Compare with another dump, moments or saved basis: alignment of components, principal angles, CKA, change of C_k
    #[arg(long, value_name = "REF")]
    pub against: Option<PathBuf>,

    /// Save the unit difference of group means per layer (mean of --group-a less mean of --group-b)
    #[arg(long, value_name = "OUT", requires_all = ["group_a", "group_b"])]
    pub direction: Option<PathBuf>,

    /// First group of a contrast
    #[arg(long, value_name = "GROUP", requires = "group")]
    pub group_a: Option<String>,

    /// Second group of a contrast
    #[arg(long, value_name = "GROUP", requires = "group")]
    pub group_b: Option<String>,

    /// Compare two forms of the same prompts: correlation of their projections on shared components, per layer
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["inputs", "against", "basis", "direction", "group", "prompts"])]
    pub stability: Option<Vec<PathBuf>>,

    /// Resamples of the bootstrap over prompts (0: no intervals; default 1000)
    #[arg(long, value_name = "N")]
    pub resamples: Option<u64>,

    /// Seed of every draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Rows drawn where all pairs of rows are needed (intrinsic dimension, silhouette)
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(3..))]
    pub neighbour_rows: u32,

    /// What to do about rows with NaN or infinity
    #[arg(long, value_enum, default_value_t = OnNonfinite::Refuse, value_name = "WHAT")]
    pub on_nonfinite: OnNonfinite,

    /// Read files with pread instead of mapping them (network disks)
    #[arg(long)]
    pub no_map: bool,

    /// Memory for what grows with the square of the prompts or is held for several layers at once
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = process::parse_bytes)]
    pub max_memory: u64,

    #[command(flatten)]
    pub format: process::FormatFlags,

    /// Replace outputs that exist
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub common: process::Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Stacked,
    Concat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Center {
    Global,
    Layer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measures {
    All,
    Moments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    Refuse,
    Drop,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  The geometry of one dump, as a table:
    flowlens-pca prompts.acts --format table

  Harmful against harmless prompts, straight from the model, then a picture:
    resid-dump model/ prompts.jsonl -o prompts.acts | flowlens-pca --group group > geometry.jsonl
    resid-plot geometry.jsonl -o geometry.html

  A tuned model against its base, with intervals over prompts:
    flowlens-pca tuned.acts --against base.acts

  The refusal direction of every layer:
    flowlens-pca prompts.acts --group group --direction refusal.acts --group-a harmful --group-b harmless

  The paper's stability experiment, with and without the final question mark:
    flowlens-pca --stability with.acts without.acts

  Thirty million tokens, from moments:
    flowlens-pca shard-0.acts shard-1.acts --layers 0.3-0.5
";

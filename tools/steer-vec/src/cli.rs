//! The arguments of steer-vec. Doc comments here are the help and the man page.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use model::Site;
use process::{AdapterFlags, Common, Layers, OutputFlags};
use records::dataset::InputFormat;

/// Find the vectors that steer a language model, and write them as a plan.
///
/// A plan (see acts(5)) is what --steer of lm-gen, resid-dump and stable-regions takes. Vectors come from dumps of two groups of prompts
/// (mean, plane, au, cluster, function), or from a model and prompts (select, surgical); records on stdout say what each choice was based on.
/// Two commands are for faults: flip plans them, and clip what may hold them back.
#[derive(Parser, Debug)]
#[command(version, name = "steer-vec", after_long_help = NOTES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub common: Common,
}

impl process::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The difference of the groups' means, of every layer, at one token position or several.
    Mean(MeanArgs),
    /// The refusal direction of Arditi et al.: every layer and position is a candidate, and trials on the model choose.
    Select(SelectArgs),
    /// The false-refusal direction of Wang et al.: that of harmless prompts that look harmful, without its part along the true one.
    Surgical(SurgicalArgs),
    /// A plane to rotate in (Selective Steering): the direction that all layers share, and how the layers' own vary across it.
    Plane(PlaneArgs),
    /// Single dimensions whose differences in pairs have one sign (AUSteer).
    Au(AuArgs),
    /// Vectors of clusters of the positive rows, each behind a gate at its cluster (GUARD-IT).
    Cluster(ClusterArgs),
    /// A function vector: the mean effect of demonstrations, over pairs of prompts with and without.
    Function(FunctionArgs),
    /// Limits on single numbers, found from what a dump holds: ± the largest magnitude of each layer, or of each dimension.
    Clip(ClipArgs),
    /// Faults of memory: numbers of which one bit is flipped, drawn from a seed.
    Flip(FlipArgs),
    /// Take the directions of a plan out of a model's weights: a directory that other programs load.
    Bake(BakeArgs),
}

/// Rows of two groups.
#[derive(clap::Args, Debug)]
pub struct DumpFlags {
    /// One dump of resid-dump --group, or two: first the samples that show something, then those that do not.
    #[arg(value_name = "DUMP", num_args = 1..=2, required = true)]
    pub dumps: Vec<PathBuf>,

    /// The group that shows it.
    #[arg(long, value_name = "GROUP")]
    pub positive: Option<String>,

    /// The group that does not.
    #[arg(long, value_name = "GROUP")]
    pub negative: Option<String>,

    #[command(flatten)]
    pub of: Of,

    #[command(flatten)]
    pub output: OutputFlags,
}

/// Which of the places that dumps hold.
#[derive(clap::Args, Debug)]
pub struct Of {
    /// Of one site only (default: all that the dumps hold).
    #[arg(long, value_name = "SITE")]
    pub site: Option<Site>,

    /// Of these layers only, such as 4-12, 3,5,7, -1 or 0.3-0.5.
    #[arg(long, value_name = "LAYERS", allow_hyphen_values = true)]
    pub layers: Option<Layers>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Use {
    /// Add the vector, as long as it is, where it was found.
    Add,
    /// Take its direction out of everything that a block reads or adds.
    Ablate,
}

#[derive(clap::Args, Debug)]
pub struct MeanArgs {
    #[command(flatten)]
    pub rows: DumpFlags,

    /// Token positions, from the end of what was dumped; the plan holds the vectors of the first.
    #[arg(long, value_name = "POSITIONS", default_value = "-1", value_delimiter = ',', allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(..0))]
    pub positions: Vec<i64>,
}

/// A model, and how prompts are put to it.
#[derive(clap::Args, Debug)]
pub struct ModelFlags {
    /// The model: a directory (config.json, safetensors, tokenizer), a GGUF file, or a name in the local cache of the Hugging Face hub
    /// (org/name[@revision]).
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Refuse the model unless its weights have this digest.
    #[arg(long, value_name = "DIGEST")]
    pub model_digest: Option<String>,

    /// Follow links that leave the model directory.
    #[arg(long)]
    pub follow_links: bool,

    /// The device: cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = model::device::known)]
    pub device: String,

    /// The type to compute in: f32, bf16, f16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: String,
}

/// Trials on a model.
#[derive(clap::Args, Debug)]
pub struct SearchFlags {
    #[command(flatten)]
    pub model: ModelFlags,

    /// Prompts that are to be refused: JSON lines, JSON, CSV or Parquet with `prompt` or `messages`.
    #[arg(long, value_name = "FILE")]
    pub harmful: PathBuf,

    /// Prompts that are to be answered.
    #[arg(long, value_name = "FILE")]
    pub harmless: PathBuf,

    /// The format of the prompts (auto, jsonl, json, csv, tsv, parquet, text).
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub input_format: InputFormat,

    /// The key that holds the prompt's text.
    #[arg(long, value_name = "KEY", default_value = "prompt")]
    pub field: String,

    /// A system message for every prompt that has none.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,

    /// Prompts as they are, without a chat template.
    #[arg(long, conflicts_with_all = ["template", "system"])]
    pub raw: bool,

    /// The chat template of FILE, or of the model directory DIR.
    #[arg(long, value_name = "FILE|DIR")]
    pub template: Option<PathBuf>,

    /// Prompts of each kind from which vectors are made.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub train: u32,

    /// Other prompts of each kind on which they are tried.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub validation: u32,

    /// The seed by which prompts are drawn.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Keep prompts that the model treats otherwise than their kind says: harmful ones with a refusal score below 0, others above.
    #[arg(long)]
    pub keep_all: bool,

    /// Candidates are the last N tokens of the prompt (default: all that the chat template puts behind the question).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub tokens: Option<u32>,

    /// The ids of tokens that open a refusal (default: those that open a tenth of the answers to harmful prompts, at twice the odds of harmless ones).
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub refusal_tokens: Vec<u32>,

    /// Discard the last layers: those from this share of the depth on.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    pub depth_max: f64,

    /// What the plan does with the vector.
    #[arg(long = "use", value_enum, value_name = "USE", default_value = "ablate")]
    pub purpose: Use,

    /// Tokens that are run together.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug)]
pub struct SelectArgs {
    #[command(flatten)]
    pub search: SearchFlags,

    /// Discard what changes the answers to harmless prompts by more than this, in nats of KL divergence.
    #[arg(long, value_name = "NATS", default_value_t = 0.1)]
    pub kl_max: f64,

    /// Discard what, added to harmless prompts, gives a mean refusal score below this.
    #[arg(long, value_name = "SCORE", default_value_t = 0.0, allow_hyphen_values = true)]
    pub induced_min: f64,
}

#[derive(clap::Args, Debug)]
pub struct SurgicalArgs {
    #[command(flatten)]
    pub search: SearchFlags,

    /// Harmless prompts that look harmful.
    #[arg(long, value_name = "FILE")]
    pub pseudo_harmful: PathBuf,

    /// Discard what changes the answers to harmless prompts by more than this, in nats of KL divergence.
    #[arg(long, value_name = "NATS", default_value_t = 0.2)]
    pub kl_max: f64,

    /// How much of the part along the true refusal direction is taken out.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub lambda: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Turn {
    Absolute,
    Positive,
    Relative,
}

#[derive(clap::Args, Debug)]
pub struct PlaneArgs {
    #[command(flatten)]
    pub rows: DumpFlags,

    /// The angle of the rotation, in degrees.
    #[arg(long, value_name = "DEGREES", default_value_t = 180.0, allow_hyphen_values = true)]
    pub angle: f64,

    /// How the angle is meant: where the projection comes to lie (for all rows, or those with a positive part along the first vector), or by
    /// how much it is turned.
    #[arg(long, value_enum, value_name = "MODE", default_value = "relative")]
    pub mode: Turn,

    /// The token position, from the end of what was dumped.
    #[arg(long, value_name = "POSITION", default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(..0))]
    pub position: i64,
}

#[derive(clap::Args, Debug)]
pub struct AuArgs {
    #[command(flatten)]
    pub rows: DumpFlags,

    /// So many dimensions, of all layers together.
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: u32,

    /// The strength: dimension i is scaled by 1 + A times its share, with its sign.
    #[arg(long, value_name = "A", default_value_t = 15.0, allow_hyphen_values = true)]
    pub alpha: f64,

    /// The token position, from the end of what was dumped.
    #[arg(long, value_name = "POSITION", default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(..0))]
    pub position: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Away {
    /// The cluster's mean without its part along the negative mean.
    Orthogonal,
    /// The cluster's mean minus the negative mean.
    Difference,
}

#[derive(clap::Args, Debug)]
pub struct ClusterArgs {
    #[command(flatten)]
    pub rows: DumpFlags,

    /// Try 2 to K clusters, and take the number with the best silhouette.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub clusters_max: u32,

    /// What is led away from.
    #[arg(long, value_enum, value_name = "KIND", default_value = "orthogonal")]
    pub vector: Away,

    /// How far.
    #[arg(long, value_name = "A", default_value_t = 0.3, allow_hyphen_values = true)]
    pub alpha: f64,

    /// Only rows whose cosine with the cluster's mean is at least this.
    #[arg(long, value_name = "COSINE", default_value_t = 0.55, allow_hyphen_values = true)]
    pub gate: f64,

    /// The seed of the clustering.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// The token position, from the end of what was dumped.
    #[arg(long, value_name = "POSITION", default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(..0))]
    pub position: i64,
}

#[derive(clap::Args, Debug)]
pub struct FunctionArgs {
    #[command(flatten)]
    pub rows: DumpFlags,

    /// The token position, from the end of what was dumped.
    #[arg(long, value_name = "POSITION", default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(..0))]
    pub position: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Per {
    Layer,
    Neuron,
}

#[derive(clap::Args, Debug)]
pub struct ClipArgs {
    /// Dumps of resid-dump --positions all, of what the model should be kept within.
    #[arg(value_name = "DUMP", required = true)]
    pub dumps: Vec<PathBuf>,

    /// One limit for all numbers of a site and layer, or one for each dimension.
    #[arg(long, value_enum, value_name = "PER", default_value = "neuron")]
    pub per: Per,

    /// A limit is X times the largest magnitude seen.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub margin: f64,

    #[command(flatten)]
    pub of: Of,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug)]
pub struct FlipArgs {
    #[command(flatten)]
    pub model: ModelFlags,

    /// Where.
    #[arg(long, value_name = "SITE", default_value = "mlp_in")]
    pub site: Site,

    /// In these layers, such as 4-12, 3,5,7, -1 or 0.3-0.5.
    #[arg(long, value_name = "LAYERS", default_value = "all", allow_hyphen_values = true)]
    pub layers: Layers,

    /// The share of numbers that have a bit flipped.
    #[arg(long, value_name = "SHARE")]
    pub rate: f64,

    /// Which numbers and bits.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// A number is an f32, of which the leading N bits may flip: 16 (those of a bf16) or 32.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub bits: u32,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug)]
pub struct BakeArgs {
    /// The model directory: config.json, tokenizer, safetensors.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    /// Follow links that leave the model directory.
    #[arg(long)]
    pub follow_links: bool,

    /// A plan that takes directions out of the whole residual stream.
    #[arg(long, value_name = "PLAN")]
    pub steer: PathBuf,

    /// Take a plan that was made for another model of the same family, width and layer count.
    #[arg(long)]
    pub allow_other_model: bool,

    /// The directory of the new model; it must not exist.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

const NOTES: &str = "\
SELECT
  A candidate is the difference of the mean residuals before a block, harmful minus harmless, at one of the prompt's last tokens. Its
  direction is taken out of every block's input and of what attention and MLP add, at all tokens. Recorded are the KL divergence of the
  next token on harmless prompts, sum p (ln (p + 1e-6) - ln (q + 1e-6)); the mean refusal score ln (P + 1e-8) - ln (1 - P + 1e-8) of harmful
  ones, P being the probability of the refusal tokens; and that of harmless ones with the vector added, as long as it is, before its
  block. Discarded is what is not finite (nan), lies in the last layers (layer), changes harmless answers (kl), or does not make the model
  refuse (induced); of the others the lowest refusal score wins. Layers that are discarded for their depth are not run.
  Surgical vectors are chosen alike, by the score of pseudo-harmful prompts, without the last rule.
  Where everything is discarded, no plan is written, a warning counts the rules that decided, and the exit code is 1.

PLANE
  Candidates are the unit differences of the means of every site and layer in the dumps. The first vector is the candidate with the
  highest mean cosine to all others; the second is the first principal component of the candidates, made orthogonal to it. Rotated are the
  layers in which the two groups' unit rows lie, on average, on opposite sides of the first vector at every site of the dumps.

CLIP, FLIP
  Numbers beyond a limit are set to it, and what is no number to zero. Which bits flip follows from the seed, the site, the layer and the
  row itself: the same prompt meets the same faults, whatever runs beside it. A flipped bit of the exponent may make a number infinite.
  Steps of several plans are done in the order in which the plans are given: --steer flips.acts --steer limits.acts.

BAKE
  The direction leaves the embedding, learned positions, and the output matrices and biases of attention and MLP; a tied output head is
  untied and stays as it was. A family with norms behind its sublayers is refused: what those add cannot be changed by a matrix before them.

EXAMPLES
  resid-dump --model DIR --chat --group label --sites resid_pre prompts.jsonl -o prompts.acts
  steer-vec mean prompts.acts --positive harmful --negative harmless -o mean.acts
  steer-vec select --model DIR --harmful harmful.jsonl --harmless harmless.jsonl -o refusal.acts
  lm-gen --model DIR --steer refusal.acts prompts.jsonl -o ablated.jsonl
  steer-vec bake --model DIR --steer refusal.acts -o DIR-ablated

  resid-dump --model DIR --positions all --sites mlp_in,mlp_out prompts.jsonl -o mlp.acts
  steer-vec clip mlp.acts --site mlp_in --per neuron -o limits.acts
  steer-vec flip --model DIR --site mlp_in --rate 1e-4 -o flips.acts
  lm-gen --model DIR --score --steer flips.acts --steer limits.acts answers.jsonl -o held.jsonl";

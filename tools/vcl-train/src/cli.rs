//! What can be asked on the command line. The doc comments are the help text and the man page.

use std::path::PathBuf;

use clap::Parser;
use process::AdapterFlags;
use process::plan::MixedCompute;

use crate::auxiliary::Spec;
use crate::checkpoint::Keep;
use crate::reader::{NoCompletion, OverLength};
use crate::recipe::Recipe;
use crate::schedule::ScheduleName;
use crate::transport::TransportName;

/// Fine-tune a language model, with or without the Variance Concentration Loss
///
/// Trains all weights or low-rank adapters on the completions of conversations. Auxiliary losses may be added: one keeps the
/// variance of middle-layer residuals from gathering in few directions, or makes it gather. Every step is one JSON line on stdout;
/// -o DIR becomes a model directory that transformers loads. Killed at any moment and run again with --resume, the result has the
/// same bytes.
#[derive(Parser, Debug)]
#[command(name = "vcl-train", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// The model to start from: a directory (config.json, safetensors, tokenizer), a GGUF file, or a name in the local cache of the
    /// Hugging Face hub (org/name[@revision]).
    #[arg(
        long,
        value_name = "MODEL",
        required_unless_present = "init",
        conflicts_with = "init"
    )]
    pub model: Option<PathBuf>,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Start from random weights for this config.json.
    #[arg(long, value_name = "CONFIG", requires = "tokenizer")]
    pub init: Option<PathBuf>,

    /// Take the tokenizer (and chat template) from this model directory.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,

    /// Follow links that lead out of the model directory.
    #[arg(long)]
    pub follow_links: bool,

    /// Training data, with a name for --mix; may be given several times. JSONL, JSON, CSV, text or Parquet, of messages,
    /// instruction/output, prompt/completion or text.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub data: Vec<String>,

    /// Read data in this format instead of telling it by name and content.
    #[arg(long, value_name = "FORMAT")]
    pub input_format: Option<String>,

    /// Train on the bare text of this field, all of it.
    #[arg(long, value_name = "NAME")]
    pub field: Option<String>,

    /// Shares of the named data, such as safety=0.4,general=0.6; drawn without replacement.
    #[arg(long, value_name = "NAME=SHARE,…", requires = "total")]
    pub mix: Option<String>,

    /// Rows in the mixture.
    #[arg(long, value_name = "N", requires = "mix")]
    pub total: Option<usize>,

    /// Held-out data; its loss is reported every --eval-every steps and at the end.
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,

    /// Steps between evaluations.
    #[arg(long, value_name = "STEPS", requires = "eval", value_parser = clap::value_parser!(u64).range(1..))]
    pub eval_every: Option<u64>,

    /// Settings of a published recipe, for everything that no other flag says.
    #[arg(long, value_enum, value_name = "NAME")]
    pub recipe: Option<Recipe>,

    /// Train low-rank adapters on frozen weights, and write a PEFT adapter directory.
    #[arg(long, overrides_with = "full")]
    pub lora: bool,

    /// Train all weights, also where the recipe says --lora.
    #[arg(long)]
    pub full: bool,

    /// Rank of the adapters [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub lora_rank: Option<u32>,

    /// Adapters are scaled by alpha/rank [default: twice the rank].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub lora_alpha: Option<f64>,

    /// Modules that get an adapter, by the last part of their name [default: every matrix of every block].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub lora_targets: Option<Vec<String>>,

    /// With --lora, write the whole model with the adapters added to its weights.
    #[arg(long)]
    pub merge: bool,

    /// Auxiliary loss, NAME or NAME:KEY=VALUE,…; may be given several times. vcl, the Variance Concentration Loss, has k (4),
    /// gamma (0, which only observes), window (0.3-0.5; layers as resid-dump takes them), sign (spread|concentrate),
    /// rows (completion|last|all), pool (window|layer), hinge (TAU), warmup (STEPS). decorrelate, the mean squared correlation between
    /// dimensions, has gamma (0), window (0.3-0.5), rows.
    #[arg(long, value_name = "SPEC", default_value = "none")]
    pub aux: Vec<Spec>,

    /// Sequences per step [default: 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: Option<u32>,

    /// Sequences per forward and backward pass; smaller than --batch-size accumulates gradients [default: the batch].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub micro_batch: Option<u32>,

    /// Neighbouring parts of a batch whose gradients are added as a balanced tree, a power of two: as many ranks may share the work
    /// without changing a bit of the result. 1 adds them one after the other.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = power_of_two)]
    pub slots: u32,

    /// Passes over the data [default: 1].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub epochs: Option<f64>,

    /// Stop after this many steps, whatever --epochs says.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,

    /// Highest learning rate [default: 2e-5; 2e-4 with --lora].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub lr: Option<f64>,

    /// How the rate falls after the warm-up [default: linear].
    #[arg(long, value_enum, value_name = "NAME")]
    pub schedule: Option<ScheduleName>,

    /// Share of all steps over which the rate rises from zero [default: 0.03].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub warmup: Option<f64>,

    /// Decoupled weight decay of matrices [default: 0].
    #[arg(long, value_name = "X", value_parser = not_negative)]
    pub weight_decay: Option<f64>,

    /// Decay of the first moment [default: 0.9].
    #[arg(long, value_name = "X", value_parser = share)]
    pub beta1: Option<f64>,

    /// Decay of the second moment [default: 0.999].
    #[arg(long, value_name = "X", value_parser = share)]
    pub beta2: Option<f64>,

    /// Added to the root of the second moment [default: 1e-8].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub eps: Option<f64>,

    /// Scale gradients down to this norm; 0 leaves them [default: 1].
    #[arg(long, value_name = "NORM", value_parser = not_negative)]
    pub clip: Option<f64>,

    /// Tokens per sequence [default: 2048, or what the model takes].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,

    /// What happens to longer sequences; each is counted.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "truncate")]
    pub over_length: OverLength,

    /// What happens to rows without a completion token; each is counted.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "refuse")]
    pub no_completion: NoCompletion,

    /// Use this chat template: a file, or the model directory that has it.
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "raw")]
    pub template: Option<PathBuf>,

    /// Learn also the white space that a chat template writes after the token that ends a turn; without this flag that token is the
    /// last one of a completion, for the loss and for the rows of --aux.
    #[arg(long, conflicts_with = "raw")]
    pub learn_line_end: bool,

    /// Use no chat template: turns are joined by --join, and each answer ends with the end-of-sequence token.
    #[arg(long)]
    pub raw: bool,

    /// Stands between turns without a chat template; \n is a line feed.
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    pub join: String,

    /// Seed of everything random: order, mixture, initial weights.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// cpu, cuda or cuda:N.
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = model::device::known)]
    pub device: String,

    /// Type to compute in: f32, or bf16 with f32 master weights [default: f32 on the CPU, bf16 elsewhere].
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,

    #[command(flatten)]
    pub precision: process::PrecisionFlag,

    /// Type of the weights written at the end [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub store_dtype: Option<String>,

    /// Keep only the input of each block and compute it again on the way back: less memory, a third more work.
    #[arg(long)]
    pub recompute: bool,

    /// Processes that train together, each started with the same arguments: a power of two, at most --slots. Which one this is stands in
    /// RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them. Rank 0 alone writes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = power_of_two)]
    pub ranks: u32,

    /// How ranks talk. tcp proves by FLOWLENS_SECRET who belongs to the run, and encrypts nothing; without that variable it meets at a
    /// loopback address only. mpi is what mpirun or srun --mpi=pmix have started, without those variables, in a build with the feature mpi.
    /// nccl meets as tcp does and then sends long messages from card to card; it needs --device cuda:N and NCCL's library. It has not run
    /// on cards yet.
    #[arg(long, value_enum, value_name = "NAME", default_value = "tcp")]
    pub transport: TransportName,

    /// How long a rank waits for another, at the start and at every exchange.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub rank_timeout: u64,

    /// Steps between checkpoints [default: a tenth of the run].
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: Option<u64>,

    /// Checkpoints kept, a number or `all`.
    #[arg(long, value_name = "N|all", default_value = "2", value_parser = keep)]
    pub keep_checkpoints: Keep,

    /// Continue a run that was stopped.
    #[arg(long)]
    pub resume: bool,

    #[command(flatten)]
    pub mixed: MixedCompute,

    /// Time a few steps and estimate the run; writes nothing.
    #[arg(long)]
    pub probe: bool,

    /// Directory to make; it appears under its name only when it is complete.
    #[arg(short, long, value_name = "DIR", required_unless_present_any = ["plan", "probe"])]
    pub output: Option<PathBuf>,

    /// Replace an output directory that exists, or start over a partial one.
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,

    #[command(flatten)]
    pub common: process::Common,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

fn keep(text: &str) -> Result<Keep, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Keep::All),
        (_, Ok(count)) if count > 0 => Ok(Keep::Newest(count)),
        _ => Err("expected a number from 1, or all".into()),
    }
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if (1..=1024).contains(&count) && u32::is_power_of_two(count) => Ok(count),
        _ => Err("expected a power of two from 1 to 1024".into()),
    }
}

fn number(text: &str, fits: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if fits(value) => Ok(value),
        _ => Err(format!("expected {what}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value.is_finite(), "a number above 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0 && value.is_finite(), "a number from 0")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "a number from 0 to below 1")
}

const EXAMPLES: &str = "\
EXAMPLES
  The paper's experiment, two mixed sources and the loss at its best setting:
    vcl-train --model Llama-3.2-1B --recipe tulu3-1b --data safety=safety.jsonl --data general=general.jsonl \\
        --mix safety=0.4,general=0.6 --total 100000 --aux vcl:k=4,gamma=50,window=0.3-0.5 -o spread > spread.jsonl

  The same without the loss, observing C_k:
    vcl-train … --aux vcl:gamma=0,window=0.3-0.5 -o baseline > baseline.jsonl

  What a run would do, and how long it would take:
    vcl-train … --plan
    vcl-train … --probe

  Two processes on this machine, with the bytes that one gives with the same --slots:
    export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500
    RANK=1 vcl-train … --slots 2 --ranks 2 -o out & RANK=0 vcl-train … --slots 2 --ranks 2 -o out

  Adapters, added to the weights at the end:
    vcl-train --model DIR --data rows.jsonl --lora --lora-rank 32 --merge -o merged";

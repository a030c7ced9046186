//! The arguments of dro-train. Doc comments here are the help and the man page.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use process::{AdapterFlags, Common, MixedCompute, OutputFlags, PrecisionFlag};
use records::dataset::InputFormat;

/// The system message that learning starts from, unless another is given.
pub const SHORT: &str =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.";

/// Learn a system message that refuses what is harmful and nothing else.
///
/// Directed representation optimisation: a soft prompt (rows in the place of a system message's embeddings) is trained, the model is not.
/// `prompts` asks harmful and harmless questions under four system messages; lm-gen samples answers to them and refusal-eval judges these;
/// `learn` finds the directions of refusal and of harmfulness in the model's states, and moves questions along them. --soft-prompt of lm-gen,
/// resid-dump and stable-regions takes the result.
#[derive(Parser, Debug)]
#[command(version, name = "dro-train", after_long_help = NOTES)]
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
    /// Questions of both kinds, under each of four system messages, for lm-gen to answer.
    Prompts(PromptsArgs),
    /// The soft prompt, from answers and verdicts on them.
    Learn(Box<LearnArgs>),
}

#[derive(clap::Args, Debug)]
pub struct PromptsArgs {
    /// Questions that are to be refused: JSON lines, JSON, CSV or Parquet.
    #[arg(long, value_name = "FILE")]
    pub harmful: PathBuf,

    /// Questions that are to be answered.
    #[arg(long, value_name = "FILE")]
    pub harmless: PathBuf,

    /// The format of the questions (auto, jsonl, json, csv, tsv, parquet, text).
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub input_format: InputFormat,

    /// The key that holds the question's text.
    #[arg(long, value_name = "KEY", default_value = "prompt")]
    pub field: String,

    /// Questions drawn of each kind.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub per_kind: u32,

    /// The seed by which they are drawn.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug)]
pub struct LearnArgs {
    /// What lm-gen answered to `prompts`: every attempt of every question.
    #[arg(value_name = "ANSWERS")]
    pub answers: PathBuf,

    /// What refusal-eval judge says of the answers.
    #[arg(long, value_name = "FILE")]
    pub verdicts: PathBuf,

    /// The judge whose verdicts count, where the file has several.
    #[arg(long, value_name = "NAME")]
    pub judge: Option<String>,

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
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,

    /// The type to compute in: f32, bf16, f16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: String,

    #[command(flatten)]
    pub precision: PrecisionFlag,

    /// The chat template of FILE, or of the model directory DIR.
    #[arg(long, value_name = "FILE|DIR")]
    pub template: Option<PathBuf>,

    /// The system message that learning starts from.
    #[arg(long, value_name = "TEXT", default_value = SHORT)]
    pub system: String,

    /// Of the answers to a question, the N longest count.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub longest: u32,

    /// Steps of the two heads' optimiser are so long.
    #[arg(long, value_name = "RATE", default_value_t = 1e-4, value_parser = positive)]
    pub head_lr: f64,

    /// The learning rate of the soft prompt.
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = positive)]
    pub lr: f64,

    /// Its weight decay.
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = weight)]
    pub weight_decay: f64,

    /// The weight of the loss along the direction of refusal.
    #[arg(long, value_name = "W", default_value_t = 1.0, value_parser = weight)]
    pub refusal_weight: f64,

    /// The weight of the loss along the direction of harmfulness.
    #[arg(long, value_name = "W", default_value_t = 0.01, value_parser = weight)]
    pub harmfulness_weight: f64,

    /// The weight of the distance by which states move in all other directions.
    #[arg(long, value_name = "W", default_value_t = 0.001, value_parser = weight)]
    pub distance_weight: f64,

    /// Times that every question is seen.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,

    /// Questions in a step.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,

    /// The seed of folds and order.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Tokens that are run together; a longer prompt runs alone.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,

    /// Continue a run that was stopped, behind its last step; a finished one is left as it is.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,

    #[command(flatten)]
    pub mixed: MixedCompute,

    #[command(flatten)]
    pub output: OutputFlags,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("a number above 0 is expected".to_string()),
    }
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x >= 0.0 && x.is_finite() => Ok(x),
        _ => Err("a number from 0 on is expected".to_string()),
    }
}

const NOTES: &str = "\
METHOD
  States are those after the final norm, at the last token of the templated prompt. Four principal components of all of them, with their
  mean, carry two linear heads: refusal, learned from the share of answers that comply, and harmfulness, from the kind of question. Each is
  trained on ten folds and averaged. The soft prompt starts as the embeddings of --system, in the system slot of the chat template, and
  learns along both heads: harmful questions towards refusal, harmless ones away from it, each against the state with the written message.

  An answer to a harmless question complies if its verdict is compliance; to a harmful one if moreover it has more than two lines
  and, where the judge says so much, does harm. Nonsense and what could not be judged count for nothing.

FILES
  The result is a safetensors file with the tensor soft_prompt (rows, width) in f32; its metadata name the text in whose place it stands, the
  model and the tokenizer. While learning, .FILE.state beside it holds the last step, for --resume.

EXAMPLES
  dro-train prompts --harmful harmful.jsonl --harmless harmless.jsonl -o asked.jsonl
  lm-gen --model DIR --temperature 1 --top-p 0.9 --top-k 50 --attempts 25 asked.jsonl -o answers.jsonl
  refusal-eval judge --judge flowlens answers.jsonl -o verdicts.jsonl
  dro-train learn --model DIR --verdicts verdicts.jsonl answers.jsonl -o safe.safetensors
  lm-gen --model DIR --soft-prompt safe.safetensors prompts.jsonl -o safer.jsonl";

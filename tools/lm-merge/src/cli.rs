//! The arguments of lm-merge. The doc comments are the help text and the man page.

use std::path::PathBuf;

use clap::Parser;
use process::{AdapterFlags, Common};

/// Make a model directory of a model and its adapters
///
/// Each adapter's product of factors is added to the weights it was trained on, in f32, and the result is written as a directory that
/// transformers loads: config.json, the tokenizer's files, model.safetensors. Without an adapter the model is written as it is: so a
/// GGUF file becomes a directory. The weights are those that every tool runs which is given the same --model and --adapter, and those
/// that `vcl-train --lora --merge` writes. One record goes to stdout.
#[derive(Debug, Clone, Parser)]
#[command(name = "lm-merge", version, after_long_help = EXAMPLES)]
pub struct Args {
    /// The base: a directory (config.json, safetensors, tokenizer), a GGUF file, or a name in the local cache of the Hugging Face hub
    /// (org/name[@revision]).
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Average every weight with the same weight of another model of the same shape, in f32.
    #[arg(long, value_name = "MODEL")]
    pub average: Option<PathBuf>,

    /// How much of the other model the average holds, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "average")]
    pub average_share: f64,

    /// Flip one bit of so large a share of the weights as they are written, from 0 to 1; which weights and bits follows from --flip-seed.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub flip_rate: f64,

    /// The seed of --flip-rate.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub flip_seed: u64,

    /// The directory to make. It appears under its name only when it is complete.
    #[arg(short, long, value_name = "DIR", required_unless_present = "plan")]
    pub output: Option<PathBuf>,

    /// Replace a directory that exists.
    #[arg(long)]
    pub force: bool,

    /// The type to write weights in: f32, bf16, f16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub store_dtype: String,

    /// Refuse the model unless it and its adapters have this digest (blake3:…, as `model_digest` of any output says it).
    #[arg(long, value_name = "DIGEST")]
    pub model_digest: Option<String>,

    /// Follow links that leave the model directory.
    #[arg(long)]
    pub follow_links: bool,

    #[command(flatten)]
    pub common: Common,
}

impl process::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
EXAMPLES:
  An adapter that was trained with PEFT, for programs that know no adapters:
    lm-merge --model base --adapter tuned -o merged

  Half of what fine-tuning changed, undone:
    lm-merge --model tuned --average base -o half

  What does a fault of memory in one of a million weights cost? Compare the scores of model and damaged:
    lm-merge --model model --store-dtype bf16 --flip-rate 1e-6 -o damaged

  A file of llama.cpp as a directory:
    lm-merge --model model.gguf --store-dtype bf16 -o model
";

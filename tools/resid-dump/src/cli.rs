//! The arguments of `resid-dump`; the doc comments are the help and the man page.

use std::path::PathBuf;

use acts::Codec;
use clap::Parser;
use model::Site;
use process::{AdapterFlags, Layers};
use records::dataset::InputFormat;

use crate::selection::Positions;

/// Run a language model and write its residual-stream activations
///
/// Reads prompts (JSON lines, CSV, Parquet, text), runs the model on each, and writes the activations of the chosen sites,
/// layers and token positions into one `.acts` container, with token ids, positions and sample records beside them. With
/// -o FILE, sample records go to stdout, then one record per tensor; with `-o -` the container itself.
///
/// Sequences are packed without padding, each attending to itself alone, so no padding can leak into a result.
#[derive(Parser, Debug)]
#[command(version, after_long_help = EXAMPLES)]
pub struct Args {
    /// Prompts: a file, or `-` for stdin.
    #[arg(value_name = "PROMPTS", default_value = "-")]
    pub prompts: PathBuf,

    /// The model: a directory (config.json, safetensors, tokenizer), a GGUF file, or a name in the local cache of the Hugging Face hub
    /// (org/name[@revision]).
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Refuse a model whose digest (as --inspect prints it) is another.
    #[arg(long, value_name = "DIGEST", help_heading = "Model")]
    pub model_digest: Option<String>,

    /// Follow links that leave the model directory.
    #[arg(long, help_heading = "Model")]
    pub follow_links: bool,

    /// Where to compute: cpu, cuda or cuda:INDEX.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = model::device::known, help_heading = "Model")]
    pub device: String,

    /// The type to compute in: f32, bf16 or f16.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16", "f16"], help_heading = "Model")]
    pub dtype: String,

    #[command(flatten)]
    pub precision: process::PrecisionFlag,

    /// The format of the prompts.
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = clap::value_parser!(InputFormat), help_heading = "Prompts")]
    pub input_format: InputFormat,

    /// The key that holds the prompt's text.
    #[arg(long, value_name = "KEY", default_value = "prompt", help_heading = "Prompts")]
    pub field: String,

    /// The key that holds a completion, run behind its prompt (with --positions completion or prompt-last).
    #[arg(long, value_name = "KEY", default_value = "completion", help_heading = "Prompts")]
    pub completion_field: String,

    /// The key that names a sample's group.
    #[arg(long, value_name = "KEY", help_heading = "Prompts")]
    pub group: Option<String>,

    /// Take the prompt as it is (the default).
    #[arg(long, conflicts_with_all = ["chat", "template", "soft_prompt"], help_heading = "Prompts")]
    pub raw: bool,

    /// Render the prompt, or the row's `messages`, with the model's chat template.
    #[arg(long, help_heading = "Prompts")]
    pub chat: bool,

    /// The chat template: a file, or another model's directory. Implies --chat.
    #[arg(long, value_name = "FILE|DIR", help_heading = "Prompts")]
    pub template: Option<PathBuf>,

    /// Strip white space and punctuation from the prompt's end, as the paper does.
    #[arg(long, help_heading = "Prompts")]
    pub strip_punct: bool,

    /// A beginning-of-sequence token: as the tokenizer does it, exactly one, or none. A chat template brings its own.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "on", "off"], help_heading = "Prompts")]
    pub bos: String,

    /// Run the first N prompts only.
    #[arg(short = 'n', long, value_name = "N", help_heading = "Prompts")]
    pub limit: Option<u64>,

    /// Leave out prompts that cannot be run (empty, too long) instead of stopping; ends with exit code 6.
    #[arg(long, help_heading = "Prompts")]
    pub keep_going: bool,

    /// Sites, separated by commas: embed, resid_pre, resid_mid, resid_post, q_proj, k_proj, q, k, v, attn_logit_max, attn_in, attn_proj, attn_out, mlp_in, mlp_proj, mlp_out, mlp_gate, mlp_act, mlp_up, router_logits, expert_choice, final_norm, logits.
    #[arg(
        long,
        value_name = "SITES",
        default_value = "resid_post",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub sites: Vec<Site>,

    /// Layers: `all`, indices and ranges (`0,5,7-9`, `-1` for the last), or a window of depth (`0.3-0.5`; block l of L has depth (l+1)/L).
    #[arg(
        long,
        value_name = "LAYERS",
        default_value = "all",
        allow_hyphen_values = true,
        help_heading = "Selection"
    )]
    pub layers: Layers,

    /// Token positions: last, all, mean (over all), completion, prompt-last, or an index (negative: from the end).
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "last",
        allow_hyphen_values = true,
        help_heading = "Selection"
    )]
    pub positions: Positions,

    #[command(flatten)]
    pub steering: steering::SteeringFlags,

    /// The type to store: f32, bf16 or f16 (default: as computed).
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "bf16", "f16"], conflicts_with = "moments", help_heading = "Storage")]
    pub store_dtype: Option<String>,

    /// How blocks are stored: stored, zstd or zstd-planes.
    #[arg(
        long,
        value_name = "CODEC",
        default_value = "zstd-planes",
        conflicts_with = "moments",
        help_heading = "Storage"
    )]
    pub codec: Codec,

    /// Keep the prompts' texts in the sample records.
    #[arg(long, conflicts_with = "moments", help_heading = "Storage")]
    pub keep_text: bool,

    /// Write exact mergeable moments per site, layer and group instead of rows.
    #[arg(long, help_heading = "Storage")]
    pub moments: bool,

    /// The most memory that accumulated moments may take.
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = process::parse_bytes, help_heading = "Storage")]
    pub max_memory: u64,

    /// Tokens that are run together; a longer prompt runs alone.
    #[arg(long, value_name = "N", default_value = "2048", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Model")]
    pub batch_tokens: u32,

    /// Continue a run that was stopped.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,

    /// Print family, sites, widths, parameters and bytes per token of the model, and stop.
    #[arg(long, conflicts_with_all = ["verify", "moments", "output"])]
    pub inspect: bool,

    /// Run the prompts again with the settings of a stored dump and say whether the numbers are the same: equal, equal
    /// within precision, or different, with the first layer and token where they part (exit code 1).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "moments", "resume"])]
    pub verify: Option<PathBuf>,

    #[command(flatten)]
    pub mixed: process::MixedCompute,

    #[command(flatten)]
    pub output: process::OutputFlags,

    #[command(flatten)]
    pub shard: process::ShardFlags,

    #[command(flatten)]
    pub common: process::Common,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

const EXAMPLES: &str = "\
Examples:
  resid-dump --model llama/ --inspect
      What the model is, and what a token costs on disk.
  resid-dump --model llama/ --strip-punct xstest.csv -o xstest.acts
      The last token of every prompt, all layers, as in the paper.
  resid-dump --model llama/ --field text --positions all --layers 0.3-0.5 texts.jsonl -o texts.acts
      Every token, the blocks in a window of depth.
  resid-dump --model llama/ --positions all --moments --group label prompts.jsonl -o prompts.acts
      Moments instead of rows; shards merge exactly with acts-cat --merge.
  resid-dump --model llama/ prompts.jsonl -o - | flowlens-pca -
      The container itself through a pipe.
  resid-dump --model llama/ --verify xstest.acts xstest.csv
      Does this machine give the same numbers?";

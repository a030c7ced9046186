//! The arguments of act-sparsity. The doc comments are the help text and the man page.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use model::Site;
use process::{AdapterFlags, Common, Layers, OutputFlags, parse_probability};

use crate::criterion::Criterion;

/// Measure which inputs of a matrix a model can do without, and plan to leave them out.
///
/// Reads activations (.acts of resid-dump --sites mlp_in,… --positions all) and the model that they are of. For every matrix that reads
/// them, criterion and level it writes what is left out and what that costs: threshold, share of the inputs, error of the output. With -o
/// it writes a plan, which lm-gen --sparsify follows, so that any benchmark can be asked what it costs.
///
/// --ppl searches the level at which the model's perplexity has grown by so many percent. It runs lm-gen --score once for every level
/// tried.
#[derive(Debug, Clone, Parser)]
#[command(name = "act-sparsity", version, after_long_help = NOTES)]
pub struct Args {
    /// Activations of one run.
    #[arg(value_name = "DUMP", required = true)]
    pub dumps: Vec<PathBuf>,

    /// The model: a directory, a GGUF file, or a name in the local cache of the Hugging Face hub (org/name[@revision]).
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// Take activations of another model of the same shape (a fine-tuned one, say).
    #[arg(long)]
    pub allow_other_model: bool,

    /// How to choose what is left out (see CRITERIA).
    #[arg(
        long,
        value_enum,
        value_name = "CRITERION,…",
        value_delimiter = ',',
        default_value = "teal,wina"
    )]
    pub criterion: Vec<Criterion>,

    /// Leave out these shares of the inputs [default: 0.5].
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', value_parser = parse_share, group = "levels")]
    pub sparsity: Vec<f64>,

    /// Leave out as much as keeps CETT, the mean over tokens of ‖y - y'‖/‖y‖, at these bounds.
    #[arg(long, value_name = "X,…", value_delimiter = ',', value_parser = parse_not_negative, group = "levels")]
    pub cett: Vec<f64>,

    /// Leave out scores up to these thresholds.
    #[arg(long, value_name = "X,…", value_delimiter = ',', value_parser = parse_not_negative, group = "levels")]
    pub threshold: Vec<f64>,

    /// Search the level at which perplexity has grown by these percentages.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = parse_not_negative, group = "levels", requires = "completions")]
    pub ppl: Vec<f64>,

    /// With --ppl: what perplexity is taken of, prompts with a `completion` each, as lm-gen --score reads them.
    #[arg(long, value_name = "FILE", requires = "ppl")]
    pub completions: Option<PathBuf>,

    /// With --ppl: stop where the level is known to within this.
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = parse_probability)]
    pub resolution: f64,

    /// The inputs, of those dumped: mlp_in, attn_in [default: all of them that were].
    #[arg(long, value_name = "SITE,…", value_delimiter = ',', value_parser = parse_site)]
    pub sites: Vec<Site>,

    /// Layers: all, 4-12, 3,5,7, -1 (from the end), or a window of depth such as 0.3-0.5.
    #[arg(long, value_name = "LAYERS", default_value = "all", allow_hyphen_values = true)]
    pub layers: Layers,

    /// How a share is divided among matrices: the same of each, or ever the next step where its error is least.
    #[arg(long, value_enum, default_value = "uniform")]
    pub allocation: Allocation,

    /// Look at so many rows of each tensor, evenly spaced.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,

    /// Of rsparse: the part of the inputs' share that is read one by one; the rest of it pays for the remainder's rank.
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = parse_probability)]
    pub alpha: f64,

    /// The device on which perplexity is taken: cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,

    /// The type in which perplexity is taken: f32, bf16, f16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: String,

    /// Follow links that leave the model directory.
    #[arg(long)]
    pub follow_links: bool,

    #[command(flatten)]
    pub output: OutputFlags,

    #[command(flatten)]
    pub common: Common,

    /// After --: more arguments for lm-gen (--raw, --system TEXT, --template FILE).
    #[arg(last = true, value_name = "LM-GEN ARGUMENTS")]
    pub lm_gen: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    Uniform,
    Greedy,
}

impl process::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is not a share, 0 to 1")),
    }
}

fn parse_not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is not a number from 0")),
    }
}

fn parse_site(text: &str) -> Result<Site, String> {
    match text.parse::<Site>() {
        Ok(site @ (Site::MlpIn | Site::AttnIn)) => Ok(site),
        _ => Err(format!("{text:?} is not mlp_in or attn_in")),
    }
}

const NOTES: &str = "\
CRITERIA
  An input x_i is left out where its score is small; W is the matrix that reads it.
  zero      exact zeros alone: what costs nothing. Takes no level
  topk      |x_i|, the largest of each token are kept
  fat       |x_i|, one threshold for all layers of a site
  teal      |x_i|, a threshold for each matrix
  cats      the magnitude of the activated gate (mlp_act), a threshold for each layer; mlp_in alone
  chess     the same times the root of E[up_i^2] (mlp_act, mlp_up); attn_in as teal
  wina      |x_i| ‖W[:,i]‖, the largest of each token are kept
  cett      |x_i| ‖W[:,i]‖, a threshold for each matrix: the output norm of a neuron
  rsparse   as cett, and of what is left out W reads the projection on its leading right singular vectors

WHAT THE NUMBERS MEAN
  sparsity is the share of inputs that are not read, over the rows looked at; rel_error is ‖Y - Y'‖/‖Y‖ over all of them, cett the mean
  over tokens. Both are of one matrix on the activations of the dense model: errors that add up along the model are seen by --ppl alone.

  Of topk and wina a level is a share. --threshold is for all others, and theirs is --cett too, but for rsparse. With --ppl the level of cett is a
  bound of CETT, the same for every matrix (the Sparsing Law's PPL-p%), and that of all others a share.

  A perplexity is e^-(sum of log_prob / sum of token_count) of lm-gen --score. The level found is the largest one tried whose
  perplexity does not exceed the bound, below the least one tried whose perplexity does.

  rsparse at share s leaves out the share 1 - (1 - s) ALPHA, and its remainder has the rank in·out·(1 - s)(1 - ALPHA)/(in + out).

  Memory grows with --rows: 4 bytes for every number looked at, and a few copies of one tensor's rows for each thread.

EXAMPLES
  resid-dump DIR prompts.jsonl --positions all --sites mlp_in,mlp_act,mlp_up -o mlp.acts
  act-sparsity mlp.acts --model DIR --criterion teal,wina,cats --sparsity 0.3,0.5,0.7 > losses.jsonl
  act-sparsity mlp.acts --model DIR --criterion wina --sparsity 0.5 -o half.acts
  lm-gen --model DIR --sparsify half.acts prompts.jsonl -o answers.jsonl
  act-sparsity mlp.acts --model DIR --criterion wina,cett --ppl 1,10 --completions answers.jsonl > search.jsonl
  resid-plot losses.jsonl search.jsonl -o sparsity.html";

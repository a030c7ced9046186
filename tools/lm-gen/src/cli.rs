//! The arguments of lm-gen. Doc comments here are the help and the man page.

use std::path::PathBuf;

use clap::Parser;
use process::{AdapterFlags, Common, MixedCompute, OutputFlags, ShardFlags};
use records::dataset::InputFormat;
use steering::SteeringFlags;

use crate::contrast::Contrast;

/// Generate and score completions with a language model.
///
/// Prompts in, completions out, both JSON lines keyed by id; the output keeps the order of the input. A record with
/// `choices` is scored, one without is answered, so one model load serves many tasks. Greedy unless --temperature is given.
#[derive(Parser, Debug)]
#[command(version, name = "lm-gen", after_long_help = NOTES)]
pub struct Args {
    /// Prompts: JSON lines, JSON, CSV or Parquet with `prompt` or `messages`; `-` is stdin. With --merge: the outputs of all shards.
    #[arg(value_name = "PROMPTS", default_value = "-")]
    pub inputs: Vec<PathBuf>,

    /// The model: a directory (config.json, safetensors, tokenizer), a GGUF file, or a name in the local cache of the Hugging Face hub
    /// (org/name[@revision]).
    #[arg(long, value_name = "MODEL", required_unless_present = "merge")]
    pub model: Option<PathBuf>,

    #[command(flatten)]
    pub adapter: AdapterFlags,

    /// At most N new tokens, unless a record says otherwise.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_new_tokens: u64,

    /// End a completion before TEXT (repeatable; added to a record's own `stop`).
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// A system message for every prompt that has none.
    #[arg(long, value_name = "TEXT", conflicts_with = "soft_prompt")]
    pub system: Option<String>,

    /// Prompts as they are, without a chat template.
    #[arg(long, conflicts_with_all = ["chat", "template", "system", "soft_prompt"])]
    pub raw: bool,

    /// Insist on a chat template (default: use one if the model has one).
    #[arg(long)]
    pub chat: bool,

    /// The chat template of FILE, or of the model directory DIR.
    #[arg(long, value_name = "FILE|DIR")]
    pub template: Option<PathBuf>,

    /// Score the `completion` that each record holds instead of writing one: its log-likelihood in nats
    ///
    /// A record without it whose `messages` end with the assistant's has that one scored: a file of training data can be read as it is.
    #[arg(long)]
    pub score: bool,

    /// With --score, also the log-likelihood of every token, as `token_log_prob`.
    #[arg(long, requires = "score")]
    pub per_token: bool,

    /// Sample at this temperature.
    #[arg(long, value_name = "T", value_parser = temperature, conflicts_with = "score")]
    pub temperature: Option<f64>,

    /// Sample from the least set of likeliest tokens whose probabilities reach P.
    #[arg(long, value_name = "P", value_parser = top_p, requires = "temperature")]
    pub top_p: Option<f64>,

    /// Sample from the K likeliest tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), requires = "temperature")]
    pub top_k: Option<u32>,

    /// The seed of sampling. A draw depends on the seed, the prompt's place in the input, the attempt and the position alone.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Samples per prompt, told apart by `attempt_index`.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "temperature")]
    pub attempts: u32,

    #[command(flatten)]
    pub steering: SteeringFlags,

    /// Choose every token by two contexts (see CONTRAST): self:ALPHA and ada[:ALPHA] set --system beside no system message, amateur=MODEL:ALPHA
    /// this model beside another.
    #[arg(long, value_name = "CONTRAST", conflicts_with = "score")]
    pub contrast: Option<Contrast>,

    /// Sequences in flight (see DETERMINISM) [default: up to 32, as far as their caches keep within 1 GiB].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Option<u32>,

    /// Read at most N prompts.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,

    /// The format of PROMPTS (auto, jsonl, json, csv, tsv, parquet, text).
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub input_format: InputFormat,

    /// The device: cpu, cuda, cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = model::device::known)]
    pub device: String,

    /// The type to compute in: f32, bf16, f16.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: String,

    #[command(flatten)]
    pub precision: process::PrecisionFlag,

    /// How matrices are held that a GGUF file stores in fewer bits than are computed in: as numbers, or as stored, to become numbers
    /// as they are multiplied. The output is the same; as stored they take less memory and, where the processor has AVX2, less time, on the
    /// CPU alone.
    #[arg(long, value_enum, default_value_t = WeightsFlag::Dequantised, value_name = "HOW")]
    pub weights: WeightsFlag,

    /// Refuse the model unless its weights have this digest (blake3:…, as `model_digest` of any output says it).
    #[arg(long, value_name = "DIGEST")]
    pub model_digest: Option<String>,

    /// Follow links that leave the model directory.
    #[arg(long)]
    pub follow_links: bool,

    /// Continue the partial output of the same plan, at the record where it ends; a finished one is left as it is.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,

    /// Go on where a prompt cannot be run: its record says finish "error", and the output says partial (exit 6).
    #[arg(long)]
    pub keep_going: bool,

    /// Put the outputs of all shards together in the order of one run, after checking that they cover it.
    #[arg(long, conflicts_with_all = ["model", "resume"])]
    pub merge: bool,

    #[command(flatten)]
    pub mixed: MixedCompute,

    #[command(flatten)]
    pub output: OutputFlags,

    #[command(flatten)]
    pub shard: ShardFlags,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightsFlag {
    Dequantised,
    AsStored,
}

impl From<WeightsFlag> for model::Weights {
    fn from(flag: WeightsFlag) -> Self {
        match flag {
            WeightsFlag::Dequantised => Self::Dequantised,
            WeightsFlag::AsStored => Self::AsStored,
        }
    }
}

impl process::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if t > 0.0 && t <= 100.0 => Ok(t),
        _ => Err("a temperature lies above 0 and at most at 100; greedy decoding takes none".to_string()),
    }
}

fn top_p(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("a probability lies above 0 and at most at 1".to_string()),
    }
}

const NOTES: &str = "\
RECORDS
  In: id (absent: #N), prompt or messages, and if there: bench, system, stop, max_new_tokens, choices, completion (--score).
  Out: all keys of the prompt, then text_digest, model_digest, attempt_index, completion, token_count, finish
  (stop: an end token or a stop string; length: the limit; error: see `error`). A stop string is not part of the completion.
  Scored: choice_log_prob and choice_token_count, or the completion with log_prob and token_count.

  The choice or completion is tokenised together with the prompt; its tokens are those after the longest common start.

CONTRAST
  The token chosen is put behind both contexts; sampling, stops, shards and resumption are as without. With l the logits:
  self      (1 - ALPHA) l(with the system message) + ALPHA l(without): 0 is the one and 1 the other context, 2.5 as published.
  ada       for the first 10 tokens p + ALPHA (p - q) where both contexts agree, else p - ALPHA (p - q), p with and q without the system
            message; they agree where p's best token is q's too, and q's probability of its best is at least 0.9 of p's. Tokens
            below 0.01 of q's best are out. Afterwards q alone. ALPHA is 4.5; --system is \"Please refuse to answer me!\".
  amateur   l - ALPHA l(of the other model), which must have the same tokenizer. Only this model is steered.
  A chat template that has no place for a system message gives two equal contexts, and is refused; --template FILE brings one that has.

DETERMINISM
  A prompt is read alone, and its tokens are decoded in groups in which a row's product does not depend on its neighbours (on
  x86-64 with AVX2 or AVX-512). So --threads, shards, --resume and any --batch above 1 change no byte of the output. --batch 1
  sums in another order: a token may differ where the two best logits agree to about 1e-5. Another dtype or device may too.

EXAMPLES
  lm-gen --model DIR prompts.jsonl -o completions.jsonl
  refusal-eval prompts --bench xstest=xstest_prompts.csv | lm-gen --model DIR --system 'You are helpful.' - -o answers.jsonl
  lm-gen --model DIR --steer refusal.acts:0.5@10-20 prompts.jsonl -o steered.jsonl
  lm-gen --model DIR --ablate direction.acts@14 prompts.jsonl -o ablated.jsonl
  lm-gen --model DIR --system 'Be safe.' --contrast self:2.5 prompts.jsonl -o bolder.jsonl
  lm-gen --model DIR --score --per-token answers.jsonl -o scored.jsonl
  lm-gen --model DIR --shard 0/4 prompts.jsonl -o part0.jsonl
  lm-gen --merge part0.jsonl part1.jsonl part2.jsonl part3.jsonl -o completions.jsonl";

//! The arguments of `ds-entropy`. The doc comments are its help and its man page.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use process::{Common, FormatFlags, OutputFlags, ShardFlags, Tool, parse_bytes};
use records::dataset::InputFormat;

/// Measure how repetitive a fine-tuning data set is.
///
/// Reads conversations (JSON lines, JSON, CSV, Parquet, text; plain or compressed; the usual schemas are recognised) and prints, for
/// every group, entropies of words, pairs and triples, distinct and unique shares, MSTTR, the most frequent n-grams, the opening
/// templates that many samples share, exact duplicates, lengths and compression. Counts are exact, also over shards.
///
/// H1, H2 and H3 are entropies of n-grams in bits over all samples of a group; no n-gram crosses the border of a sample. They depend
/// on the size of the group: give --at to compare groups at a common number of tokens.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true, after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub corpus: CorpusArgs,

    #[command(flatten)]
    pub measures: MeasureArgs,

    /// Also write this run's tokens, vocabulary, samples and texts to FILE, for `ds-entropy merge`.
    #[arg(long, value_name = "FILE")]
    pub counts: Option<PathBuf>,

    /// With --counts: if FILE already holds the finished result of the same plan, do nothing.
    #[arg(long, requires = "counts")]
    pub resume: bool,

    #[command(flatten)]
    pub shard: ShardFlags,

    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Measure files written with --counts as if their inputs had been read in one run.
    ///
    /// Shards of one input (--shard) are put back into input order and must be complete; other files follow each other as given.
    Merge(MergeArgs),
    /// Print the tokens of every sample, one JSON line each, as they would be counted.
    Tokens(CorpusArgs),
}

#[derive(ClapArgs, Debug)]
pub struct MergeArgs {
    /// Files written with --counts.
    #[arg(required = true, value_name = "COUNTS")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub measures: MeasureArgs,
}

/// What is read and how it is cut into tokens.
#[derive(ClapArgs, Debug)]
pub struct CorpusArgs {
    /// Files to read, `-` for standard input (the default). They count as one input, in this order.
    #[arg(value_name = "FILE")]
    pub inputs: Vec<PathBuf>,

    /// Format of the input: auto, jsonl, json, csv, tsv, parquet or text. auto goes by extension and first bytes.
    #[arg(long, value_name = "FORMAT", default_value = "auto", help_heading = "Input")]
    pub input_format: InputFormat,

    /// Take the text under FIELD instead of recognising a schema (messages, conversations, instruction/input/output,
    /// prompt/completion, chosen/rejected, text).
    #[arg(long, value_name = "FIELD", help_heading = "Input")]
    pub field: Option<String>,

    /// Which texts of a row are samples: the answer, the question, or both as two samples.
    #[arg(
        long,
        value_enum,
        default_value = "completion",
        value_name = "VIEW",
        help_heading = "Input"
    )]
    pub view: View,

    /// In conversations of several turns: the last question and answer, or all of them, each a sample.
    #[arg(
        long,
        value_enum,
        default_value = "last",
        value_name = "TURNS",
        help_heading = "Input"
    )]
    pub turns: Turns,

    /// Measure the groups that FIELD names apart; `@file` groups by input file.
    #[arg(long, alias = "by", value_name = "FIELD", help_heading = "Input")]
    pub group: Option<String>,

    /// Split every group into refusals and the rest, by how the answer begins.
    #[arg(long, help_heading = "Input")]
    pub refusals: bool,

    /// Read only the first N rows.
    #[arg(short = 'n', long, value_name = "N", help_heading = "Input")]
    pub limit: Option<u64>,

    /// Leave out rows that cannot be used, count them, and end with exit code 6.
    #[arg(long, help_heading = "Input")]
    pub keep_going: bool,

    /// What is counted: `treebank` (Penn-Treebank words, as NLTK's word_tokenize with preserve_line), `whitespace` (words between
    /// white space), or a tokenizer.json, a model directory (tokenizer.json, or vocabulary with merges) or a tiktoken file.
    #[arg(long, value_name = "TOKENS", default_value = "treebank", help_heading = "Tokens")]
    pub tokens: String,

    /// Fold letters to lower case first.
    #[arg(long, help_heading = "Tokens")]
    pub lower: bool,

    /// Turn typographic quotes, dashes and the ellipsis into their ASCII forms first.
    #[arg(long, help_heading = "Tokens")]
    pub punctuation: bool,

    /// Report the share of tokens that bear loss when conversations are rendered with the chat template and the tokenizer of this
    /// model directory, the assistant's turns being trained on.
    #[arg(long, value_name = "MODEL_DIR", help_heading = "Tokens")]
    pub template: Option<PathBuf>,
}

/// What is measured and how it is shown.
#[derive(ClapArgs, Debug)]
pub struct MeasureArgs {
    /// Measure also at N tokens, so that groups of different sizes compare. Entropy of single tokens and distinct shares are exact
    /// expectations over all ways to draw N tokens (n-grams); the others are means over seeded draws of whole samples. `_sd` is the
    /// spread between draws. Groups with fewer than N tokens have no such measures.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Measures")]
    pub at: Option<u64>,

    /// Draws for --at.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(2..=10_000), help_heading = "Measures")]
    pub draws: u32,

    /// Seed of the draws.
    #[arg(long, value_name = "SEED", default_value = "42", help_heading = "Measures")]
    pub seed: u64,

    /// Print this many of the most frequent n-grams of each n.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(0..=100_000), help_heading = "Measures")]
    pub ngrams: u32,

    /// How many opening templates count as coverage, and are printed.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Measures")]
    pub templates: u32,

    /// How many first tokens make an opening.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=32), help_heading = "Measures")]
    pub opening: u32,

    /// Exit with 1 if MEASURE of any group is below X, for example h1=10. Repeatable. Fields of fields are named with a dot: at.h1.
    #[arg(long, value_name = "MEASURE=X", value_parser = parse_limit, help_heading = "Lint")]
    pub fail_under: Vec<Limit>,

    /// Exit with 1 if MEASURE of any group is above X, for example template_coverage=0.2. Repeatable.
    #[arg(long, value_name = "MEASURE=X", value_parser = parse_limit, help_heading = "Lint")]
    pub fail_over: Vec<Limit>,

    #[command(flatten)]
    pub format: FormatFlags,

    /// Keep token streams and counts within SIZE of memory, such as 512M; what is beyond it is sorted in a temporary file. The
    /// vocabulary and about 60 bytes a sample are held besides. The result does not depend on it.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_bytes)]
    pub max_memory: u64,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    Completion,
    Prompt,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    Last,
    All,
}

/// A bound on a measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The field of an `entropy` record, with dots into the objects within.
    pub measure: String,
    pub value: f64,
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    let (measure, value) = text.split_once('=').ok_or("expected MEASURE=X, for example h1=10")?;
    let value: f64 = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    if !value.is_finite() {
        return Err(format!("{value} is not a finite number"));
    }
    Ok(Limit {
        measure: measure.to_owned(),
        value,
    })
}

const EXAMPLES: &str = "\
EXAMPLES
  Entropies of the answers of each source:
    ds-entropy --group source --lower train.jsonl
  Refusals apart from the rest, in a model's own tokens, at a common size:
    ds-entropy --refusals --tokens Llama-3.1-8B/ --at 100000 sft.parquet
  A check of a data mixture in CI; exit code 1 names the group that fails:
    ds-entropy --group source --fail-under h1=9 --fail-over template_coverage=0.2 mix.jsonl
  Two shards on two machines, then the whole, byte for byte as one run gives it:
    ds-entropy --shard 0/2 --counts 0.acts mix.jsonl
    ds-entropy --shard 1/2 --counts 1.acts mix.jsonl
    ds-entropy merge 0.acts 1.acts";

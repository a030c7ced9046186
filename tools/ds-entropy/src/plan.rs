//! What a run will do, decided before it does anything: pure, printed by `--plan`, hashed into the output.
//!
//! [`Plan`] holds what decides the numbers and nothing else; inputs, shard, threads and memory stay outside of it, so that a merge of
//! shards carries the plan of the single run.

use std::path::{Path, PathBuf};

use process::{Common, Error, Existing, Format, Result, Shard, check_target};
use records::dataset::InputFormat;
use serde::{Deserialize, Serialize};

use crate::cli::{Args, CorpusArgs, Limit, MeasureArgs, Turns, View};
use crate::report;
use crate::tokens::{Choice, Files, Fold};

/// Groups by input file instead of by a field.
pub const GROUP_BY_FILE: &str = "@file";

/// BOUND: below this the buffers alone take more.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub corpus: CorpusPlan,
    pub measures: MeasurePlan,
}

/// What makes samples of rows and tokens of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusPlan {
    pub input_format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub view: View,
    pub turns: Turns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub refusals: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    pub keep_going: bool,
    pub tokens: TokensPlan,
    /// Digest of the chat template and its tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensPlan {
    pub kind: TokensKind,
    pub fold: Fold,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokensKind {
    Treebank,
    Whitespace,
    /// The digest of the tokenizer's files.
    Files(String),
}

impl TokensKind {
    pub fn name(&self) -> &str {
        match self {
            Self::Treebank => "treebank",
            Self::Whitespace => "whitespace",
            Self::Files(digest) => digest,
        }
    }

    /// Whether tokens are words, with white space between them.
    pub fn is_words(&self) -> bool {
        !matches!(self, Self::Files(_))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasurePlan {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    pub draws: u32,
    pub seed: u64,
    pub ngrams: u32,
    pub templates: u32,
    pub opening: u32,
}

/// A resolved call that reads data.
pub struct Reading {
    pub inputs: Vec<PathBuf>,
    pub input_format: InputFormat,
    pub corpus: CorpusPlan,
    pub tokens: Choice,
    pub template: Option<PathBuf>,
}

/// How the machine is used; changes no number.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub threads: usize,
    /// Token streams in memory.
    pub resident_bytes: usize,
    /// The n-grams being counted.
    pub counting_bytes: usize,
    /// The words each worker remembers.
    pub cache_bytes: usize,
}

impl Budget {
    pub fn new(max_memory: u64, threads: usize) -> Result<Self> {
        if max_memory < MEMORY_BYTES_MIN {
            return Err(Error::usage(
                "--max-memory",
                format!("is {max_memory} bytes, at least {MEMORY_BYTES_MIN} are needed"),
            ));
        }
        let bytes = usize::try_from(max_memory).unwrap_or(usize::MAX);
        Ok(Self {
            threads,
            resident_bytes: bytes / 8 * 3,
            counting_bytes: bytes / 8 * 3,
            cache_bytes: bytes / 8 / threads,
        })
    }
}

impl Reading {
    pub fn new(args: &CorpusArgs) -> Result<Self> {
        let tokens = match args.tokens.as_str() {
            "treebank" => Choice::Treebank,
            "whitespace" => Choice::Whitespace,
            path => Choice::Files(Files::find(Path::new(path)).map_err(|error| {
                match error.exit() {
                    Some(process::Exit::Environment) if !path.contains('/') && !path.contains('.') => Error::input(
                        "--tokens",
                        format!("{path:?} is neither treebank, whitespace nor a file"),
                    )
                    .hint("give the path of a tokenizer.json or of a model directory"),
                    _ => error,
                }
            })?),
        };
        let kind = match &tokens {
            Choice::Treebank => TokensKind::Treebank,
            Choice::Whitespace => TokensKind::Whitespace,
            Choice::Files(files) => TokensKind::Files(files.digest()?),
        };
        let inputs = if args.inputs.is_empty() {
            vec![PathBuf::from("-")]
        } else {
            args.inputs.clone()
        };
        if inputs.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(Error::usage("-", "standard input can be read only once"));
        }
        if args.template.is_some() && args.field.is_some() {
            return Err(Error::usage(
                "--template",
                "needs conversations, and --field names a bare text",
            ));
        }
        if args.field.is_some() && args.view == View::Both {
            return Err(Error::usage(
                "--view",
                "both needs a question and an answer, and --field names one text",
            ));
        }
        let template_digest = args.template.as_deref().map(crate::loss::digest).transpose()?;
        Ok(Self {
            inputs,
            input_format: args.input_format,
            corpus: CorpusPlan {
                input_format: args.input_format.to_string(),
                field: args.field.clone(),
                view: args.view,
                turns: args.turns,
                group: args.group.clone(),
                refusals: args.refusals,
                limit: args.limit,
                keep_going: args.keep_going,
                tokens: TokensPlan {
                    kind,
                    fold: Fold {
                        lower: args.lower,
                        punctuation: args.punctuation,
                    },
                },
                template_digest,
            },
            tokens,
            template: args.template.clone(),
        })
    }
}

impl MeasurePlan {
    pub fn new(args: &MeasureArgs) -> Self {
        Self {
            at: args.at,
            draws: args.draws,
            seed: args.seed,
            ngrams: args.ngrams,
            templates: args.templates,
            opening: args.opening,
        }
    }
}

/// What a call that measures was resolved to, besides the plan.
pub struct Opened {
    pub reading: Reading,
    pub shard: Shard,
    /// Where the file for `merge` goes.
    pub counts: Option<PathBuf>,
    /// Whether a finished file of counts is enough.
    pub is_resumed: bool,
    pub reporting: Reporting,
}

/// How a report is made and where it goes.
pub struct Reporting {
    pub budget: Budget,
    pub max_memory_bytes: u64,
    pub under: Vec<Limit>,
    pub over: Vec<Limit>,
    pub output: Option<PathBuf>,
    pub format: Format,
    pub existing: Existing,
    /// Files being read, which no output may replace.
    pub inputs: Vec<PathBuf>,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Self, Opened)> {
        let reading = Reading::new(&args.corpus)?;
        let opened = Opened {
            shard: args.shard.resolve()?,
            counts: args.counts.clone(),
            is_resumed: args.resume,
            reporting: Reporting::new(&args.measures, &args.common, &reading.inputs)?,
            reading,
        };
        opened.check_outputs()?;
        let plan = Self {
            corpus: opened.reading.corpus.clone(),
            measures: MeasurePlan::new(&args.measures),
        };
        Ok((plan, opened))
    }
}

impl Opened {
    /// Refuses outputs that cannot be, before anything is read.
    fn check_outputs(&self) -> Result<()> {
        let Reporting {
            output,
            existing,
            inputs,
            ..
        } = &self.reporting;
        if self.shard != Shard::WHOLE && self.counts.is_none() {
            return Err(Error::usage("--shard", "measures a part that means nothing by itself")
                .hint("add --counts FILE, and merge the files"));
        }
        if let Some(counts) = &self.counts {
            if counts.as_os_str() == "-" && output.is_none() {
                return Err(Error::usage("--counts", "- would mix the counts with the records")
                    .hint("give the records a file with -o"));
            }
            if output.as_ref() == Some(counts) {
                return Err(Error::usage("--counts", "is the same file as --output"));
            }
            // What a finished run left is compared with this plan, and nothing is written.
            if self.is_resumed && counts.exists() {
                return Ok(());
            }
        }
        let targets = output.iter().chain(&self.counts);
        targets
            .into_iter()
            .try_for_each(|target| check_target(target, *existing, inputs))
    }
}

impl Reporting {
    pub fn new(args: &MeasureArgs, common: &Common, inputs: &[PathBuf]) -> Result<Self> {
        let limits = || args.fail_under.iter().chain(&args.fail_over);
        if let Some(unknown) = limits().find(|limit| !report::is_measure(&limit.measure)) {
            return Err(Error::usage(
                "--fail-under/--fail-over",
                format!("{:?} is not a measure", unknown.measure),
            )
            .hint("take a field of the entropy record, such as h1 or at.h1"));
        }
        let output = args.output.output.clone();
        Ok(Self {
            budget: Budget::new(args.max_memory, common.thread_count())?,
            max_memory_bytes: args.max_memory,
            under: args.fail_under.clone(),
            over: args.fail_over.clone(),
            format: args.format.resolve(output.as_deref()),
            output,
            existing: Existing::from_flags(args.output.force, false),
            inputs: inputs.to_vec(),
        })
    }
}

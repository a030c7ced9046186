//! The arguments of skill-eval. Doc comments here are the help and the man page.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use process::{Common, FormatFlags, OutputFlags, parse_bytes, parse_probability};
use records::dataset::InputFormat;
use records::exchange::HubEntry;
use serde::Serialize;

/// Measure general ability: MMLU, GSM8K, BBH, HumanEval, ARC, HellaSwag, TruthfulQA, IFEval.
///
/// Prompts, answers, scores and reports are separate record streams: scoring again needs no model, and reporting again needs no
/// scoring. Several extractors read each answer side by side, each showing the span it read; an answer that an extractor cannot read is
/// counted as unread, never silently as wrong.
#[derive(Parser, Debug)]
#[command(version, name = "skill-eval", after_long_help = NOTES)]
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
    /// Read a benchmark and write its prompts as records for lm-gen.
    Prompts(PromptsArgs),
    /// Extract and score answers, with several extractors side by side.
    Score(ScoreArgs),
    /// Count scores: accuracy with Wilson intervals, per task and subject; pair them with those of another model.
    Report(ReportArgs),
    /// The whole pipe: prompts, lm-gen, scores, report.
    Run(RunArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Bench {
    Mmlu,
    Gsm8k,
    Bbh,
    Humaneval,
    Arc,
    Hellaswag,
    Truthfulqa,
    Ifeval,
}

impl Bench {
    pub fn name(self) -> &'static str {
        match self {
            Bench::Mmlu => "mmlu",
            Bench::Gsm8k => "gsm8k",
            Bench::Bbh => "bbh",
            Bench::Humaneval => "humaneval",
            Bench::Arc => "arc",
            Bench::Hellaswag => "hellaswag",
            Bench::Truthfulqa => "truthfulqa",
            Bench::Ifeval => "ifeval",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// GSM8K, BBH: worked examples that reason before they answer.
    Cot,
    /// BBH: examples that answer at once. GSM8K: solved questions from --shots-from.
    Direct,
    /// MMLU: the log-likelihoods of the letters.
    Letters,
    /// MMLU, ARC, HellaSwag, TruthfulQA: the log-likelihoods of the options' texts.
    Cloze,
    /// MMLU, IFEval: a generated answer.
    Generate,
    /// HumanEval: the function's head, to be continued.
    Complete,
}

impl Style {
    pub fn name(self) -> &'static str {
        match self {
            Style::Cot => "cot",
            Style::Direct => "direct",
            Style::Letters => "letters",
            Style::Cloze => "cloze",
            Style::Generate => "generate",
            Style::Complete => "complete",
        }
    }
}

/// Which questions, and how they are asked.
#[derive(clap::Args, Debug, Clone)]
pub struct BenchFlags {
    /// The benchmark.
    #[arg(long, value_enum, value_name = "NAME")]
    pub bench: Bench,

    /// Worked examples before each question (default: mmlu 5, gsm8k 8, bbh 3; the others have none).
    #[arg(long, value_name = "N")]
    pub shots: Option<usize>,

    /// How questions are asked (default: mmlu letters, gsm8k and bbh cot, humaneval complete, ifeval generate, the others cloze).
    #[arg(long, value_enum, value_name = "STYLE")]
    pub style: Option<Style>,

    /// Where examples come from. mmlu: dev questions with subjects (default: SUBJECT_dev.csv beside SUBJECT_test.csv); gsm8k with
    /// --style direct: train.jsonl; bbh: the directory of the published prompts (default: ../cot-prompts beside the task's directory).
    #[arg(long, value_name = "PATH")]
    pub shots_from: Option<PathBuf>,

    /// Read at most N questions of each file.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,

    /// The format of FILES (auto, jsonl, json, csv, tsv, parquet).
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub input_format: InputFormat,

    /// Leave out a subject or task that has no examples, say so, and end with exit code 6.
    #[arg(long)]
    pub keep_going: bool,
}

#[derive(clap::Args, Debug)]
pub struct PromptsArgs {
    /// The benchmark's files: mmlu *_test.csv, or a table with question and choices; gsm8k test.jsonl; bbh TASK.json; HumanEval.jsonl.gz;
    /// the rows of ARC, HellaSwag, TruthfulQA (multiple_choice) and IFEval as published.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub bench: BenchFlags,

    #[command(flatten)]
    pub output: OutputFlags,
}

/// What may run, and what it may cost.
#[derive(clap::Args, Debug, Clone)]
pub struct ExecutionFlags {
    /// Run the programs that a model wrote (HumanEval), each in a sandbox without network: needs Linux namespaces, refused where there are none.
    #[arg(long)]
    pub allow_code_execution: bool,

    /// Seconds that a program may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub time_limit: u64,

    /// Address space that a program may take.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_bytes)]
    pub memory_limit: u64,

    /// The Python interpreter that runs them.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub python: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// Records of lm-gen, or any rows with `id`, `bench`, `completion` and `reference`.
    Records,
    /// The samples_*.jsonl that lm-evaluation-harness writes with --log_samples.
    LmEval,
}

#[derive(clap::Args, Debug)]
pub struct ScoreArgs {
    /// Completions; `-` is stdin.
    #[arg(value_name = "COMPLETIONS", default_value = "-")]
    pub input: PathBuf,

    /// Who wrote them.
    #[arg(long, value_enum, default_value = "records", value_name = "SOURCE")]
    pub from: Source,

    /// The benchmark of rows that name none.
    #[arg(long, value_enum, value_name = "NAME")]
    pub bench: Option<Bench>,

    /// The format of COMPLETIONS (auto, jsonl, json, csv, tsv, parquet).
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub input_format: InputFormat,

    #[command(flatten)]
    pub execution: ExecutionFlags,

    /// Go on where the input is partial or a row cannot be scored; the output then says partial (exit 6).
    #[arg(long)]
    pub keep_going: bool,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug, Clone)]
pub struct ReportFlags {
    /// The confidence of the intervals.
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = parse_probability)]
    pub confidence: f64,

    /// pass@k for these k, where a question has at least k attempts.
    #[arg(long = "pass-at", value_name = "K,…", value_delimiter = ',', default_values_t = [1, 10, 100])]
    pub pass_at: Vec<u64>,

    /// Write the figures for another program instead: lm-eval, a results file of lm-evaluation-harness; eval-results, entries of
    /// .eval_results of a model on the Hugging Face Hub (see FOR OTHERS).
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "format")]
    pub to: Option<Foreign>,

    /// What --to calls the model (default: its digest).
    #[arg(long, value_name = "NAME", requires = "to")]
    pub model_name: Option<String>,

    /// Which figure is which task of a benchmark on the Hub (repeatable; for --to eval-results).
    #[arg(
        long = "hub",
        value_name = "TASK:MEASURE,FILTER=ORG/DATASET[@REVISION]:TASK_ID",
        requires = "to"
    )]
    pub hub: Vec<HubEntry>,

    #[command(flatten)]
    pub format: FormatFlags,
}

/// Whose format a report is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    LmEval,
    EvalResults,
}

#[derive(clap::Args, Debug)]
pub struct ReportArgs {
    /// Scores; `-` is stdin.
    #[arg(value_name = "SCORES", default_value = "-")]
    pub input: PathBuf,

    /// Scores of another model on the same questions: the paired difference with McNemar's exact test.
    #[arg(long, value_name = "SCORES")]
    pub vs: Option<PathBuf>,

    #[command(flatten)]
    pub report: ReportFlags,

    /// Read partial scores; the report then says partial (exit 6).
    #[arg(long)]
    pub keep_going: bool,

    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// The benchmark's files.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The model directory.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    #[command(flatten)]
    pub bench: BenchFlags,

    #[command(flatten)]
    pub execution: ExecutionFlags,

    /// Keep prompts.jsonl, completions.jsonl, scores.jsonl and report.jsonl in DIR. Run again, the answers in DIR are taken up where they end.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Scores of another model on the same questions.
    #[arg(long, value_name = "SCORES")]
    pub vs: Option<PathBuf>,

    #[command(flatten)]
    pub report: ReportFlags,

    /// Further arguments of lm-gen, after `--`.
    #[arg(last = true, value_name = "LM-GEN ARGS")]
    pub generator: Vec<String>,
}

const NOTES: &str = "\
EXTRACTORS
  strict         one agreed form alone: `#### 18` or `The answer is 18.`; `the answer is (B).`; the letter that opens the answer
  flexible       what follows ####, the last \\boxed{}, the last sentence that announces an answer, else the last fitting thing;
                 thousands separators, currencies, units, LaTeX, options in any bracket or by their text
  last           GSM8K: the last number, as flexible-extract of lm-evaluation-harness reads it
  loglikelihood  MMLU: acc is the likeliest choice, acc_norm the likeliest per character, as lm-evaluation-harness defines them
  execution      HumanEval: the prompt and the answer as one program, with the tests
  block          HumanEval: the first fenced code block of the answer, where there is one

  mass           TruthfulQA, task mc2: the probability of the right choices among all; accuracy is its mean, and correct_count stays 0
  prompt_level_strict, inst_level_strict, prompt_level_loose, inst_level_loose
                 IFEval: the rules of lm-evaluation-harness; a row for the prompt, and one for each instruction (id PROMPT/N, task the
                 instruction). What it asks a language detector or a trained sentence splitter is unread where the text leaves it
                 open, and so is an instruction whose argument it draws at random

TRUTHFULQA
  A question is asked twice, as ID/mc1 (the likeliest of the choices is right) and ID/mc2. An instruction-tuned model is asked IFEval in its
  own template: run … -- --chat.

UNREAD
  accuracy is taken over the answers that were read; its interval runs from Wilson's bound with every unread answer wrong to
  Wilson's bound with every unread answer right. accuracy_all counts unread answers as wrong, as other harnesses do.

FOR OTHERS
  --to lm-eval writes one JSON object in the form of lm-evaluation-harness's results files: a task for each benchmark, parts as subtasks
  BENCH_PART, unread answers counted as wrong; acc,none and acc_norm,none of log-likelihoods, pass@K,EXTRACTOR of programs,
  EXTRACTOR_acc,none of IFEval, else exact_match,EXTRACTOR. --to eval-results writes YAML for a file under .eval_results/ of a model's repository: an entry for each --hub,
  its value in per cent.

SANDBOX
  A program serves calls of its function in one process; a checker in another makes the calls and looks at what comes back, so that a
  program cannot say that it passed. Arguments and results cross as plain values (None, bool, int, float, complex, str, bytes, list,
  tuple, set, frozenset, dict; a subclass as its base); a program that returns anything else has failed.
  Each process has user, mount, network, process, IPC and host-name namespaces and a session of its own: no network, a read-only
  interpreter, an empty directory of 32 MiB, no second process, files of 16 MiB, --memory-limit and --time-limit, and a list of
  allowed system calls. Where any of this cannot be had, nothing runs (exit 4).

EXAMPLES
  skill-eval prompts --bench gsm8k test.jsonl -o prompts.jsonl
  skill-eval score completions.jsonl -o scores.jsonl
  skill-eval score --from lm-eval --bench gsm8k samples_gsm8k_2024.jsonl | skill-eval report --format table
  skill-eval report scores.jsonl --vs base-scores.jsonl --format table
  skill-eval run --model DIR --bench humaneval --allow-code-execution HumanEval.jsonl.gz -o run1";

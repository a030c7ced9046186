//! What a run of skill-eval will do: which questions are asked how, what may run, which figures are made. Opens nothing.

use std::path::PathBuf;

use process::{Error, Result};
use records::dataset::InputFormat;
use serde::Serialize;

use crate::cli::{Bench, BenchFlags, ExecutionFlags, ReportFlags, ScoreArgs, Source, Style};
use crate::sandbox::Limits;

/// Which questions, and how they are asked.
#[derive(Serialize)]
pub struct Questions {
    #[serde(rename = "bench", serialize_with = "bench_name")]
    pub bench: Bench,
    #[serde(serialize_with = "style_name")]
    pub style: Style,
    pub shots: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    pub files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots_from: Option<PathBuf>,
    #[serde(skip)]
    pub input_format: InputFormat,
    pub keep_going: bool,
}

fn bench_name<S: serde::Serializer>(bench: &Bench, output: S) -> std::result::Result<S::Ok, S::Error> {
    output.serialize_str(bench.name())
}

fn style_name<S: serde::Serializer>(style: &Style, output: S) -> std::result::Result<S::Ok, S::Error> {
    output.serialize_str(style.name())
}

impl Questions {
    pub fn new(flags: &BenchFlags, files: &[PathBuf]) -> Result<Questions> {
        let (styles, shots): (&[Style], _) = match flags.bench {
            Bench::Mmlu => (&[Style::Letters, Style::Cloze, Style::Generate], 5),
            Bench::Gsm8k => (&[Style::Cot, Style::Direct], 8),
            Bench::Bbh => (&[Style::Cot, Style::Direct], 3),
            Bench::Humaneval => (&[Style::Complete], 0),
        };
        let style = flags.style.unwrap_or(styles[0]);
        if !styles.contains(&style) {
            let known: Vec<&str> = styles.iter().map(|style| style.name()).collect();
            return Err(Error::usage(
                "--style",
                format!("{} is asked as {}", flags.bench.name(), known.join(", ")),
            ));
        }
        let shots = flags.shots.unwrap_or(shots);
        if flags.bench == Bench::Humaneval && shots > 0 {
            return Err(Error::usage("--shots", "humaneval is asked without examples"));
        }
        Ok(Questions {
            bench: flags.bench,
            style,
            shots,
            limit: flags.limit,
            files: files.to_vec(),
            shots_from: flags.shots_from.clone(),
            input_format: flags.input_format,
            keep_going: flags.keep_going,
        })
    }

    /// Without the paths, which do not change what is asked when the files are the same.
    pub fn digest(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Key<'k> {
            bench: &'k str,
            style: &'k str,
            shots: usize,
            limit: Option<u64>,
        }
        process::plan::digest(&Key {
            bench: self.bench.name(),
            style: self.style.name(),
            shots: self.shots,
            limit: self.limit,
        })
    }
}

/// How answers are scored.
#[derive(Serialize)]
pub struct Scoring {
    pub command: &'static str,
    pub from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<&'static str>,
    pub allow_code_execution: bool,
    pub execution: Limits,
}

impl Scoring {
    pub fn new(flags: &ScoreArgs) -> Scoring {
        let from = match flags.from {
            Source::Records => "records",
            Source::LmEval => "lm-eval",
        };
        Scoring {
            from,
            bench: flags.bench.map(Bench::name),
            ..Scoring::of_records(&flags.execution)
        }
    }

    pub fn of_records(execution: &ExecutionFlags) -> Scoring {
        Scoring {
            command: "score",
            from: "records",
            bench: None,
            allow_code_execution: execution.allow_code_execution,
            execution: Limits {
                seconds: execution.time_limit,
                memory_bytes: execution.memory_limit,
            },
        }
    }
}

/// Which figures are made.
#[derive(Serialize)]
pub struct Figures {
    pub command: &'static str,
    pub confidence: f64,
    pub pass_at: Vec<u64>,
    pub paired: bool,
}

impl Figures {
    pub fn new(flags: &ReportFlags, paired: bool) -> Result<Figures> {
        if flags.pass_at.contains(&0) {
            return Err(Error::usage("--pass-at", "k is at least 1"));
        }
        Ok(Figures {
            command: "report",
            confidence: flags.confidence,
            pass_at: flags.pass_at.clone(),
            paired,
        })
    }
}

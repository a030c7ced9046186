//! What a run of skill-eval will do: which questions are asked how, what may run, which figures are made. Each subcommand's plan comes
//! with what it is carried out with; inputs are opened by the runs, which stream them.

use std::path::PathBuf;

use process::{Error, Format, Result, Target};
use records::dataset::InputFormat;
use records::exchange::HubEntry;
use serde::Serialize;

use crate::cli::{
    Bench, BenchFlags, ExecutionFlags, Foreign, PromptsArgs, ReportArgs, ReportFlags, RunArgs, ScoreArgs, Source, Style,
};
use crate::sandbox::{Execution, Limits};

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
    pub fn new(flags: &PromptsArgs) -> Result<(Questions, Target)> {
        let target = flags.output.target(&flags.files);
        Ok((Questions::of(&flags.bench, &flags.files)?, target))
    }

    fn of(flags: &BenchFlags, files: &[PathBuf]) -> Result<Questions> {
        let (styles, shots): (&[Style], _) = match flags.bench {
            Bench::Mmlu => (&[Style::Letters, Style::Cloze, Style::Generate], 5),
            Bench::Gsm8k => (&[Style::Cot, Style::Direct], 8),
            Bench::Bbh => (&[Style::Cot, Style::Direct], 3),
            Bench::Humaneval => (&[Style::Complete], 0),
            Bench::Arc | Bench::Hellaswag | Bench::Truthfulqa => (&[Style::Cloze], 0),
            Bench::Ifeval => (&[Style::Generate], 0),
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
        let takes_shots = matches!(flags.bench, Bench::Mmlu | Bench::Gsm8k | Bench::Bbh);
        if !takes_shots && shots > 0 {
            let cause = format!("{} is asked without examples", flags.bench.name());
            return Err(Error::usage("--shots", cause));
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

/// What scoring is carried out with.
pub struct Answers {
    pub path: PathBuf,
    pub input_format: InputFormat,
    pub source: Source,
    /// The benchmark of rows that name none.
    pub bench: Option<Bench>,
    pub execution: Execution,
    pub keep_going: bool,
    pub target: Target,
}

impl Scoring {
    pub fn new(flags: &ScoreArgs) -> Result<(Scoring, Answers)> {
        if flags.from == Source::LmEval && flags.bench.is_none() {
            return Err(
                Error::usage("--from lm-eval", "the log does not say which benchmark it is")
                    .hint("name it with --bench"),
            );
        }
        let from = match flags.from {
            Source::Records => "records",
            Source::LmEval => "lm-eval",
        };
        let execution = execution(&flags.execution);
        let plan = Scoring {
            from,
            bench: flags.bench.map(Bench::name),
            ..Scoring::of_records(&execution)
        };
        let answers = Answers {
            path: flags.input.clone(),
            input_format: flags.input_format,
            source: flags.from,
            bench: flags.bench,
            execution,
            keep_going: flags.keep_going,
            target: flags.output.target(std::slice::from_ref(&flags.input)),
        };
        Ok((plan, answers))
    }

    fn of_records(execution: &Execution) -> Scoring {
        Scoring {
            command: "score",
            from: "records",
            bench: None,
            allow_code_execution: execution.is_allowed,
            execution: execution.limits,
        }
    }
}

fn execution(flags: &ExecutionFlags) -> Execution {
    Execution {
        is_allowed: flags.allow_code_execution,
        python: flags.python.clone(),
        limits: Limits {
            seconds: flags.time_limit,
            memory_bytes: flags.memory_limit,
        },
    }
}

/// Which figures are made.
#[derive(Serialize)]
pub struct Figures {
    pub command: &'static str,
    pub confidence: f64,
    pub pass_at: Vec<u64>,
    pub paired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Foreign>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hub: Vec<HubEntry>,
}

/// What figures are made from, and where they go.
pub struct Scores {
    pub path: PathBuf,
    pub base: Option<PathBuf>,
    pub keep_going: bool,
    pub format: Format,
    pub target: Target,
}

impl Figures {
    pub fn new(flags: &ReportArgs) -> Result<(Figures, Scores)> {
        let inputs: Vec<PathBuf> = std::iter::once(&flags.input).chain(&flags.vs).cloned().collect();
        let scores = Scores {
            path: flags.input.clone(),
            base: flags.vs.clone(),
            keep_going: flags.keep_going,
            format: flags.report.format.resolve(flags.output.output.as_deref()),
            target: flags.output.target(&inputs),
        };
        Ok((Figures::of(&flags.report, flags.vs.is_some())?, scores))
    }

    fn of(flags: &ReportFlags, paired: bool) -> Result<Figures> {
        if flags.pass_at.contains(&0) {
            return Err(Error::usage("--pass-at", "k is at least 1"));
        }
        if (flags.to == Some(Foreign::EvalResults)) == flags.hub.is_empty() {
            return Err(Error::usage(
                "--hub",
                "names the entries of --to eval-results, and of nothing else",
            ));
        }
        Ok(Figures {
            command: "report",
            confidence: flags.confidence,
            pass_at: flags.pass_at.clone(),
            paired,
            to: flags.to,
            model_name: flags.model_name.clone(),
            hub: flags.hub.clone(),
        })
    }
}

/// The whole pipe.
#[derive(Serialize)]
pub struct Pipeline {
    pub questions: Questions,
    pub scoring: Scoring,
    pub figures: Figures,
}

/// What the pipe is carried out with.
pub struct Parts {
    pub model: PathBuf,
    /// Arguments of lm-gen.
    pub generator: Vec<String>,
    pub execution: Execution,
    pub base: Option<PathBuf>,
    /// None: nothing is kept.
    pub directory: Option<PathBuf>,
    pub format: Format,
}

impl Pipeline {
    pub fn new(flags: &RunArgs) -> Result<(Pipeline, Parts)> {
        let execution = execution(&flags.execution);
        let plan = Pipeline {
            questions: Questions::of(&flags.bench, &flags.files)?,
            scoring: Scoring::of_records(&execution),
            figures: Figures::of(&flags.report, flags.vs.is_some())?,
        };
        let parts = Parts {
            model: flags.model.clone(),
            generator: generator(&flags.generator),
            execution,
            base: flags.vs.clone(),
            directory: flags.output.clone(),
            format: flags.report.format.resolve(None),
        };
        Ok((plan, parts))
    }
}

/// The customary examples are written for a model that continues text. A prompt that does not fit the model's context is an answer that
/// nobody read, not the end of the run.
fn generator(given: &[String]) -> Vec<String> {
    let is_template = |word: &String| {
        ["--raw", "--chat", "--template", "--system"]
            .iter()
            .any(|flag| word.starts_with(flag))
    };
    let mut words = given.to_vec();
    if !words.iter().any(is_template) {
        words.push("--raw".into());
    }
    words.extend(["--resume".into(), "--keep-going".into()]);
    words
}

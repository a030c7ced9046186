//! What a run of refusal-eval will do: judges with the digests of their lists, benchmarks with their columns, thresholds.
//! Reads lists and asks lm-gen for the digests of judge models; opens no completion, loads no model.

use std::path::{Path, PathBuf};

use process::{Common, Error, Result, ResultExt};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::answers::Answer;
use crate::benchmarks::Columns;
use crate::cli::{BenchFlags, JudgeFlags, JudgeName, ReportFlags};
use crate::judge::{External, Flowlens, Judge, ModelJudge, Openings, Phrases, Place, Question, Word};

const PREFIXES: &str = include_str!("../data/prefixes.txt");
const SUBSTRINGS: &str = include_str!("../data/substrings.txt");
const OPENINGS: &str = include_str!("../data/openings.txt");

/// The panel of judges, ready to work.
pub struct Panel {
    pub text: Vec<Judge>,
    models: Vec<ModelJudge>,
    pub external: Vec<External>,
    common: Common,
}

/// A judge in a plan.
#[derive(Serialize, Clone)]
pub struct JudgeEntry {
    pub judge: String,
    pub digest: String,
    /// Digests of the model that is asked.
    #[serde(flatten)]
    pub model: Map<String, Value>,
}

impl JudgeEntry {
    fn new(judge: impl Into<String>, digest: impl Into<String>) -> JudgeEntry {
        JudgeEntry {
            judge: judge.into(),
            digest: digest.into(),
            model: Map::new(),
        }
    }
}

impl Panel {
    pub fn new(flags: &JudgeFlags, common: &Common) -> Result<Panel> {
        let mut panel = Panel {
            text: Vec::new(),
            models: Vec::new(),
            external: Vec::new(),
            common: common.clone(),
        };
        let mut seen = Vec::new();
        for judge in &flags.judges {
            if seen.contains(judge) {
                return Err(Error::usage("--judge", "a judge is named twice"));
            }
            seen.push(*judge);
            match judge {
                JudgeName::Flowlens => panel.text.push(Judge::Flowlens(Box::new(Flowlens::new()))),
                JudgeName::Prefix => {
                    panel
                        .text
                        .push(phrases("prefix", Place::Start, PREFIXES, flags.prefixes.as_deref())?)
                }
                JudgeName::Substring => panel.text.push(phrases(
                    "substring",
                    Place::Anywhere,
                    SUBSTRINGS,
                    flags.substrings.as_deref(),
                )?),
                JudgeName::Wildguard => {
                    let path = model(flags.wildguard_model.as_deref(), "--wildguard-model")?;
                    panel.models.push(ModelJudge::open(path, Question::Wildguard)?);
                }
                JudgeName::Logprob => {
                    let path = model(flags.logprob_model.as_deref(), "--logprob-model")?;
                    let (source, subject) = list(OPENINGS, flags.openings.as_deref(), "openings")?;
                    let question = Question::LogProb {
                        openings: Openings::parse(&source, &subject)?,
                        threshold: flags.logprob_threshold,
                        is_raw: flags.logprob_raw,
                    };
                    panel.models.push(ModelJudge::open(path, question)?);
                }
            }
        }
        for (flag, is_given, judge) in [
            ("--prefixes", flags.prefixes.is_some(), JudgeName::Prefix),
            ("--substrings", flags.substrings.is_some(), JudgeName::Substring),
            (
                "--wildguard-model",
                flags.wildguard_model.is_some(),
                JudgeName::Wildguard,
            ),
            ("--logprob-model", flags.logprob_model.is_some(), JudgeName::Logprob),
            ("--logprob-raw", flags.logprob_raw, JudgeName::Logprob),
            ("--openings", flags.openings.is_some(), JudgeName::Logprob),
        ] {
            if is_given && !seen.contains(&judge) {
                return Err(Error::usage(
                    flag,
                    "the judge that reads it is not asked for with --judge",
                ));
            }
        }
        for (name, path) in &flags.external {
            let external = External::read(name, path)?;
            if panel.external.iter().any(|other| other.name == external.name) {
                return Err(Error::usage("--external", format!("the name {name} is given twice")));
            }
            panel.external.push(external);
        }
        Ok(panel)
    }

    /// Names and digests, in the order in which verdicts are written.
    pub fn entries(&self) -> Vec<JudgeEntry> {
        let text = self
            .text
            .iter()
            .map(|judge| JudgeEntry::new(judge.name(), judge.digest()));
        let models = self.models.iter().map(|judge| JudgeEntry {
            model: judge.identity.clone(),
            ..JudgeEntry::new(judge.name(), judge.digest())
        });
        let external = self
            .external
            .iter()
            .map(|judge| JudgeEntry::new(&judge.name, &judge.digest));
        text.chain(models).chain(external).collect()
    }

    pub fn asks_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// What each judge that asks a model says of each answer.
    pub fn ask<'a>(&self, answers: impl Iterator<Item = &'a Answer>) -> Result<Vec<(&'static str, Vec<Word>)>> {
        if !self.asks_models() {
            return Ok(Vec::new());
        }
        let answers: Vec<&Answer> = answers.collect();
        let ask = |judge: &ModelJudge| {
            let (words, complaint) = judge.words(&answers)?;
            if let Some(complaint) = complaint {
                process::warn(&self.common, &complaint);
            }
            Ok((judge.name(), words))
        };
        self.models.iter().map(ask).collect()
    }
}

fn phrases(name: &'static str, place: Place, built_in: &str, file: Option<&Path>) -> Result<Judge> {
    let (source, subject) = list(built_in, file, name)?;
    Ok(Judge::Phrases(name, Phrases::parse(place, &source, &subject)?))
}

fn list(built_in: &str, file: Option<&Path>, name: &str) -> Result<(String, String)> {
    match file {
        Some(path) => {
            let bytes = std::fs::read(path).at(path.display())?;
            let text = String::from_utf8(bytes).map_err(|_| Error::input(path.display(), "the list is not UTF-8"))?;
            Ok((text, path.display().to_string()))
        }
        None => Ok((built_in.to_string(), name.to_string())),
    }
}

fn model<'p>(path: Option<&'p Path>, flag: &str) -> Result<&'p Path> {
    let path = path.ok_or_else(|| Error::usage(flag, "this judge needs a model directory"))?;
    if !path.join("config.json").is_file() {
        return Err(Error::environment(
            path.display(),
            "no model directory: it holds no config.json",
        ));
    }
    Ok(path)
}

/// The plan of `judge` and of the judging half of `run` and `calibrate`.
#[derive(Serialize)]
pub struct JudgePlan {
    pub command: &'static str,
    pub judges: Vec<JudgeEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    pub map: Vec<(String, String)>,
}

#[derive(Serialize)]
pub struct PromptsPlan {
    pub command: &'static str,
    pub benches: Vec<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A benchmark in a plan.
#[derive(Serialize)]
pub struct Source {
    pub bench: String,
    #[serde(skip)]
    pub path: PathBuf,
    pub columns: Columns,
}

impl PromptsPlan {
    pub fn new(flags: &BenchFlags) -> Result<PromptsPlan> {
        let mut benches: Vec<Source> = Vec::new();
        for (bench, path) in &flags.benches {
            if benches.iter().any(|known| known.bench == *bench) {
                return Err(Error::usage("--bench", format!("{bench} is given twice")));
            }
            benches.push(Source {
                bench: bench.clone(),
                path: path.clone(),
                columns: Columns::of(bench, &flags.map)?,
            });
        }
        Ok(PromptsPlan {
            command: "prompts",
            benches,
            limit: flags.limit,
        })
    }
}

#[derive(Serialize)]
pub struct ReportPlan {
    pub command: &'static str,
    pub confidence: f64,
    pub power: f64,
    pub paired: bool,
    pub fail_over: Vec<(String, f64)>,
}

/// The figures that `--fail-over` may name: those of a benchmark's summary.
pub const FIGURES: [&str; 16] = [
    "false_refusal",
    "false_refusal_low",
    "false_refusal_high",
    "compliance_benign",
    "precision",
    "recall",
    "f1",
    "refusal_rate_any",
    "refusal_rate_any_low",
    "refusal_rate_any_high",
    "refusal_rate_full",
    "refusal_rate_full_low",
    "refusal_rate_full_high",
    "unscored_count",
    "partial_count",
    "refusal_count",
];

impl ReportPlan {
    pub fn new(flags: &ReportFlags, paired: bool) -> Result<ReportPlan> {
        for (name, _) in &flags.fail_over {
            if !FIGURES.contains(&name.as_str()) {
                return Err(
                    Error::usage("--fail-over", format!("{name} is no figure of a benchmark"))
                        .hint(format!("one of {}", FIGURES.join(", "))),
                );
            }
        }
        Ok(ReportPlan {
            command: "report",
            confidence: flags.confidence,
            power: flags.power,
            paired,
            fail_over: flags.fail_over.clone(),
        })
    }
}

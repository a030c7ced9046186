//! One line per run: every number that the page's tables take from its records. A measure that a run lacks stays away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use numerics::statistics::mean;
use process::{Error, Outcome, Result, ResultExt};
use records::{Compare, Eval, Metric, Record, RefusalReport, SkillReport, Stack, Writer};
use serde::{Deserialize, Serialize};

use crate::rows::{self, RefusalPair};
use crate::settings::Settings;

/// Steps at the end of training whose mean stands for the run.
const LAST_STEP_COUNT: usize = 20;

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// Its settings
    #[arg(long, value_name = "FILE")]
    settings: PathBuf,

    /// metrics.jsonl of vcl-train
    #[arg(long, value_name = "FILE")]
    metrics: PathBuf,

    /// Records of flowlens-pca --against
    #[arg(long, value_name = "FILE")]
    geometry: Option<PathBuf>,

    /// Records of refusal-eval report
    #[arg(long, value_name = "FILE")]
    refusals: PathBuf,

    /// Records of skill-eval report
    #[arg(long, value_name = "FILE")]
    skills: Option<PathBuf>,

    /// Records of refusal-eval report --vs the same share and seed without the loss
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "run")]
pub struct Run {
    #[serde(flatten)]
    pub settings: Settings,
    /// The SFT loss, and C_k of the window, over the last steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The last loss on the rows held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_c_k: Option<f64>,
    /// C_4 over all layers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_c_k: Option<f64>,
    /// Of the first component, and of the ID-th, with the model of the least share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment_id: Option<f64>,
    pub benches: BTreeMap<String, Bench>,
    pub skills: BTreeMap<String, Skill>,
}

impl Record for Run {
    const TYPE: &'static str = "run";
}

impl Run {
    /// Mean accuracy over the benchmarks of skill.
    pub fn skill(&self) -> Option<f64> {
        mean(&self.skills.values().map(|skill| skill.accuracy).collect::<Vec<_>>())
    }
}

/// Refusals of one benchmark, by the first judge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_refusal_high: Option<f64>,
    /// Share of refusals, in part or whole, of its safe and of its unsafe prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe: Option<f64>,
    #[serde(rename = "unsafe", skip_serializing_if = "Option::is_none")]
    pub harmful: Option<f64>,
    /// Share of its safe prompts that got an answer which is none: neither refused nor complied with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonsense: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// Of false refusals, prompt by prompt, against the same share and seed without the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_high: Option<f64>,
    pub mcnemar_p: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skill {
    pub extractor: String,
    pub accuracy: f64,
    pub count: u64,
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let metrics: Vec<Metric> = rows::read(&flags.metrics)?;
    let last = &metrics[metrics.len().saturating_sub(LAST_STEP_COUNT)..];
    let mean_of = |measure: fn(&Metric) -> Option<f64>| mean(&last.iter().filter_map(measure).collect::<Vec<_>>());
    let geometry = flags.geometry.as_deref();
    let compares: Vec<Compare> = geometry.map(rows::read).transpose()?.unwrap_or_default();
    let of_stack = |row: &&Compare| row.layer_index.is_none();
    let first = compares.iter().filter(of_stack).find(|row| row.component == "1");
    let run = Run {
        settings: settings(&flags.settings)?,
        loss: mean_of(|step| Some(step.loss)),
        held_out_loss: rows::read::<Eval>(&flags.metrics)?.last().map(|row| row.eval_loss),
        window_c_k: mean_of(|step| step.aux.get("vcl")?.get("c_k")?.as_f64()),
        stack_c_k: geometry.map(stack_c_k).transpose()?.flatten(),
        alignment: first.and_then(|row| row.alignment),
        alignment_id: compares.iter().find(of_stack).and_then(|row| row.alignment_id),
        benches: benches(&flags.refusals, flags.pairs.as_deref())?,
        skills: flags.skills.as_deref().map(skills).transpose()?.unwrap_or_default(),
    };
    let mut writer = Writer::new(process::stdout());
    writer.row(&run).at("stdout")?;
    writer.into_output().at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

fn settings(path: &Path) -> Result<Settings> {
    let text = fs::read_to_string(path).at(path.display())?;
    serde_json::from_str(&text).map_err(|cause| Error::input(path.display(), cause))
}

fn stack_c_k(geometry: &Path) -> Result<Option<f64>> {
    let stacks: Vec<Stack> = rows::read(geometry)?;
    let whole = stacks.iter().find(|row| row.geometry.group.is_empty());
    Ok(whole.and_then(|row| row.geometry.c_k.get("4").copied()))
}

fn benches(refusals: &Path, pairs: Option<&Path>) -> Result<BTreeMap<String, Bench>> {
    let mut benches = BTreeMap::<String, Bench>::new();
    let mut judges = BTreeMap::<String, String>::new();
    for row in rows::read::<RefusalReport>(refusals)? {
        let judge = judges.entry(row.bench.clone()).or_insert_with(|| row.judge.clone());
        if row.kind != "all" || row.judge != *judge {
            continue;
        }
        let bench = benches.entry(row.bench).or_default();
        match row.label.as_str() {
            "safe" => {
                bench.safe = row.refusal_rate_any;
                bench.nonsense = row.nonsense_rate;
            }
            "unsafe" => bench.harmful = row.refusal_rate_any,
            "all" => {
                let whole = row.summary.as_ref();
                bench.false_refusal = whole.and_then(|whole| whole.false_refusal);
                bench.false_refusal_low = whole.and_then(|whole| whole.false_refusal_low);
                bench.false_refusal_high = whole.and_then(|whole| whole.false_refusal_high);
            }
            _ => {}
        }
    }
    let Some(pairs) = pairs else { return Ok(benches) };
    for row in rows::read::<RefusalPair>(pairs)? {
        if row.label == "safe" && judges.get(&row.bench) == Some(&row.judge) {
            benches.entry(row.bench).or_default().change = Some(Change {
                delta: row.delta,
                delta_low: row.delta_low,
                delta_high: row.delta_high,
                mcnemar_p: row.mcnemar_p,
            });
        }
    }
    Ok(benches)
}

/// Whole benchmarks, by the extractor whose rows come first (`block`, `flexible`, `loglikelihood`): the same in every run.
fn skills(path: &Path) -> Result<BTreeMap<String, Skill>> {
    let mut skills = BTreeMap::new();
    for row in rows::read::<SkillReport>(path)? {
        if row.task.is_empty() && row.subject.is_empty() {
            skills.entry(row.bench).or_insert(Skill {
                extractor: row.extractor,
                accuracy: row.accuracy_all,
                count: row.count,
            });
        }
    }
    Ok(skills)
}

//! `pseudo-label`: verdicts, answers and some people's labels in; labels of what judges dispute out, with what they are worth.

use std::collections::HashMap;
use std::io::Write;

use indexmap::IndexMap;
use process::{Common, Error, Format, Outcome, Result, ResultExt};
use records::{Class, JoinKey, Status, Writer};

use super::begin;
use crate::answers::{Answers, Text};
use crate::correction::Labels;
use crate::plan::pseudo_label::{Opened, Plan};
use crate::report::{Coverage, PseudoLabel, SelfTraining};
use crate::self_training::{Example, Training, Vocabulary};
use crate::strata::{self, Item};
use crate::table;
use crate::verdicts::Verdicts;

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let verdicts = Verdicts::read(&opened.verdicts, false)?;
    let items = strata::items(&verdicts.rows);
    let answers = Answers::open(&opened.answers, opened.reading.clone())?.by_key()?;
    let said = |key: &JoinKey| match answers.get(key).map(|answer| &answer.completion) {
        Some(Text::Said(said)) => Ok(Some(said.as_str())),
        Some(Text::Failed(_)) => Ok(None),
        None => {
            let cause = format!("no answer to id {} of bench {:?}, which was judged", key.id, key.bench);
            Err(Error::input(opened.answers.display(), cause))
        }
    };
    let mut vocabulary = Vocabulary::default();
    let (mut judged, mut examples) = (Vec::new(), Vec::new());
    let weights = weights(&items, &opened.labels);
    for (key, item) in items.iter().filter(|(_, item)| may_be_either(item)) {
        let Some(said) = said(key)? else { continue };
        examples.push(Example {
            features: vocabulary.features(said),
            seed: (!item.is_disputed()).then(|| side(item.first().verdict)).flatten(),
            human: opened.labels.of(key).and_then(side),
            weight: weights.get(&item.stratum()).copied().unwrap_or(1.0),
        });
        judged.push(item);
    }
    let training = Training::new(&examples, vocabulary.len(), plan.margin)?;
    let rounds: Vec<SelfTraining> = training
        .rounds
        .iter()
        .map(|round| SelfTraining::new(round, &examples))
        .collect();
    let curve = training.curve(&examples, plan.margin);
    let coverages: Vec<Coverage> = curve
        .iter()
        .map(|point| Coverage {
            chosen: point.margin == plan.margin,
            // Of labels drawn stratum by stratum, the interval is not Wilson's.
            ..Coverage::new(point, (!opened.labels.is_stratified()).then_some(plan.confidence))
        })
        .collect();
    let labelled = judged.iter().zip(&training.labels);
    let labels: Vec<PseudoLabel> = labelled
        .filter_map(|(item, label)| Some(PseudoLabel::new(item.first(), label.as_ref()?)))
        .collect();
    write(plan, opened, &rounds, &coverages, &labels)
}

fn write(
    plan: &Plan,
    opened: Opened,
    rounds: &[SelfTraining],
    coverages: &[Coverage],
    labels: &[PseudoLabel],
) -> Result<Outcome> {
    let mut target = opened.target.open()?;
    match opened.format {
        Format::Table => {
            target
                .write_all(table::self_training(rounds, coverages).as_bytes())
                .at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(plan)?, &()).at("output")?;
            for row in rounds {
                writer.row(row).at("output")?;
            }
            for row in coverages {
                writer.row(row).at("output")?;
            }
            for row in labels {
                writer.row(row).at("output")?;
            }
            writer.end(Status::Complete, &()).at("output")?.commit()?;
        }
    }
    Ok(Outcome::Complete)
}

/// Whether an answer is refused; nothing of one that is nonsense or unscored.
fn side(class: Class) -> Option<bool> {
    match class {
        Class::Refusal | Class::Partial => Some(true),
        Class::Compliance => Some(false),
        Class::Nonsense | Class::Unscored => None,
    }
}

/// What all judges call nonsense, or leave unscored, is on no side.
fn may_be_either(item: &Item) -> bool {
    item.verdicts.iter().any(|verdict| side(verdict.verdict).is_some())
}

/// How many answers each label stands for, by stratum; nothing of labels drawn from all alike.
fn weights(items: &IndexMap<JoinKey, Item>, labels: &Labels) -> HashMap<String, f64> {
    if !labels.is_stratified() {
        return HashMap::new();
    }
    let mut counts: HashMap<String, (f64, f64)> = HashMap::new();
    for (key, item) in items {
        let (all, labelled) = counts.entry(item.stratum()).or_default();
        *all += 1.0;
        *labelled += f64::from(u8::from(labels.of(key).is_some()));
    }
    let weight = |(stratum, (all, labelled)): (String, (f64, f64))| (stratum, all / f64::max(labelled, 1.0));
    counts.into_iter().map(weight).collect()
}

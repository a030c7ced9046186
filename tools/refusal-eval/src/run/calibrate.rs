//! `calibrate`: judges against human labels.

use std::collections::HashMap;
use std::io::Write;

use indexmap::{IndexMap, IndexSet};
use process::{Common, Error, Format, Outcome, Result, ResultExt};
use records::{Class, Status, Verdict, Writer};

use super::begin;
use crate::answers::Answer;
use crate::judge::{Bench, Panel};
use crate::labels::Labelled;
use crate::plan::calibrate::{Opened, Plan};
use crate::reliability::Reliability;
use crate::report::Calibration;
use crate::table;
use crate::tally::{self, Confusion};
use crate::verdicts::Verdicts;

/// What each judge says where a human said something.
type Measures = IndexMap<String, Measure>;

#[derive(Default)]
struct Measure {
    confusion: Confusion,
    reliability: Reliability,
}

impl Measure {
    fn add(&mut self, human: Class, judge: Class, confidence: Option<f64>) {
        self.confusion.add(human, judge);
        if let Some(confidence) = confidence {
            self.reliability.add(confidence, tally::agree(human, judge));
        }
    }
}

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let mut rows = Vec::new();
    for path in &opened.labels {
        let labelled = Labelled::read(path)?;
        let mut measures = match &opened.verdicts {
            Some(verdicts) => measure_verdicts(&labelled, &Verdicts::read(verdicts, false)?.rows)?,
            None => measure_panel(&labelled, &opened.panel)?,
        };
        if labelled.annotators.count() > 0 {
            let annotators = Measure {
                confusion: labelled.annotators,
                ..Measure::default()
            };
            measures.insert("annotators".into(), annotators);
        }
        let row = |(judge, measure): (&String, &Measure)| Calibration {
            reliability: measure.reliability.levels(),
            calibration_error: measure.reliability.error(),
            ..Calibration::new(judge, &labelled.source, &measure.confusion, plan.confidence)
        };
        rows.extend(measures.iter().map(row));
    }
    write(plan, &opened, &rows)?;
    Ok(Outcome::Complete)
}

fn write(plan: &Plan, opened: &Opened, rows: &[Calibration]) -> Result<()> {
    let mut target = opened.target.open()?;
    match opened.format {
        Format::Table => {
            target.write_all(table::calibrations(rows).as_bytes()).at("output")?;
            target.commit()
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(plan)?, &()).at("output")?;
            for row in rows {
                writer.row(row).at("output")?;
            }
            writer.end(Status::Complete, &()).at("output")?.commit()
        }
    }
}

/// Judges what the humans judged.
fn measure_panel(labelled: &Labelled, panel: &Panel) -> Result<Measures> {
    let answers: Vec<&Answer> = labelled.answers.iter().map(|(answer, _)| answer).collect();
    let mut bench = Bench::new(&panel.text);
    let mut measures: Measures = panel
        .names()
        .into_iter()
        .map(|name| (name, Measure::default()))
        .collect();
    for ((answer, human), asked) in labelled.answers.iter().zip(panel.ask(&answers)?) {
        let words = panel.complete(answer, bench.words(answer), asked)?;
        for (measure, word) in measures.values_mut().zip(words) {
            measure.add(*human, word.class, word.confidence);
        }
    }
    Ok(measures)
}

/// Compares given verdicts; a label without a verdict is unscored. Archives of labels name no benchmark, so ids are compared alone.
fn measure_verdicts(labelled: &Labelled, verdicts: &[Verdict]) -> Result<Measures> {
    let judges: IndexSet<&str> = verdicts.iter().map(|verdict| verdict.judge.as_str()).collect();
    let mut by_id: HashMap<(&str, &str, u64), &Verdict> = HashMap::new();
    for verdict in verdicts {
        let key = (verdict.judge.as_str(), verdict.id.as_str(), verdict.attempt_index);
        if by_id.insert(key, verdict).is_some() {
            return Err(Error::input(
                "--verdicts",
                format!("id {} stands for several benchmarks", verdict.id),
            ));
        }
    }
    let measure = |judge: &str| {
        let mut measure = Measure::default();
        for (answer, human) in &labelled.answers {
            let verdict = by_id.get(&(judge, answer.id.as_str(), answer.attempt_index));
            let class = verdict.map_or(Class::Unscored, |verdict| verdict.verdict);
            measure.add(*human, class, verdict.and_then(|verdict| verdict.confidence));
        }
        measure
    };
    Ok(judges
        .into_iter()
        .map(|judge| (judge.to_string(), measure(judge)))
        .collect())
}

//! `calibrate`: judges against human labels.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use process::{Error, Format, Outcome, Result, ResultExt};
use records::{Class, Status, Verdict, Writer};

use super::begin;
use super::report::read_verdicts;
use crate::answers::{Answer, Answers, Entry, Reading, Text};
use crate::benchmarks;
use crate::cli::{Args, CalibrateArgs};
use crate::judge::{Bench, class_word};
use crate::plan::{JudgePlan, Panel};
use crate::report::Calibration;
use crate::table;
use crate::tally::Confusion;

/// The human labels of one file, with what was labelled.
struct Labelled {
    source: String,
    answers: Vec<(Answer, Class)>,
    annotators: Confusion,
}

fn read_labelled(path: &Path) -> Result<Labelled> {
    let source = path.file_stem().map_or_else(
        || path.display().to_string(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let mut answers = Answers::open(
        path,
        Reading {
            bench: None,
            ..Reading::default()
        },
    )?;
    let subject = answers.subject().to_string();
    let mut labelled = Labelled {
        source,
        answers: Vec::new(),
        annotators: Confusion::default(),
    };
    while let Some(entry) = answers.next_entry()? {
        let Entry::Answer(answer, row) = entry else { continue };
        let human = |column: &str| {
            benchmarks::text_of(&row, column)
                .map(|said| class_word(&said).filter(|class| *class != Class::Unscored).ok_or(said))
        };
        let refuse = |column: &str, said: String| {
            Error::input(
                &subject,
                format!(
                    "{}: {column} is {said:?}, which is no class",
                    crate::answers::place(&row)
                ),
            )
        };
        let label = match human("final_label") {
            Some(Ok(class)) => class,
            Some(Err(said)) => return Err(refuse("final_label", said)),
            None => {
                return Err(Error::input(
                    &subject,
                    format!("{}: no final_label", crate::answers::place(&row)),
                ));
            }
        };
        if let (Some(Ok(first)), Some(Ok(second))) = (human("annotation_1"), human("annotation_2")) {
            labelled.annotators.add(first, second);
        }
        labelled.answers.push((answer, label));
    }
    if labelled.answers.is_empty() {
        return Err(Error::input(&subject, "no labelled completion in it"));
    }
    Ok(labelled)
}

pub fn run(args: &Args, flags: &CalibrateArgs) -> Result<Outcome> {
    let panel = Panel::new(&flags.judges, &args.common)?;
    let plan = JudgePlan {
        command: "calibrate",
        judges: panel.entries(),
        bench: None,
        map: Vec::new(),
    };
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if flags.verdicts.is_some() && flags.inputs.len() != 1 {
        return Err(Error::usage("--verdicts", "belong to one file of labels"));
    }
    let mut rows = Vec::new();
    for path in &flags.inputs {
        let labelled = read_labelled(path)?;
        let confusions = match &flags.verdicts {
            Some(verdicts) => confusions_of(&labelled, &read_verdicts(verdicts, false)?.rows)?,
            None => confusions_by(&labelled, &panel)?,
        };
        for (judge, confusion) in &confusions {
            rows.push(Calibration::new(judge, &labelled.source, confusion, flags.confidence));
        }
        if labelled.annotators.count() > 0 {
            rows.push(Calibration::new(
                "annotators",
                &labelled.source,
                &labelled.annotators,
                flags.confidence,
            ));
        }
    }
    let mut target = flags.output.open(&flags.inputs)?;
    match flags.format.resolve(flags.output.output.as_deref()) {
        Format::Table => {
            target.write_all(table::calibrations(&rows).as_bytes()).at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(&plan)?, &()).at("output")?;
            for row in &rows {
                writer.row(row).at("output")?;
            }
            writer.end(Status::Complete, &()).at("output")?.commit()?;
        }
    }
    Ok(Outcome::Complete)
}

/// Judges what the humans judged.
fn confusions_by(labelled: &Labelled, panel: &Panel) -> Result<Vec<(String, Confusion)>> {
    let mut confusions: Vec<(String, Confusion)> = panel
        .entries()
        .into_iter()
        .map(|entry| (entry.judge, Confusion::default()))
        .collect();
    let mut bench = Bench::new(&panel.text);
    let asked = panel.ask(labelled.answers.iter().map(|(answer, _)| answer))?;
    for (index, (answer, human)) in labelled.answers.iter().enumerate() {
        let mut classes = Vec::with_capacity(confusions.len());
        match &answer.completion {
            Text::Said(completion) => bench.judge(completion, |_, finding| classes.push(finding.class)),
            Text::Failed(_) => classes.extend(panel.text.iter().map(|_| Class::Unscored)),
        }
        classes.extend(asked.iter().map(|(_, words)| words[index].class));
        for external in &panel.external {
            classes.push(external.word(answer)?.class);
        }
        for ((_, confusion), class) in confusions.iter_mut().zip(classes) {
            confusion.add(*human, class);
        }
    }
    Ok(confusions)
}

/// Compares given verdicts; a label without a verdict is unscored.
fn confusions_of(labelled: &Labelled, verdicts: &[Verdict]) -> Result<Vec<(String, Confusion)>> {
    let mut judges: Vec<&str> = Vec::new();
    for verdict in verdicts {
        if !judges.contains(&verdict.judge.as_str()) {
            judges.push(&verdict.judge);
        }
    }
    // Archives of labels name no benchmark; ids are compared alone where they are unique.
    let mut by_id: HashMap<(&str, &str, u64), Class> = HashMap::new();
    for verdict in verdicts {
        if by_id
            .insert((&verdict.judge, &verdict.id, verdict.attempt_index), verdict.verdict)
            .is_some()
        {
            return Err(Error::input(
                "--verdicts",
                format!("id {} stands for several benchmarks", verdict.id),
            ));
        }
    }
    Ok(judges
        .into_iter()
        .map(|judge| {
            let mut confusion = Confusion::default();
            for (answer, human) in &labelled.answers {
                let class = by_id
                    .get(&(judge, answer.id.as_str(), answer.attempt_index))
                    .copied()
                    .unwrap_or(Class::Unscored);
                confusion.add(*human, class);
            }
            (judge.to_string(), confusion)
        })
        .collect())
}

//! `report`: scores in, accuracies out.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use process::{Common, Error, Format, Outcome, Output, Result, ResultExt};
use records::{Reader, Score, Status, Writer};

use super::begin;
use crate::cli::{Foreign, ReportArgs};
use crate::plan::Figures;
use crate::report::SkillReport;
use crate::{exchange, table, tally};

/// The scores of a file.
pub fn read_scores(path: &Path, accept_partial: bool) -> Result<(Vec<Score>, Status)> {
    let subject = process::input_name(path);
    let mut reader = Reader::new(process::open_input(path)?).accept_partial(accept_partial);
    let mut scores: Vec<Score> = Vec::new();
    let mut seen = HashSet::new();
    while let Some(score) = reader.next_record::<Score>().at(&subject)? {
        if !seen.insert((score.key(), score.extractor.clone())) {
            return Err(Error::input(
                &subject,
                format!(
                    "two scores of extractor {} for id {} of bench {:?}",
                    score.extractor, score.id, score.bench
                ),
            ));
        }
        scores.push(score);
    }
    if scores.is_empty() {
        return Err(Error::input(&subject, "no score in it"));
    }
    Ok((scores, reader.status()))
}

pub fn run(flags: &ReportArgs, common: &Common) -> Result<Outcome> {
    let (figures, opened) = Figures::new(flags)?;
    if common.plan {
        return process::plan::print(&figures);
    }
    let (scores, status) = read_scores(&opened.path, opened.keep_going)?;
    let base = opened
        .base
        .as_deref()
        .map(|path| read_scores(path, opened.keep_going))
        .transpose()?;
    let is_partial = status.is_partial() || base.as_ref().is_some_and(|(_, status)| status.is_partial());
    write_report(
        opened.target.open()?,
        &figures,
        Form::of(&figures, opened.format),
        &scores,
        base.as_ref().map(|(scores, _)| scores.as_slice()),
        Status::partial_if(is_partial),
    )
}

/// How a report is written.
pub enum Form {
    Ours(Format),
    Foreign(Foreign),
}

impl Form {
    /// As the call wants it.
    pub fn of(figures: &Figures, format: Format) -> Form {
        figures.to.map_or(Form::Ours(format), Form::Foreign)
    }
}

/// Pairs, counts and writes.
pub fn write_report(
    mut target: Output,
    figures: &Figures,
    form: Form,
    scores: &[Score],
    base: Option<&[Score]>,
    status: Status,
) -> Result<Outcome> {
    if let Some(base) = base {
        check_same_questions(scores, base)?;
    }
    let reports = tally::reports(scores, base, figures);
    match form {
        Form::Foreign(foreign) => write_for_others(target, figures, foreign, &reports)?,
        Form::Ours(Format::Table) => {
            target.write_all(table::reports(&reports).as_bytes()).at("output")?;
            target.commit()?;
        }
        Form::Ours(Format::Jsonl) => {
            let mut writer = Writer::new(target);
            writer
                .begin(&begin(&process::plan::digest(figures)?), &())
                .at("output")?;
            for report in &reports {
                writer.row(report).at("output")?;
            }
            writer.end(status, &()).at("output")?.commit()?;
        }
    }
    Ok(Outcome::partial_if(status.is_partial()))
}

fn write_for_others(mut target: Output, figures: &Figures, foreign: Foreign, reports: &[SkillReport]) -> Result<()> {
    let results = exchange::results(reports, figures.model_name.as_deref());
    let text = match foreign {
        Foreign::LmEval => format!("{:#}\n", results.to_lm_eval()),
        Foreign::EvalResults => {
            let entries = results.to_eval_results(&figures.hub);
            entries.map_err(|cause| Error::input("--hub", cause))?
        }
    };
    target.write_all(text.as_bytes()).at("output")?;
    target.commit()
}

/// Equal keys must stand for equal questions, and some must be shared.
fn check_same_questions(scores: &[Score], base: &[Score]) -> Result<()> {
    let base: HashMap<_, _> = base
        .iter()
        .map(|score| (score.key(), score.text_digest.as_deref()))
        .collect();
    let mut shared_count = 0_u64;
    for score in scores {
        match (base.get(&score.key()), score.text_digest.as_deref()) {
            (Some(Some(other)), Some(own)) if *other != own => {
                return Err(Error::input(
                    "--vs",
                    format!(
                        "id {} of bench {:?} was another prompt there (text_digest differs)",
                        score.id, score.bench
                    ),
                ));
            }
            (Some(_), _) => shared_count += 1,
            (None, _) => {}
        }
    }
    if shared_count == 0 {
        return Err(Error::input("--vs", "no question is in both"));
    }
    Ok(())
}

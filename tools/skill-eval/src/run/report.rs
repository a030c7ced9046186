//! `report`: scores in, accuracies out.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use process::{Error, Format, Outcome, Output, Result, ResultExt};
use records::{Reader, Score, Status, Writer};

use super::begin;
use crate::cli::{Args, ReportArgs};
use crate::plan::Figures;
use crate::{table, tally};

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

pub fn run(args: &Args, flags: &ReportArgs) -> Result<Outcome> {
    let figures = Figures::new(&flags.report, flags.vs.is_some())?;
    if args.common.plan {
        return process::plan::print(&figures);
    }
    let (scores, status) = read_scores(&flags.input, flags.keep_going)?;
    let base = flags
        .vs
        .as_deref()
        .map(|path| read_scores(path, flags.keep_going))
        .transpose()?;
    let status = base.as_ref().map_or(
        status,
        |(_, base)| if *base == Status::Partial { *base } else { status },
    );
    let mut inputs = vec![flags.input.clone()];
    inputs.extend(flags.vs.clone());
    let target = flags.output.open(&inputs)?;
    write_report(
        target,
        &figures,
        flags.report.format.resolve(flags.output.output.as_deref()),
        &scores,
        base.as_ref().map(|(scores, _)| scores.as_slice()),
        status,
    )
}

/// Pairs, counts and writes.
pub fn write_report(
    mut target: Output,
    figures: &Figures,
    format: Format,
    scores: &[Score],
    base: Option<&[Score]>,
    status: Status,
) -> Result<Outcome> {
    if let Some(base) = base {
        check_same_questions(scores, base)?;
    }
    let reports = tally::reports(scores, base, figures);
    match format {
        Format::Table => {
            target.write_all(table::reports(&reports).as_bytes()).at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
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

//! The run: a study for each criterion, then its rows and, where one is asked for, its plan.

use std::path::Path;

use acts::Header;
use process::{Common, Error, Existing, Outcome, Output, Progress, Result, ResultExt};
use records::{Begin, Ppl, Sparsity, Status, Writer};
use steering::Made;

use crate::cli::Args;
use crate::criterion::Criterion;
use crate::level::{Cut, Level};
use crate::matrix::Origin;
use crate::perplexity::Scoring;
use crate::plan::{Opened, Plan, Search, site_names};
use crate::report::{Curve, Told};
use crate::search::{Tried, search};
use crate::study::Study;

/// All that is written, but for the plan.
#[derive(Default)]
struct Rows {
    sparsity: Vec<Sparsity>,
    ppl: Vec<Ppl>,
    /// Something asked for has no answer.
    is_partial: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let target = &opened.target;
    let existing = Existing::from_flags(target.is_forced, false);
    if let Some(path) = &target.path {
        process::check_target(path, existing, &target.inputs)?;
    }
    let mut rows = Rows::default();
    let mut leaves_out = None;
    for criterion in &opened.criteria {
        let origin = Origin {
            checkpoint: &opened.checkpoint,
            dump: &opened.dump,
        };
        let study = Study::new(origin, *criterion, &opened.points, args.alpha)?.allocate(args.allocation)?;
        let cuts = match (&plan.search, &opened.scoring) {
            (Some(asked), Some(scoring)) => searched(&study, &opened, (asked, scoring), &args.common, &mut rows)?,
            _ => measured(&study, &opened, &mut rows)?,
        };
        if target.path.is_some() {
            leaves_out = cuts.map(|cuts| made(&study, &opened, &cuts));
        }
    }
    if let (Some(path), Some(leaves_out)) = (&target.path, leaves_out) {
        let output = Output::create_binary(path, existing, &target.inputs)?;
        leaves_out.write(output, header(&plan)?)?.commit()?;
    }
    if target.path.as_deref() != Some(Path::new("-")) {
        write(&plan, &rows, target.path.is_some())?;
    }
    Ok(Outcome::partial_if(rows.is_partial))
}

/// The losses at every level; the last level's cuts come back.
fn measured(study: &Study<'_>, opened: &Opened, rows: &mut Rows) -> Result<Option<Vec<Cut>>> {
    let levels = match study.criterion {
        // It takes none: once is enough.
        Criterion::Zero => &opened.levels[..1],
        _ => opened.levels.as_slice(),
    };
    let mut cuts = levels
        .iter()
        .map(|level| study.cuts(*level))
        .collect::<Result<Vec<_>>>()?;
    let losses = study.losses(&cuts)?;
    let told = Told {
        criterion: study.criterion,
        layer_count: opened.checkpoint.config().layer_count(),
    };
    for ((level, cuts), losses) in levels.iter().zip(&cuts).zip(losses) {
        for ((point, cut), loss) in study.points.iter().zip(cuts).zip(losses) {
            let row_count = opened.dump.row_count(*point)?;
            rows.sparsity
                .push(told.sparsity(*point, *level, *cut, (loss, row_count)));
        }
    }
    Ok(cuts.pop())
}

/// Searches the levels that perplexity allows; the cuts of the last bound come back, if it has any.
fn searched(
    study: &Study<'_>,
    opened: &Opened,
    (asked, scoring): (&Search, &Scoring),
    common: &Common,
    rows: &mut Rows,
) -> Result<Option<Vec<Cut>>> {
    let level: fn(f64) -> Level = match study.criterion {
        Criterion::Cett => Level::Cett,
        _ => Level::Share,
    };
    let sites = site_names(&study.points);
    let progress = Progress::start(common, &study.criterion.name(), None, "levels");
    let curve = Curve {
        sites: &sites,
        criterion: study.criterion,
        level_kind: level(0.0).key(),
        perplexity_dense: scoring.perplexity(None)?,
    };
    let (tried, found) = search(curve.perplexity_dense, &asked.percents, asked.resolution, |number| {
        let cuts = study.cuts(level(number))?;
        progress.advance(1);
        Ok(Tried {
            level: number,
            sparsity: study.sparsity(&cuts),
            perplexity: perplexity(study, opened, scoring, &cuts)?,
        })
    })?;
    progress.finish();
    rows.ppl.extend(tried.into_iter().map(|tried| curve.tried(tried)));
    let answers: Vec<Option<Ppl>> = found.iter().map(|found| curve.found(found)).collect();
    rows.is_partial |= answers.contains(&None);
    rows.ppl.extend(answers.into_iter().flatten());
    let last = found.last().and_then(|found| found.within);
    last.map(|within| study.cuts(level(within.level))).transpose()
}

/// The model's perplexity under these cuts.
fn perplexity(study: &Study<'_>, opened: &Opened, scoring: &Scoring, cuts: &[Cut]) -> Result<f64> {
    let directory = tempfile::tempdir().at("a temporary directory")?;
    let path = directory.path().join("tried.acts");
    let output = Output::create_binary(&path, Existing::Refuse, &[])?;
    let header = Header::new(process::tool_name(), process::VERSION, "", None);
    made(study, opened, cuts).write(output, header)?.commit()?;
    scoring.perplexity(Some(&path))
}

fn made(study: &Study<'_>, opened: &Opened, cuts: &[Cut]) -> steering::Plan {
    steering::Plan {
        made: Made::of(&opened.checkpoint),
        operations: study.operations(cuts),
    }
}

fn header(plan: &Plan) -> Result<Header> {
    let digest = process::plan::digest(plan)?;
    let mut header = Header::new(process::tool_name(), process::VERSION, &digest, None);
    let text = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
    header.meta.insert("plan".into(), text);
    Ok(header)
}

/// Beside a file, losing the reader of stdout stops the records alone.
fn write(plan: &Plan, rows: &Rows, beside_file: bool) -> Result<()> {
    let stdout = Output::create(Path::new("-"), Existing::Refuse, &[])?;
    let stdout = match beside_file {
        true => stdout.tolerant(),
        false => stdout,
    };
    let mut writer = Writer::new(stdout);
    let begin = Begin::new(plan.tool, plan.version).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &()).at("stdout")?;
    rows.sparsity.iter().try_for_each(|row| writer.row(row)).at("stdout")?;
    rows.ppl.iter().try_for_each(|row| writer.row(row)).at("stdout")?;
    writer
        .end(Status::partial_if(rows.is_partial), &())
        .at("stdout")?
        .commit()
}

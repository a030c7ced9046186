//! The run: outputs are opened and committed here alone. Fit, look at the rows again where that is needed, compare, save, report.

use crate::basis::Basis;
use crate::cli::{Args, Center, OnNonfinite};
use crate::compare::{self, Side};
use crate::container;
use crate::fit::{COMPONENT_COUNT, Fit, RESAMPLED_COMPONENT_COUNT};
use crate::plan::{Components, Opened, Plan, Products, Reference};
use crate::report::{self, End, Report};
use crate::rows::Rows;
use crate::source::Source;
use crate::spread::Spreads;
use crate::trajectory::{self, Axes};
use crate::{stability, table};
use process::{Common, Error, Format, Outcome, Output, Progress, Result, ResultExt};
use records::{Begin, Status};
use std::io::Write;

pub fn run(args: Args) -> Result<Outcome> {
    let (plan, mut opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let mut dropped = check_finite(&plan, &mut opened.source)?;
    if let Some(Reference::Dump(other)) = &mut opened.reference {
        dropped += check_finite(&plan, other)?;
    }
    let mut end = End {
        input_digest: plan.input_digest.clone(),
        dropped_row_count: (plan.on_nonfinite == OnNonfinite::Drop).then_some(dropped),
        dropped_dims: None,
    };
    let report = match (&opened.reference, plan.stability) {
        (Some(Reference::Dump(second)), true) => {
            let (stabilities, profile) = stability::run(&plan, &opened.source, second)?;
            Report {
                stabilities,
                profile: Some(profile),
                ..Report::default()
            }
        }
        _ => analyse(&args.common, &plan, &opened, &mut end)?,
    };
    write(&plan, &opened.products, &report, &end)?;
    Ok(Outcome::Complete)
}

fn analyse(common: &Common, plan: &Plan, opened: &Opened, end: &mut End) -> Result<Report> {
    let (source, reference) = (&opened.source, opened.reference.as_ref());
    let component_count = component_count(plan, source, reference);
    let sides = 1 + usize::from(matches!(reference, Some(Reference::Dump(_))));
    let total = (sides * source.layers.len()) as u64;
    let progress = Progress::start(common, "layers", Some(total), "layer");
    let fit = Fit::new(plan, source, component_count, &progress)?;
    if let Some(columns) = &fit.columns {
        let width = source.layers[0].width;
        end.dropped_dims = Some((0..width).filter(|dim| !columns.contains(dim)).collect());
    }
    let spreads = Spreads::new(plan, source, &fit)?;
    let component_id = report::component_id(plan, &spreads);
    let mut report = Report::geometry(plan, source, &fit, &spreads, component_id);
    report.trajectories = trajectory::all(plan, source, &fit, &Axes::own(plan, &fit, component_id))?;
    match reference {
        Some(Reference::Basis(basis)) => {
            report.compares = compare::with_basis(plan, source, &fit, basis, component_id)?;
            if let Some(axes) = reference_axes(plan, source, &fit, basis)? {
                report
                    .trajectories
                    .extend(trajectory::all(plan, source, &fit, &axes.axes(&fit))?);
            }
        }
        Some(Reference::Dump(other)) => {
            let other_fit = Fit::with_columns(plan, other, component_count, fit.columns.clone(), &progress)?;
            let sides = (
                Side { source, fit: &fit },
                Side {
                    source: other,
                    fit: &other_fit,
                },
            );
            report.compares = compare::with_dump(plan, &sides.0, &sides.1, component_id)?;
            let mut axes = Axes::own(plan, &other_fit, component_id);
            axes.basis = "reference";
            report.trajectories.extend(trajectory::all(plan, source, &fit, &axes)?);
        }
        None => {}
    }
    progress.finish();
    report.doubts().iter().for_each(|doubt| process::warn(common, doubt));
    save(plan, opened, &fit, component_id)?;
    Ok(report)
}

/// The containers that were asked for.
fn save(plan: &Plan, opened: &Opened, fit: &Fit, component_id: Option<usize>) -> Result<()> {
    let (source, products) = (&opened.source, &opened.products);
    let create = |path| Output::create_binary(path, products.existing, &products.inputs);
    if let Some(path) = &products.basis {
        container::write_basis(create(path)?, plan, source, fit, component_id)?.commit()?;
    }
    if let Some(path) = &products.direction {
        container::write_directions(create(path)?, plan, source, fit)?.commit()?;
    }
    Ok(())
}

/// Components to keep: what was asked for; enough for intervals where rows will be resampled; else the leading eight.
fn component_count(plan: &Plan, source: &Source, reference: Option<&Reference>) -> usize {
    match (plan.components, reference) {
        (Components::Leading(count), _) => count,
        (Components::Id, Some(Reference::Dump(other)))
            if plan.resamples > 0 && source.has_rows() && other.has_rows() =>
        {
            RESAMPLED_COMPONENT_COUNT
        }
        _ => COMPONENT_COUNT,
    }
}

/// A saved basis in the kept dimensions.
struct SavedAxes {
    mean: Option<Vec<f64>>,
    components: Vec<Vec<f64>>,
    component_id: Option<usize>,
}

impl SavedAxes {
    fn axes(&self, fit: &Fit) -> Axes<'_> {
        let components = (0..fit.layers.len()).map(|at| self.components[at.min(self.components.len() - 1)].as_slice());
        Axes {
            basis: "reference",
            mean: self.mean.as_deref(),
            components: components.collect(),
            component_id: self.component_id,
        }
    }
}

fn reference_axes(plan: &Plan, source: &Source, fit: &Fit, basis: &Basis) -> Result<Option<SavedAxes>> {
    let width = source.layers[0].width;
    if basis.components.is_empty() || fit.stack.segments.is_some() {
        return Ok(None);
    }
    let components = basis.narrowed(&basis.components, width, fit.columns.as_deref())?;
    let mean = match &fit.columns {
        None => basis.mean.clone(),
        Some(columns) => columns.iter().map(|column| basis.mean[*column]).collect(),
    };
    let mean = (plan.center == Center::Global).then_some(mean);
    Ok(Some(SavedAxes {
        mean,
        components: vec![components],
        component_id: basis.component_id,
    }))
}

/// Refuses rows that are not finite, or leaves them out of every layer; returns how many were left out.
fn check_finite(plan: &Plan, source: &mut Source) -> Result<u64> {
    let Some((tensor, count)) = source.non_finite()? else {
        return Ok(0);
    };
    if plan.on_nonfinite == OnNonfinite::Refuse {
        return Err(Error::input(tensor, format!("{count} numbers are NaN or infinite"))
            .hint("--on-nonfinite drop leaves their rows out and says how many"));
    }
    let mut bad = Vec::new();
    for layer in &source.layers {
        let rows = Rows {
            source,
            layer,
            columns: None,
        };
        let mut flags = Vec::new();
        rows.for_each::<f64>(|block| {
            flags.extend(
                block
                    .rows
                    .chunks_exact(layer.width)
                    .map(|row| row.iter().any(|x| !x.is_finite())),
            );
            Ok(())
        })?;
        let mut at = 0;
        for run in source.runs() {
            for row in run.first_row..run.first_row + run.row_count {
                if flags[at] {
                    bad.push((run.part, row));
                }
                at += 1;
            }
        }
    }
    bad.sort_unstable();
    bad.dedup();
    source.drop_rows(&bad);
    Ok(bad.len() as u64)
}

fn write(plan: &Plan, products: &Products, report: &Report, end: &End) -> Result<()> {
    let mut out = process::stdout();
    if products.basis.is_some() || products.direction.is_some() {
        // With a file to show for it, the work is done even if nobody reads the records.
        out = out.tolerant();
    }
    if products.format == Format::Table {
        out.write_all(table::tables(report).as_bytes()).at("stdout")?;
        return out.finish();
    }
    let mut writer = records::Writer::new(out);
    let begin = Begin::new(plan.tool, plan.version).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &()).at("stdout")?;
    report.write(&mut writer).at("stdout")?;
    writer.end(Status::Complete, end).at("stdout")?.finish()
}

//! `act-stats fit`: reads the series, fits every law to each, and says which is best.

use crate::plan::fit::{Input, Opened, Plan};
use crate::table;
use numerics::laws::{self, Fitted, LawError};
use process::{Error, Format, Outcome, Result, ResultExt};
use rayon::prelude::*;
use records::{Begin, Fit, Row, Status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;

/// What tells series apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    component: Option<String>,
    layer_index: Option<u64>,
    group: Option<String>,
}

type Points = Vec<(f64, f64)>;

pub fn run(plan: &Plan, opened: &Opened) -> Result<Outcome> {
    let mut all: BTreeMap<Series, Points> = BTreeMap::new();
    for input in &opened.inputs {
        read(plan, input, &mut all)?;
    }
    if all.is_empty() {
        let name = process::input_name(&opened.inputs[0].path);
        return Err(Error::input(name, format!("no record holds {}", plan.y)));
    }
    let series: Vec<(Series, Points)> = all.into_iter().collect();
    let fitted: Vec<Vec<_>> = series
        .par_iter()
        .map(|(_, points)| {
            plan.laws_to_fit
                .iter()
                .map(|law| (law, laws::fit(*law, points)))
                .collect()
        })
        .collect();
    let mut rows = Vec::new();
    let mut left_out = false;
    for ((series, points), fits) in series.iter().zip(fits_of(plan, &series, fitted)) {
        let (fits, refused) = fits?;
        left_out |= refused;
        rows.extend(report(plan, series, points, fits));
    }
    if rows.is_empty() {
        return Err(Error::input("--law", "no series determines a law"));
    }
    write(plan, opened, &rows, left_out)?;
    Ok(Outcome::partial_if(left_out))
}

/// The laws of each series that could be fitted, and whether one could not; without --keep-going that is an error.
fn fits_of<'a>(
    plan: &'a Plan,
    series: &'a [(Series, Points)],
    fitted: Vec<Vec<(&'a laws::Law, std::result::Result<Fitted, LawError>)>>,
) -> impl Iterator<Item = Result<(Vec<Fitted>, bool)>> {
    series.iter().zip(fitted).map(|((series, _), fits)| {
        let mut found = Vec::new();
        let mut refused = false;
        for (law, fit) in fits {
            match fit {
                Ok(fit) => found.push(fit),
                Err(_) if plan.keep_going => refused = true,
                Err(cause) => {
                    let refusal = Error::input(series, format!("law {}: {cause}", law.name()));
                    return Err(refusal.hint("--keep-going leaves out what cannot be fitted"));
                }
            }
        }
        Ok((found, refused))
    })
}

/// Adds the points of one file.
fn read(plan: &Plan, input: &Input, all: &mut BTreeMap<Series, Points>) -> Result<()> {
    let name = process::input_name(&input.path);
    let mut reader = records::Reader::new(process::open_input(&input.path)?);
    while let Some(row) = reader.next_row().at(&name)? {
        process::signals::check()?;
        let Some(y) = number(&row, &plan.y).filter(|_| row.kind.as_deref().is_none_or(|kind| kind == "act")) else {
            continue;
        };
        let x = input.x.or_else(|| number(&row, &plan.x));
        let x = x.ok_or_else(|| row.refuse(format!("there is no number under \"{}\"", plan.x)));
        let x = x.at(&name)?;
        all.entry(Series::of(&row)).or_default().push((x, y));
    }
    Ok(())
}

/// A number of a row, by a path of keys.
fn number(row: &Row, path: &str) -> Option<f64> {
    let whole = row.value.get(path);
    let mut keys = path.split('.');
    let stepwise = || {
        let first = row.value.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    };
    whole.or_else(stepwise)?.as_f64()
}

impl Series {
    fn of(row: &Row) -> Series {
        let text = |key: &str| row.value.get(key).and_then(Value::as_str).map(str::to_owned);
        Series {
            component: text("component"),
            layer_index: row.value.get("layer_index").and_then(Value::as_u64),
            group: text("group"),
        }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("series")?;
        let layer = self.layer_index.map(|layer| format!("layer {layer}"));
        let group = self.group.clone().filter(|group| !group.is_empty());
        for part in [&self.component, &layer, &group].into_iter().flatten() {
            write!(out, " {part}")?;
        }
        Ok(())
    }
}

fn report(plan: &Plan, series: &Series, points: &Points, fits: Vec<Fitted>) -> Vec<Fit> {
    // A perfect fit has no criterion, and nothing is better.
    let aic = |fit: &Fitted| fit.aic.unwrap_or(f64::NEG_INFINITY);
    let least = fits.iter().map(aic).fold(f64::INFINITY, f64::min);
    let mut ordered = points.clone();
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let row = |fit: Fitted| {
        let peak = fit.peak();
        Fit {
            law: fit.law.name().to_owned(),
            y: plan.y.clone(),
            component: series.component.clone(),
            layer_index: series.layer_index.map(|layer| layer as usize),
            group: series.group.clone(),
            count: points.len() as u64,
            parameters: fit
                .parameters
                .iter()
                .map(|one| (one.name.to_owned(), (one.value, one.standard_error)))
                .collect(),
            r2: fit.r2,
            aic: fit.aic,
            best: aic(&fit) == least,
            peak: peak.map(|peak| peak.at),
            peak_value: peak.map(|peak| peak.value),
            peak_observable: peak.map(|peak| peak.is_observable),
            limit: fit.limit(),
            points: ordered.iter().map(|(x, y)| (*x, *y, fit.at(*x))).collect(),
            rest: Default::default(),
        }
    };
    fits.into_iter().map(row).collect()
}

fn write(plan: &Plan, opened: &Opened, rows: &[Fit], left_out: bool) -> Result<()> {
    let mut out = process::stdout();
    if opened.format == Format::Table {
        out.write_all(table::fits(rows).as_bytes()).at("stdout")?;
        return out.finish();
    }
    let mut writer = records::Writer::new(out);
    let begin = Begin::new(plan.tool, plan.version).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &()).at("stdout")?;
    rows.iter().try_for_each(|row| writer.row(row)).at("stdout")?;
    writer.end(Status::partial_if(left_out), &()).at("stdout")?.finish()
}

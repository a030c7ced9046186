//! The rows of a layer, reduced to what spectra are made from: moments, or the rows themselves where there are few.

use super::check_rank;
use super::summary::mean_of;
use crate::cli::Layout;
use crate::plan::Plan;
use crate::rows::Rows;
use crate::source::{Layer, Source};
use numerics::moments::{Accumulator, Moments, MomentsError, Precision};
use process::{Error, Result, ResultExt};

/// Rows of a layer, reduced: what spectra are made from.
pub(super) enum Reduced {
    Moments(Vec<Moments>),
    /// Labels are the groups of the rows.
    Rows {
        labels: Vec<u32>,
        rows: Vec<f64>,
    },
}

pub(super) fn precision(plan: &Plan) -> Precision {
    if plan.exact {
        Precision::Double
    } else {
        Precision::Single
    }
}

pub(super) fn reduce(
    plan: &Plan,
    source: &Source,
    layer: &Layer,
    columns: Option<&[usize]>,
    group_count: usize,
) -> Result<Reduced> {
    if !source.has_rows() {
        let mut groups = source.moments(layer)?;
        if let Some(columns) = columns {
            groups = groups.iter().map(|moments| moments.select(columns)).collect();
        }
        let row_count: u64 = groups.iter().map(Moments::count).sum();
        if row_count == 0 {
            return Err(Error::input(
                source.name(),
                format!("layer {} holds no rows", layer.index),
            ));
        }
        check_rank(plan, &source.name(), row_count, groups[0].width())?;
        return Ok(Reduced::Moments(groups));
    }
    let rows = Rows { source, layer, columns };
    if plan.layout == Layout::Concat || source.row_count() <= rows.width() as u64 {
        let (prompts, rows) = rows.all()?;
        let labels = prompts.iter().map(|prompt| source.group_of(*prompt) as u32).collect();
        return Ok(Reduced::Rows { labels, rows });
    }
    let groups = if source.is_double() {
        accumulate::<f64>(plan, &rows, group_count)?
    } else {
        accumulate::<f32>(plan, &rows, group_count)?
    };
    Ok(Reduced::Moments(groups))
}

fn accumulate<T: acts::Element + products::Real>(
    plan: &Plan,
    rows: &Rows<'_>,
    group_count: usize,
) -> Result<Vec<Moments>> {
    let width = rows.width();
    let subject = format!("{}: layer {}", rows.source.name(), rows.layer.index);
    let mut groups: Vec<Accumulator<T>> = (0..group_count)
        .map(|_| Accumulator::new(width, precision(plan)))
        .collect();
    rows.for_each::<T>(|block| {
        if let [only] = &mut groups[..] {
            return only.push(block.rows).at(&subject);
        }
        for (row, prompt) in block.rows.chunks_exact(width).zip(block.prompts) {
            groups[rows.source.group_of(*prompt)].push(row).at(&subject)?;
        }
        Ok(())
    })?;
    groups.into_iter().map(|group| group.finish().at(&subject)).collect()
}

impl Reduced {
    pub(super) fn mean(&self, width: usize) -> std::result::Result<Vec<f64>, MomentsError> {
        match self {
            Self::Rows { labels, rows } => Ok(mean_of(rows, rows.len() / labels.len().max(1))),
            Self::Moments(groups) => {
                let count: u64 = groups.iter().map(Moments::count).sum();
                let mut mean = vec![0.0; width];
                for group in groups {
                    let share = group.count() as f64 / count.max(1) as f64;
                    for (mean, x) in mean.iter_mut().zip(group.mean()) {
                        *mean += share * x;
                    }
                }
                Ok(mean)
            }
        }
    }
}

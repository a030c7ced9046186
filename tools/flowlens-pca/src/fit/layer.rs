//! One layer: spectra and summaries of all its rows and of each group, from moments or from the rows themselves.

use super::reduced::Reduced;
use super::summary::{Along, Contrasted, Summary, centred};
use super::{LayerFit, Part};
use crate::plan::{Components, Plan};
use crate::rows::Rows;
use numerics::lapack::LapackError;
use numerics::moments::{Moments, Precision, norm};
use numerics::spectrum::Spectrum;
use process::{Error, Result, ResultExt};
use products::matrix;

pub(super) fn fit_layer(
    plan: &Plan,
    rows: &Rows<'_>,
    reduced: Reduced,
    component_count: usize,
    contrast: Option<(usize, usize)>,
) -> Result<LayerFit> {
    let task = Task {
        plan,
        rows,
        component_count,
        contrast,
        subject: format!("{}: layer {}", rows.source.name(), rows.layer.index),
    };
    match reduced {
        Reduced::Moments(groups) => task.of_moments(groups),
        Reduced::Rows { labels, rows } => task.of_rows(&labels, &rows),
    }
}

struct Task<'a> {
    plan: &'a Plan,
    rows: &'a Rows<'a>,
    component_count: usize,
    contrast: Option<(usize, usize)>,
    subject: String,
}

impl Task<'_> {
    fn of_moments(&self, mut groups: Vec<Moments>) -> Result<LayerFit> {
        let is_divided = !self.rows.source.groups.is_empty();
        let whole = match &mut groups[..] {
            // A single group is the whole: its triangle is not held twice.
            [only] if !is_divided => std::mem::replace(only, Moments::empty(0)),
            many => {
                let mut whole = Moments::empty(self.rows.width());
                for group in many.iter() {
                    whole.merge(group).at(&self.subject)?;
                }
                whole
            }
        };
        let contrast = self.contrast.map(|(a, b)| Contrasted {
            a,
            b,
            along: Along::of_moments(&groups[a], &groups[b]),
        });
        let all = self.part_of_moments(&whole)?;
        drop(whole);
        let groups = match is_divided {
            true => groups
                .iter()
                .map(|moments| self.part_of_moments(moments))
                .collect::<Result<_>>()?,
            false => Vec::new(),
        };
        Ok(self.fit(all, groups, contrast))
    }

    fn part_of_moments(&self, moments: &Moments) -> Result<Part> {
        // Norms of whole rows are not in moments of some of their dimensions.
        let whole_norms = self.rows.columns.is_none() || self.rows.source.has_rows();
        Ok(Part {
            summary: Summary::of_moments(moments, whole_norms),
            spectrum: spectrum_of(self.plan, moments, self.component_count).at(&self.subject)?,
        })
    }

    fn of_rows(&self, labels: &[u32], rows: &[f64]) -> Result<LayerFit> {
        let width = self.rows.width();
        let all = self.part_of_rows(rows)?;
        let of_group = |group| rows_of_group(rows, labels, width, group);
        let groups = (0..self.rows.source.groups.len())
            .map(|group| self.part_of_rows(&of_group(group)))
            .collect::<Result<Vec<Part>>>()?;
        let contrast = self.contrast.map(|(a, b)| {
            let along = Along::of_rows(
                (&of_group(a), &groups[a].summary),
                (&of_group(b), &groups[b].summary),
                width,
            );
            Contrasted { a, b, along }
        });
        Ok(self.fit(all, groups, contrast))
    }

    fn part_of_rows(&self, rows: &[f64]) -> Result<Part> {
        let width = self.rows.width();
        if let Some(bad) = rows.chunks_exact(width).position(|row| !norm(row).is_finite()) {
            return Err(Error::input(
                &self.subject,
                format!("row {bad} holds a number that is not finite"),
            ));
        }
        let summary = Summary::of_rows(rows, width);
        let centred = centred(rows, &summary.mean);
        let spectrum = if rows.len() / width > width {
            // More rows than dimensions come here only to be concatenated: the small side is the covariance.
            let moments = Moments::of_rows(width, &centred, Precision::Double).at(&self.subject)?;
            spectrum_of(self.plan, &moments, self.component_count).at(&self.subject)?
        } else {
            let spectrum = Spectrum::of_centred_rows(matrix(&centred, rows.len() / width, width), self.component_count)
                .at(&self.subject)?;
            leading_only(self.plan, spectrum)
        };
        Ok(Part { summary, spectrum })
    }

    fn fit(&self, all: Part, groups: Vec<Part>, contrast: Option<Contrasted>) -> LayerFit {
        LayerFit {
            index: self.rows.layer.index,
            all,
            groups,
            contrast,
        }
    }
}

/// The rows whose label is `group`, in order.
pub(super) fn rows_of_group(rows: &[f64], labels: &[u32], width: usize, group: usize) -> Vec<f64> {
    rows.chunks_exact(width)
        .zip(labels)
        .filter(|(_, label)| **label as usize == group)
        .flat_map(|(row, _)| row.iter().copied())
        .collect()
}

/// Components of moments: the whole spectrum, or the leading pairs alone.
pub(super) fn spectrum_of(
    plan: &Plan,
    moments: &Moments,
    component_count: usize,
) -> std::result::Result<Spectrum, LapackError> {
    match plan.components {
        Components::Id => Spectrum::of_moments(moments, component_count),
        Components::Leading(_) => Spectrum::leading_of_moments(moments, component_count),
    }
}

/// Under `--components K` nothing beyond the K leading values is shown, however they were found.
pub(super) fn leading_only(plan: &Plan, mut spectrum: Spectrum) -> Spectrum {
    if let Components::Leading(count) = plan.components
        && spectrum.values.len() > count
    {
        spectrum.values.truncate(count);
        spectrum.complete = false;
    }
    spectrum
}

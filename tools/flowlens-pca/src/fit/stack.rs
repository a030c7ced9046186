//! All layers together: their rows in one space, or side by side.

use super::layer::{leading_only, rows_of_group, spectrum_of};
use super::reduced::{Reduced, precision};
use super::summary::{Summary, centred, mean_of};
use super::{LayerFit, Part};
use crate::cli::{Center, Layout};
use crate::plan::Plan;
use crate::rows::Rows;
use crate::source::Source;
use ndarray::{Array2, ArrayView2};
use numerics::measures;
use numerics::moments::{Accumulator, Moments, MomentsError, norm};
use numerics::spectrum::{self, Spectrum};
use process::{Error, Result, ResultExt};
use products::{Product, matrix};

/// All layers together.
pub struct StackFit {
    pub all: Part,
    pub groups: Vec<Part>,
    /// In the concatenated layout: component j of layer l, (layers)(components, width), unit over all layers together.
    pub segments: Option<Vec<Vec<f64>>>,
}

pub(super) struct Stack<'a> {
    plan: &'a Plan,
    width: usize,
    form: StackForm,
    norm_sums: Vec<f64>,
    unit_sums: Vec<Vec<f64>>,
}

enum StackForm {
    /// One layer is its own stack: nothing is solved twice.
    OneLayer,
    /// Few rows in all: kept.
    Rows {
        labels: Vec<u32>,
        rows: Vec<f64>,
    },
    /// Moments per group: of rows, or merged from the layers' own.
    Accumulated(Vec<Accumulator<f64>>),
    Merged(Vec<Moments>),
    /// Concatenated layout: Gram matrices add up over layers.
    Gram {
        labels: Vec<u32>,
        gram: Array2<f64>,
        width: usize,
    },
}

impl<'a> Stack<'a> {
    pub(super) fn new(plan: &'a Plan, source: &Source, columns: Option<&[usize]>, group_count: usize) -> Result<Self> {
        let width = columns.map_or_else(|| source.layers.first().map_or(0, |layer| layer.width), <[usize]>::len);
        let row_count = source.row_count();
        let layer_count = source.layers.len() as u64;
        let form = if plan.layout == Layout::Concat {
            // The Gram matrix, its copy and the factorisation's workspace.
            let bytes = row_count.saturating_mul(row_count).saturating_mul(8 * 4);
            if bytes > plan.max_memory {
                return Err(Error::input(
                    source.name(),
                    format!(
                        "{row_count} rows side by side need a matrix of {row_count} x {row_count}, about {} MiB, limit {} MiB",
                        bytes >> 20,
                        plan.max_memory >> 20
                    ),
                )
                .hint("--max-memory, or --layout stacked"));
            }
            StackForm::Gram {
                labels: Vec::new(),
                gram: Array2::zeros((row_count as usize, row_count as usize)),
                width: 0,
            }
        } else if layer_count == 1 && plan.center == Center::Global {
            StackForm::OneLayer
        } else if !source.has_rows() || row_count > width as u64 {
            StackForm::Merged(vec![Moments::empty(width); group_count])
        } else if row_count * layer_count <= width as u64 {
            StackForm::Rows {
                labels: Vec::new(),
                rows: Vec::new(),
            }
        } else {
            StackForm::Accumulated(
                (0..group_count)
                    .map(|_| Accumulator::new(width, precision(plan)))
                    .collect(),
            )
        };
        Ok(Self {
            plan,
            width,
            form,
            norm_sums: vec![0.0; group_count],
            unit_sums: vec![vec![0.0; width]; group_count],
        })
    }

    pub(super) fn add(&mut self, reduced: &Reduced) -> std::result::Result<(), MomentsError> {
        if matches!(self.form, StackForm::OneLayer) {
            return Ok(());
        }
        let layer_mean = match self.plan.center {
            Center::Layer => Some(reduced.mean(self.width)?),
            Center::Global => None,
        };
        match reduced {
            Reduced::Moments(groups) => self.add_moments(groups, layer_mean.as_deref()),
            Reduced::Rows { labels, rows } => {
                self.add_norms(labels, rows);
                match layer_mean {
                    Some(mean) => self.add_rows(labels, &centred(rows, &mean)),
                    None => self.add_rows(labels, rows),
                }
            }
        }
    }

    fn add_moments(&mut self, layer: &[Moments], mean: Option<&[f64]>) -> std::result::Result<(), MomentsError> {
        let StackForm::Merged(groups) = &mut self.form else {
            return Ok(());
        };
        for (at, (stack, moments)) in groups.iter_mut().zip(layer).enumerate() {
            self.norm_sums[at] += moments.norm_sum();
            for (sum, x) in self.unit_sums[at].iter_mut().zip(moments.unit_sum()) {
                *sum += x;
            }
            match mean {
                Some(mean) => stack.merge(&moments.clone().translated(mean))?,
                None => stack.merge(moments)?,
            }
        }
        Ok(())
    }

    /// Norms and directions are of the rows as they are, whatever they are centred on.
    fn add_norms(&mut self, labels: &[u32], rows: &[f64]) {
        let width = rows.len() / labels.len().max(1);
        for (row, label) in rows.chunks_exact(width.max(1)).zip(labels) {
            let at = *label as usize;
            let length = norm(row);
            self.norm_sums[at] += length;
            if length > 0.0 && width == self.width {
                for (sum, x) in self.unit_sums[at].iter_mut().zip(row) {
                    *sum += x / length;
                }
            }
        }
    }

    fn add_rows(&mut self, row_labels: &[u32], rows: &[f64]) -> std::result::Result<(), MomentsError> {
        let width = rows.len() / row_labels.len().max(1);
        match &mut self.form {
            StackForm::Rows { labels, rows: all } => {
                labels.extend_from_slice(row_labels);
                all.extend_from_slice(rows);
            }
            StackForm::Accumulated(groups) => {
                for (row, label) in rows.chunks_exact(width.max(1)).zip(row_labels) {
                    groups[*label as usize].push(row)?;
                }
            }
            StackForm::Gram {
                labels,
                gram,
                width: total,
            } => {
                let centred = centred(rows, &mean_of(rows, width));
                *gram += &spectrum::gram(matrix(&centred, row_labels.len(), width));
                labels.clear();
                labels.extend_from_slice(row_labels);
                *total += width;
            }
            StackForm::Merged(_) | StackForm::OneLayer => {}
        }
        Ok(())
    }

    pub(super) fn finish(
        self,
        source: &Source,
        layers: &[LayerFit],
        columns: Option<&[usize]>,
        component_count: usize,
    ) -> Result<StackFit> {
        let finish = Finish {
            plan: self.plan,
            source,
            columns,
            component_count,
            width: self.width,
            norm_sums: self.norm_sums,
            unit_sums: self.unit_sums,
            subject: source.name(),
        };
        match self.form {
            StackForm::OneLayer => match layers {
                [layer] => Ok(StackFit::new(layer.all.clone(), layer.groups.clone())),
                _ => Err(Error::bug("stack", "one layer was planned")),
            },
            StackForm::Rows { labels, rows } => finish.of_rows(&labels, &rows),
            StackForm::Merged(groups) => finish.of_moments(groups),
            StackForm::Accumulated(groups) => {
                let moments = groups.into_iter().map(|group| group.finish().at(&finish.subject));
                finish.of_moments(moments.collect::<Result<Vec<Moments>>>()?)
            }
            StackForm::Gram { labels, gram, width } => finish.of_gram(&labels, gram, width),
        }
    }
}

impl StackFit {
    pub(super) fn new(all: Part, groups: Vec<Part>) -> Self {
        Self {
            all,
            groups,
            segments: None,
        }
    }
}

/// What was added, on its way to spectra.
struct Finish<'a> {
    plan: &'a Plan,
    source: &'a Source,
    columns: Option<&'a [usize]>,
    component_count: usize,
    width: usize,
    norm_sums: Vec<f64>,
    unit_sums: Vec<Vec<f64>>,
    subject: String,
}

impl Finish<'_> {
    fn every_group(&self) -> Vec<usize> {
        (0..self.norm_sums.len()).collect()
    }

    fn norm_sum(&self, groups: &[usize]) -> f64 {
        groups.iter().map(|group| self.norm_sums[*group]).sum()
    }

    /// The summary with the norms and directions of the rows as they are.
    fn with_norms(&self, mut summary: Summary, groups: &[usize]) -> Summary {
        summary.norm_sum = self.norm_sum(groups);
        summary.unit_sum = vec![0.0; self.width];
        for group in groups {
            for (sum, x) in summary.unit_sum.iter_mut().zip(&self.unit_sums[*group]) {
                *sum += x;
            }
        }
        let count = summary.count;
        let whole_norms = self.columns.is_none() || self.source.has_rows();
        summary.norm_mean = (whole_norms && count > 0).then(|| summary.norm_sum / count as f64);
        summary.anisotropy = whole_norms
            .then(|| measures::mean_pairwise_cosine(&summary.unit_sum, count))
            .flatten();
        summary
    }

    fn of_rows(&self, labels: &[u32], rows: &[f64]) -> Result<StackFit> {
        let part = |rows: &[f64], groups: &[usize]| -> Result<Part> {
            let summary = self.with_norms(Summary::of_rows(rows, self.width), groups);
            let centred = centred(rows, &summary.mean);
            let spectrum = Spectrum::of_centred_rows(
                matrix(&centred, rows.len() / self.width.max(1), self.width),
                self.component_count,
            )
            .at(&self.subject)?;
            Ok(Part {
                summary,
                spectrum: leading_only(self.plan, spectrum),
            })
        };
        let all = part(rows, &self.every_group())?;
        let groups = (0..self.source.groups.len())
            .map(|group| part(&rows_of_group(rows, labels, self.width, group), &[group]))
            .collect::<Result<_>>()?;
        Ok(StackFit::new(all, groups))
    }

    fn of_moments(&self, groups: Vec<Moments>) -> Result<StackFit> {
        let mut whole = Moments::empty(groups[0].width());
        for group in &groups {
            whole.merge(group).at(&self.subject)?;
        }
        let part = |moments: &Moments, groups: &[usize]| -> Result<Part> {
            Ok(Part {
                summary: self.with_norms(Summary::of_moments(moments, true), groups),
                spectrum: spectrum_of(self.plan, moments, self.component_count).at(&self.subject)?,
            })
        };
        let all = part(&whole, &self.every_group())?;
        drop(whole);
        // Without names the one group is the whole.
        let named = groups.iter().take(self.source.groups.len()).enumerate();
        let groups = named.map(|(at, moments)| part(moments, &[at])).collect::<Result<_>>()?;
        Ok(StackFit::new(all, groups))
    }

    fn of_gram(&self, labels: &[u32], gram: Array2<f64>, width: usize) -> Result<StackFit> {
        let row_count = labels.len();
        let part = |gram: Array2<f64>, groups: &[usize]| -> Result<(Part, Array2<f64>)> {
            let count = gram.nrows() as u64;
            let (spectrum, weights) = Spectrum::of_gram(gram, width, self.component_count).at(&self.subject)?;
            // The norm of a row of all layers side by side is not a sum of the layers' norms: its mean is left out.
            let summary = Summary {
                count,
                norm_sum: self.norm_sum(groups),
                ..Summary::default()
            };
            let spectrum = leading_only(self.plan, spectrum);
            Ok((Part { summary, spectrum }, weights))
        };
        let groups = (0..self.source.groups.len())
            .map(|group| {
                let own: Vec<usize> = (0..row_count).filter(|row| labels[*row] as usize == group).collect();
                Ok(part(recentred(gram.view(), &own), &[group])?.0)
            })
            .collect::<Result<_>>()?;
        let (all, weights) = part(gram, &self.every_group())?;
        let segments = segments(self.source, self.columns, weights.view())?;
        Ok(StackFit {
            segments: Some(segments),
            ..StackFit::new(all, groups)
        })
    }
}

/// The Gram matrix of some of the rows, centred on their own mean.
fn recentred(gram: ArrayView2<'_, f64>, own: &[usize]) -> Array2<f64> {
    let n = own.len();
    let mut part = Array2::from_shape_fn((n, n), |(i, j)| gram[[own[i], own[j]]]);
    let means: Vec<f64> = part
        .rows()
        .into_iter()
        .map(|row| row.iter().sum::<f64>() / n as f64)
        .collect();
    let grand = means.iter().sum::<f64>() / n.max(1) as f64;
    for ((i, j), x) in part.indexed_iter_mut() {
        *x += grand - means[i] - means[j];
    }
    part
}

/// What each layer contributes to the components of the concatenated layout.
fn segments(source: &Source, columns: Option<&[usize]>, weights: ArrayView2<'_, f64>) -> Result<Vec<Vec<f64>>> {
    let (component_count, row_count) = weights.dim();
    let mut segments = Vec::with_capacity(source.layers.len());
    for layer in &source.layers {
        let rows = Rows { source, layer, columns };
        let width = rows.width();
        let (_, rows) = rows.all()?;
        let centred = centred(&rows, &mean_of(&rows, width));
        segments.push(Product::of(weights.view(), matrix(&centred, row_count, width)).to_vec());
    }
    // Unit length and sign are those of the whole component, all layers side by side.
    for component in 0..component_count {
        let mut square = 0.0;
        let mut largest = 0.0_f64;
        for segment in &segments {
            let width = segment.len() / component_count;
            for x in &segment[component * width..(component + 1) * width] {
                square += x * x;
                if x.abs() > largest.abs() {
                    largest = *x;
                }
            }
        }
        let scale = if square > 0.0 {
            largest.signum() / square.sqrt()
        } else {
            0.0
        };
        for segment in &mut segments {
            let width = segment.len() / component_count;
            for x in &mut segment[component * width..(component + 1) * width] {
                *x *= scale;
            }
        }
    }
    Ok(segments)
}

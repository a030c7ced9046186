//! The analysis itself: rows or moments of every layer and group become summaries and spectra, for the layers and for the whole.
//!
//! Where a layer has no more rows than dimensions, spectra come from the Gram matrix of its rows; otherwise from moments, which are
//! then all that is held. Which of the two is decided by the shapes alone.

use crate::cli::{Center, Layout};
use crate::plan::{Components, DropDims, Plan};
use crate::rows::{Block, Rows};
use crate::source::{Layer, Source};
use numerics::krylov::Goal;
use numerics::lapack::LapackError;
use numerics::measures;
use numerics::moments::{Accumulator, Moments, Precision, norm};
use numerics::product::{self, View};
use numerics::spectrum::{self, Spectrum};
use process::{Error, Progress, Result, ResultExt};
use rayon::prelude::*;

/// Components kept beside the intrinsic dimension: the leading eight are reported everywhere.
pub const COMPONENT_COUNT: usize = 8;
/// Components kept where rows are resampled: the space in which resamples are solved.
pub const RESAMPLED_COMPONENT_COUNT: usize = 64;

/// Residual of leading pairs that are found by passes over rows (an eigenvalue errs by its square over the gap), and passes before they
/// are taken as they are.
const ROWS_TOLERANCE: f64 = 1e-4;
const ROWS_PASS_COUNT_MAX: usize = 24;

/// A pass costs the work of a covariance times block rows over width; some ten passes are needed, at a lower rate than a square product's.
const WIDTH_PER_COMPONENT_FOR_PASSES: usize = 128;

/// What is known of a set of rows besides its spectrum.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub count: u64,
    pub mean: Vec<f64>,
    /// Root mean square of every dimension.
    pub root_mean_squares: Vec<f64>,
    /// Absent where only moments of some dimensions are left.
    pub norm_mean: Option<f64>,
    pub anisotropy: Option<f64>,
    /// Sums behind the last two, for the stack.
    norm_sum: f64,
    unit_sum: Vec<f64>,
}

/// Rows of one group (or all of them) in one layer, or over all layers.
#[derive(Debug, Clone)]
pub struct Part {
    pub summary: Summary,
    pub spectrum: Spectrum,
}

/// One layer: everything first, then each group.
pub struct LayerFit {
    pub index: u32,
    pub all: Part,
    pub groups: Vec<Part>,
    /// Two groups against each other: those named, or the only two there are.
    pub contrast: Option<Contrasted>,
}

/// Two groups, and the direction between their means (none where the means coincide).
#[derive(Debug, Clone)]
pub struct Contrasted {
    pub a: usize,
    pub b: usize,
    pub along: Option<Along>,
}

/// What lies along the difference of two means.
#[derive(Debug, Clone)]
pub struct Along {
    /// Unit vector.
    pub direction: Vec<f64>,
    /// Mean of the groups along it, and their common standard deviation.
    pub projection_a: f64,
    pub projection_b: f64,
    pub deviation: f64,
}

/// All layers together.
pub struct StackFit {
    pub all: Part,
    pub groups: Vec<Part>,
    /// In the concatenated layout: component j of layer l, (layers)(components, width), unit over all layers together.
    pub segments: Option<Vec<Vec<f64>>>,
}

pub struct Fit {
    /// The dimensions kept; `None` for all.
    pub columns: Option<Vec<usize>>,
    pub layers: Vec<LayerFit>,
    pub stack: StackFit,
}

/// Rows of a layer, reduced: what spectra are made from.
enum Reduced {
    Moments(Vec<Moments>),
    /// Labels are the groups of the rows.
    Rows {
        labels: Vec<u32>,
        rows: Vec<f64>,
    },
}

struct Stack<'a> {
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
        gram: Vec<f64>,
        width: usize,
    },
}

impl Fit {
    pub fn new(plan: &Plan, source: &Source, component_count: usize, progress: &Progress) -> Result<Self> {
        let columns = columns(plan, source)?;
        Self::with_columns(plan, source, component_count, columns, progress)
    }

    /// With the dimensions that another dump's fit kept: the two must live in one space.
    pub fn with_columns(
        plan: &Plan,
        source: &Source,
        component_count: usize,
        columns: Option<Vec<usize>>,
        progress: &Progress,
    ) -> Result<Self> {
        if source.has_rows() && source.row_count() == 0 {
            return Err(Error::input(source.name(), "holds no rows"));
        }
        if by_passes(plan, source, columns.as_deref()) {
            return Self::leading(source, component_count, columns, progress);
        }
        let group_count = source.groups.len().max(1);
        let contrast = contrast_groups(plan, source)?;
        let mut layers = Vec::with_capacity(source.layers.len());
        let mut stack = Stack::new(plan, source, columns.as_deref(), group_count)?;
        let at_once = layers_at_once(plan, source);
        for chunk in source.layers.chunks(at_once) {
            // Reading and products use all threads, one layer after another; factorisations use one thread each, layers in parallel.
            let mut reduced = Vec::with_capacity(chunk.len());
            for layer in chunk {
                let one = reduce(plan, source, layer, columns.as_deref(), group_count)?;
                stack.add(&one).at(source.name())?;
                reduced.push((layer, one));
            }
            let fitted: Vec<Result<LayerFit>> = reduced
                .into_par_iter()
                .map(|(layer, reduced)| {
                    process::signals::check()?;
                    let rows = Rows {
                        source,
                        layer,
                        columns: columns.as_deref(),
                    };
                    fit_layer(plan, &rows, reduced, component_count, contrast)
                })
                .collect();
            for layer in fitted {
                layers.push(layer?);
                progress.advance(1);
            }
        }
        let stack = stack.finish(source, &layers, columns.as_deref(), component_count)?;
        Ok(Self { columns, layers, stack })
    }

    fn leading(
        source: &Source,
        component_count: usize,
        columns: Option<Vec<usize>>,
        progress: &Progress,
    ) -> Result<Self> {
        let rows: Vec<Rows<'_>> = source
            .layers
            .iter()
            .map(|layer| Rows {
                source,
                layer,
                columns: columns.as_deref(),
            })
            .collect();
        let mut layers = Vec::with_capacity(rows.len());
        for one in &rows {
            let all = leading_by_passes(std::slice::from_ref(one), component_count)?;
            layers.push(LayerFit {
                index: one.layer.index,
                all,
                groups: Vec::new(),
                contrast: None,
            });
            progress.advance(1);
        }
        let all = match &layers[..] {
            [only] => only.all.clone(),
            _ => leading_by_passes(&rows, component_count)?,
        };
        drop(rows);
        Ok(Self {
            columns,
            layers,
            stack: StackFit {
                all,
                groups: Vec::new(),
                segments: None,
            },
        })
    }

    /// The numbers of a kept dimension's place in the whole space, for output.
    pub fn widen(&self, kept: &[f64], width: usize) -> Vec<f64> {
        match &self.columns {
            None => kept.to_vec(),
            Some(columns) => {
                let mut whole = vec![0.0; width];
                for (x, column) in kept.iter().zip(columns) {
                    whole[*column] = *x;
                }
                whole
            }
        }
    }
}

/// Whether leading pairs are found by passes over the rows: where that is less work than forming a covariance, and nothing else needs it.
fn by_passes(plan: &Plan, source: &Source, columns: Option<&[usize]>) -> bool {
    let width = columns.map_or_else(|| source.layers.first().map_or(0, |layer| layer.width), <[usize]>::len);
    matches!(plan.components, Components::Leading(count) if width >= WIDTH_PER_COMPONENT_FOR_PASSES * (count + 8))
        && source.has_rows()
        && !source.is_double()
        && !plan.exact
        && source.groups.is_empty()
        && plan.layout == Layout::Stacked
        && plan.center == Center::Global
        && source.row_count() > width as u64
}

fn contrast_groups(plan: &Plan, source: &Source) -> Result<Option<(usize, usize)>> {
    match (&plan.group_a, &plan.group_b) {
        (Some(a), Some(b)) => {
            let pair = (source.group_index(a)?, source.group_index(b)?);
            if pair.0 == pair.1 {
                return Err(Error::usage("--group-b", "is the same group as --group-a"));
            }
            Ok(Some(pair))
        }
        (None, None) => Ok(match source.groups.len() {
            2 => Some((0, 1)),
            _ => None,
        }),
        _ => Err(Error::usage("--group-a", "and --group-b are given together")),
    }
}

/// How many layers' factorisations may be in flight: threads, as far as memory allows.
fn layers_at_once(plan: &Plan, source: &Source) -> usize {
    let width = source.layers.iter().map(|layer| layer.width).max().unwrap_or(1) as u64;
    // Per layer and group a packed triangle; per factorisation a full matrix, a copy and workspace.
    let each = width * width * 8 * (3 + source.groups.len() as u64 / 2);
    let bound = (plan.max_memory / each.max(1)).max(1) as usize;
    rayon::current_num_threads().min(bound).max(1)
}

fn precision(plan: &Plan) -> Precision {
    if plan.exact {
        Precision::Double
    } else {
        Precision::Single
    }
}

/// The dimensions to keep.
fn columns(plan: &Plan, source: &Source) -> Result<Option<Vec<usize>>> {
    let width = source.layers.first().map_or(0, |layer| layer.width);
    let dropped = match &plan.drop_dims {
        DropDims::None => return Ok(None),
        DropDims::List(dims) => dims.clone(),
        DropDims::Auto => {
            let mut dropped = Vec::new();
            for layer in &source.layers {
                let squares = if source.has_rows() {
                    mean_squares(&Rows {
                        source,
                        layer,
                        columns: None,
                    })?
                } else {
                    let mut whole = Moments::empty(layer.width);
                    for moments in source.moments(layer)? {
                        whole.merge(&moments).at(source.name())?;
                    }
                    whole.mean_squares()
                };
                let roots: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
                dropped.extend(measures::massive_dimensions(&roots));
            }
            dropped
        }
    };
    if source.layers.iter().any(|layer| layer.width != width) {
        return Err(Error::usage(
            "--drop-dims",
            "the layers differ in width, so a dimension is not the same in each",
        ));
    }
    if let Some(beyond) = dropped.iter().find(|dim| **dim >= width) {
        return Err(Error::input(
            "--drop-dims",
            format!("dimension {beyond} is beyond the width {width}"),
        ));
    }
    let kept: Vec<usize> = (0..width).filter(|dim| !dropped.contains(dim)).collect();
    if kept.is_empty() {
        return Err(Error::usage("--drop-dims", "leaves no dimension"));
    }
    Ok(Some(kept))
}

fn mean_squares(rows: &Rows<'_>) -> Result<Vec<f64>> {
    let width = rows.width();
    let mut sums = vec![0.0; width];
    let mut count = 0_usize;
    rows.for_each::<f64>(|block| {
        sums.par_chunks_mut(64).enumerate().for_each(|(chunk, sums)| {
            for row in block.rows.chunks_exact(width) {
                for (sum, x) in sums.iter_mut().zip(&row[chunk * 64..]) {
                    *sum += x * x;
                }
            }
        });
        count += block.prompts.len();
        Ok(())
    })?;
    for sum in &mut sums {
        *sum /= count.max(1) as f64;
    }
    Ok(sums)
}

fn reduce(
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
        if groups.iter().all(|moments| moments.count() == 0) {
            return Err(Error::input(
                source.name(),
                format!("layer {} holds no rows", layer.index),
            ));
        }
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

fn accumulate<T: acts::Element + product::Real>(
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

fn fit_layer(
    plan: &Plan,
    source_rows: &Rows<'_>,
    reduced: Reduced,
    component_count: usize,
    contrast: Option<(usize, usize)>,
) -> Result<LayerFit> {
    let subject = format!("{}: layer {}", source_rows.source.name(), source_rows.layer.index);
    let whole_norms = source_rows.columns.is_none() || source_rows.source.has_rows();
    let (all, groups, contrast) = match reduced {
        Reduced::Moments(mut groups) => {
            // A single group is the whole: its triangle is not held twice.
            let whole = match &mut groups[..] {
                [only] if source_rows.source.groups.is_empty() => std::mem::replace(only, Moments::empty(0)),
                many => {
                    let mut whole = Moments::empty(source_rows.width());
                    for group in many.iter() {
                        whole.merge(group).at(&subject)?;
                    }
                    whole
                }
            };
            let contrast = contrast.map(|(a, b)| Contrasted {
                a,
                b,
                along: Along::of_moments(&groups[a], &groups[b]),
            });
            let fit = |moments: &Moments| -> Result<Part> {
                Ok(Part {
                    summary: Summary::of_moments(moments, whole_norms),
                    spectrum: spectrum_of(plan, moments, component_count).at(&subject)?,
                })
            };
            let all = fit(&whole)?;
            drop(whole);
            let groups = if source_rows.source.groups.is_empty() {
                Vec::new()
            } else {
                groups.iter().map(fit).collect::<Result<Vec<Part>>>()?
            };
            (all, groups, contrast)
        }
        Reduced::Rows { labels, rows } => {
            let width = source_rows.width();
            let part = |rows: &[f64]| -> Result<Part> {
                if let Some(bad) = rows.chunks_exact(width).position(|row| !norm(row).is_finite()) {
                    return Err(Error::input(
                        &subject,
                        format!("row {bad} holds a number that is not finite"),
                    ));
                }
                let summary = Summary::of_rows(rows, width);
                let centred = centred(rows, &summary.mean);
                let spectrum = match plan.components {
                    // More rows than dimensions come here only to be concatenated: the small side is the covariance.
                    _ if rows.len() / width > width => {
                        let moments = Moments::of_rows(width, &centred, Precision::Double).at(&subject)?;
                        spectrum_of(plan, &moments, component_count).at(&subject)?
                    }
                    _ => leading_only(
                        plan,
                        Spectrum::of_centred_rows(&centred, width, component_count).at(&subject)?,
                    ),
                };
                Ok(Part { summary, spectrum })
            };
            let all = part(&rows)?;
            let of_group = |group: usize| -> Vec<f64> {
                rows.chunks_exact(width)
                    .zip(&labels)
                    .filter(|(_, label)| **label as usize == group)
                    .flat_map(|(row, _)| row.iter().copied())
                    .collect()
            };
            let groups = (0..source_rows.source.groups.len())
                .map(|group| part(&of_group(group)))
                .collect::<Result<Vec<Part>>>()?;
            let contrast = contrast.map(|(a, b)| {
                let along = Along::of_rows(
                    (&of_group(a), &groups[a].summary),
                    (&of_group(b), &groups[b].summary),
                    width,
                );
                Contrasted { a, b, along }
            });
            (all, groups, contrast)
        }
    };
    Ok(LayerFit {
        index: source_rows.layer.index,
        all,
        groups,
        contrast,
    })
}

/// Components of moments: the whole spectrum, or the leading pairs alone.
fn spectrum_of(plan: &Plan, moments: &Moments, component_count: usize) -> std::result::Result<Spectrum, LapackError> {
    match plan.components {
        Components::Id => Spectrum::of_moments(moments, component_count),
        Components::Leading(_) => Spectrum::leading_of_moments(moments, component_count),
    }
}

/// Under `--components K` nothing beyond the K leading values is shown, however they were found.
fn leading_only(plan: &Plan, mut spectrum: Spectrum) -> Spectrum {
    if let Components::Leading(count) = plan.components
        && spectrum.values.len() > count
    {
        spectrum.values.truncate(count);
        spectrum.complete = false;
    }
    spectrum
}

pub fn centred(rows: &[f64], mean: &[f64]) -> Vec<f64> {
    let mut centred = rows.to_vec();
    centred
        .par_chunks_mut(mean.len().max(1))
        .with_min_len(16)
        .for_each(|row| {
            for (x, mean) in row.iter_mut().zip(mean) {
                *x -= mean;
            }
        });
    centred
}

impl Summary {
    fn of_moments(moments: &Moments, whole_norms: bool) -> Self {
        let count = moments.count();
        Self {
            count,
            mean: moments.mean().to_vec(),
            root_mean_squares: moments.mean_squares().into_iter().map(f64::sqrt).collect(),
            norm_mean: (whole_norms && count > 0).then(|| moments.norm_sum() / count as f64),
            anisotropy: if whole_norms {
                measures::mean_pairwise_cosine(moments.unit_sum(), count)
            } else {
                None
            },
            norm_sum: moments.norm_sum(),
            unit_sum: moments.unit_sum().to_vec(),
        }
    }

    fn of_rows(rows: &[f64], width: usize) -> Self {
        let count = rows.len() / width.max(1);
        let mut summary = Self {
            count: count as u64,
            mean: vec![0.0; width],
            root_mean_squares: vec![0.0; width],
            unit_sum: vec![0.0; width],
            ..Self::default()
        };
        let Some(origin) = rows.get(..width) else {
            return summary;
        };
        for row in rows.chunks_exact(width) {
            let length = norm(row);
            summary.norm_sum += length;
            let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
            for (j, x) in row.iter().enumerate() {
                // From the first row, so that a large common mean does not eat the digits of the spread.
                summary.mean[j] += x - origin[j];
                summary.root_mean_squares[j] += x * x;
                summary.unit_sum[j] += x * inverse;
            }
        }
        let n = count as f64;
        for (mean, origin) in summary.mean.iter_mut().zip(origin) {
            *mean = origin + *mean / n;
        }
        for square in &mut summary.root_mean_squares {
            *square = (*square / n).sqrt();
        }
        summary.norm_mean = Some(summary.norm_sum / n);
        summary.anisotropy = measures::mean_pairwise_cosine(&summary.unit_sum, summary.count);
        summary
    }
}

impl Along {
    fn of_moments(a: &Moments, b: &Moments) -> Option<Self> {
        let direction = unit_difference(a.mean(), b.mean())?;
        let (a_count, b_count) = (a.count() as f64, b.count() as f64);
        let variance =
            (a.variance_along(&direction) * a_count + b.variance_along(&direction) * b_count) / (a_count + b_count);
        Some(Self {
            projection_a: dot(a.mean(), &direction),
            projection_b: dot(b.mean(), &direction),
            deviation: variance.max(0.0).sqrt(),
            direction,
        })
    }

    fn of_rows(a: (&[f64], &Summary), b: (&[f64], &Summary), width: usize) -> Option<Self> {
        let direction = unit_difference(&a.1.mean, &b.1.mean)?;
        let squares = |rows: &[f64], mean: f64| -> f64 {
            rows.chunks_exact(width)
                .map(|row| (dot(row, &direction) - mean) * (dot(row, &direction) - mean))
                .sum()
        };
        let (projection_a, projection_b) = (dot(&a.1.mean, &direction), dot(&b.1.mean, &direction));
        let variance = (squares(a.0, projection_a) + squares(b.0, projection_b)) / (a.1.count + b.1.count) as f64;
        Some(Self {
            projection_a,
            projection_b,
            deviation: variance.sqrt(),
            direction,
        })
    }
}

fn unit_difference(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let length = norm(&difference);
    (length > 0.0).then(|| difference.into_iter().map(|x| x / length).collect())
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<'a> Stack<'a> {
    fn new(plan: &'a Plan, source: &Source, columns: Option<&[usize]>, group_count: usize) -> Result<Self> {
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
                gram: vec![0.0; (row_count * row_count) as usize],
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

    fn add(&mut self, reduced: &Reduced) -> std::result::Result<(), numerics::moments::MomentsError> {
        if matches!(self.form, StackForm::OneLayer) {
            return Ok(());
        }
        let layer_mean = match self.plan.center {
            Center::Layer => Some(reduced.mean(self.width)?),
            Center::Global => None,
        };
        match (&mut self.form, reduced) {
            (StackForm::Merged(groups), Reduced::Moments(layer)) => {
                for (at, (stack, moments)) in groups.iter_mut().zip(layer).enumerate() {
                    self.norm_sums[at] += moments.norm_sum();
                    for (sum, x) in self.unit_sums[at].iter_mut().zip(moments.unit_sum()) {
                        *sum += x;
                    }
                    match &layer_mean {
                        Some(mean) => stack.merge(&moments.clone().translated(mean))?,
                        None => stack.merge(moments)?,
                    }
                }
            }
            (
                form,
                Reduced::Rows {
                    labels: row_labels,
                    rows,
                },
            ) => {
                let width = rows.len() / row_labels.len().max(1);
                for (row, label) in rows.chunks_exact(width.max(1)).zip(row_labels) {
                    let at = *label as usize;
                    let length = norm(row);
                    self.norm_sums[at] += length;
                    if length > 0.0 && width == self.width {
                        for (sum, x) in self.unit_sums[at].iter_mut().zip(row) {
                            *sum += x / length;
                        }
                    }
                }
                let shifted = layer_mean.as_ref().map(|mean| centred(rows, mean));
                let rows = shifted.as_ref().unwrap_or(rows);
                match form {
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
                        let mean = mean_of(rows, width);
                        let centred = centred(rows, &mean);
                        for (sum, x) in gram.iter_mut().zip(spectrum::gram(&centred, width)) {
                            *sum += x;
                        }
                        labels.clone_from(row_labels);
                        *total += width;
                    }
                    StackForm::Merged(_) | StackForm::OneLayer => {}
                }
            }
            (_, Reduced::Moments(_)) => {}
        }
        Ok(())
    }

    fn finish(
        self,
        source: &Source,
        layers: &[LayerFit],
        columns: Option<&[usize]>,
        component_count: usize,
    ) -> Result<StackFit> {
        let subject = source.name();
        let (plan, width, norm_sums, unit_sums) = (self.plan, self.width, self.norm_sums, self.unit_sums);
        let named = !source.groups.is_empty();
        let whole_norms = columns.is_none() || source.has_rows();
        // Norms and directions are of the rows as they are, whatever they were centred on.
        let with_norms = |mut summary: Summary, groups: &[usize]| {
            summary.norm_sum = groups.iter().map(|group| norm_sums[*group]).sum();
            summary.unit_sum = vec![0.0; width];
            for group in groups {
                for (sum, x) in summary.unit_sum.iter_mut().zip(&unit_sums[*group]) {
                    *sum += x;
                }
            }
            let count = summary.count;
            summary.norm_mean = (whole_norms && count > 0).then(|| summary.norm_sum / count as f64);
            summary.anisotropy = if whole_norms {
                measures::mean_pairwise_cosine(&summary.unit_sum, count)
            } else {
                None
            };
            summary
        };
        let every: Vec<usize> = (0..norm_sums.len()).collect();
        match self.form {
            StackForm::OneLayer => {
                let [layer] = layers else {
                    return Err(Error::bug("stack", "one layer was planned"));
                };
                Ok(StackFit {
                    all: layer.all.clone(),
                    groups: layer.groups.clone(),
                    segments: None,
                })
            }
            StackForm::Rows { labels, rows } => {
                let part = |rows: &[f64], groups: &[usize]| -> Result<Part> {
                    let summary = with_norms(Summary::of_rows(rows, width), groups);
                    let centred = centred(rows, &summary.mean);
                    let spectrum = Spectrum::of_centred_rows(&centred, width, component_count).at(&subject)?;
                    Ok(Part {
                        summary,
                        spectrum: leading_only(plan, spectrum),
                    })
                };
                let all = part(&rows, &every)?;
                let groups = (0..source.groups.len())
                    .map(|group| {
                        let own: Vec<f64> = rows
                            .chunks_exact(width)
                            .zip(&labels)
                            .filter(|(_, label)| **label as usize == group)
                            .flat_map(|(row, _)| row.iter().copied())
                            .collect();
                        part(&own, &[group])
                    })
                    .collect::<Result<Vec<Part>>>()?;
                Ok(StackFit {
                    all,
                    groups,
                    segments: None,
                })
            }
            StackForm::Accumulated(groups) => {
                let groups = groups
                    .into_iter()
                    .map(|group| group.finish().at(&subject))
                    .collect::<Result<Vec<Moments>>>()?;
                finish_moments(plan, groups, named, component_count, &subject, &with_norms, &every)
            }
            StackForm::Merged(groups) => {
                finish_moments(plan, groups, named, component_count, &subject, &with_norms, &every)
            }
            StackForm::Gram {
                labels,
                gram,
                width: total,
            } => {
                let row_count = labels.len();
                let part = |gram: Vec<f64>, count: usize, groups: &[usize]| -> Result<(Part, Vec<f64>)> {
                    let (spectrum, weights) = Spectrum::of_gram(gram, count, total, component_count).at(&subject)?;
                    let mut summary = Summary {
                        count: count as u64,
                        ..Summary::default()
                    };
                    // The norm of a row of all layers side by side is not a sum of the layers' norms: it is left out.
                    summary.norm_sum = groups.iter().map(|group| norm_sums[*group]).sum();
                    Ok((
                        Part {
                            summary,
                            spectrum: leading_only(plan, spectrum),
                        },
                        weights,
                    ))
                };
                let groups = (0..source.groups.len())
                    .map(|group| {
                        let own: Vec<usize> = (0..row_count).filter(|row| labels[*row] as usize == group).collect();
                        Ok(part(recentred(&gram, row_count, &own), own.len(), &[group])?.0)
                    })
                    .collect::<Result<Vec<Part>>>()?;
                let (all, weights) = part(gram, row_count, &every)?;
                let segments = segments(source, columns, &weights, row_count)?;
                Ok(StackFit {
                    all,
                    groups,
                    segments: Some(segments),
                })
            }
        }
    }
}

fn finish_moments(
    plan: &Plan,
    groups: Vec<Moments>,
    named: bool,
    component_count: usize,
    subject: &str,
    with_norms: &(impl Fn(Summary, &[usize]) -> Summary + Sync),
    every: &[usize],
) -> Result<StackFit> {
    let mut whole = Moments::empty(groups[0].width());
    for group in &groups {
        whole.merge(group).at(subject)?;
    }
    let part = |moments: &Moments, groups: &[usize]| -> Result<Part> {
        Ok(Part {
            summary: with_norms(Summary::of_moments(moments, true), groups),
            spectrum: spectrum_of(plan, moments, component_count).at(subject)?,
        })
    };
    let all = part(&whole, every)?;
    drop(whole);
    let groups = if named {
        groups
            .iter()
            .enumerate()
            .map(|(at, moments)| part(moments, &[at]))
            .collect::<Result<Vec<Part>>>()?
    } else {
        Vec::new()
    };
    Ok(StackFit {
        all,
        groups,
        segments: None,
    })
}

impl Reduced {
    fn mean(&self, width: usize) -> std::result::Result<Vec<f64>, numerics::moments::MomentsError> {
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

fn mean_of(rows: &[f64], width: usize) -> Vec<f64> {
    Summary::of_rows(rows, width).mean
}

/// The Gram matrix of some of the rows, centred on their own mean.
fn recentred(gram: &[f64], row_count: usize, own: &[usize]) -> Vec<f64> {
    let n = own.len();
    let mut part: Vec<f64> = own
        .iter()
        .flat_map(|i| own.iter().map(move |j| gram[i * row_count + j]))
        .collect();
    let means: Vec<f64> = part
        .chunks_exact(n.max(1))
        .map(|row| row.iter().sum::<f64>() / n as f64)
        .collect();
    let grand = means.iter().sum::<f64>() / n.max(1) as f64;
    for (i, row) in part.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            *x += grand - means[i] - means[j];
        }
    }
    part
}

/// What each layer contributes to the components of the concatenated layout.
fn segments(source: &Source, columns: Option<&[usize]>, weights: &[f64], row_count: usize) -> Result<Vec<Vec<f64>>> {
    let component_count = weights.len() / row_count.max(1);
    let mut segments = Vec::with_capacity(source.layers.len());
    for layer in &source.layers {
        let rows = Rows { source, layer, columns };
        let width = rows.width();
        let (_, rows) = rows.all()?;
        let centred = centred(&rows, &mean_of(&rows, width));
        let mut segment = vec![0.0; component_count * width];
        product::multiply(
            View::new(weights, component_count, row_count, row_count),
            View::new(&centred, row_count, width, width),
            &mut segment,
            width,
        );
        segments.push(segment);
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

/// Leading pairs of the rows of some layers together, by passes over them: nothing of the size of a covariance is formed.
fn leading_by_passes(layers: &[Rows<'_>], count: usize) -> Result<Part> {
    let width = layers[0].width();
    let (summary, total) = summary_by_pass(layers)?;
    let row_count = summary.count as f64;
    let goal = Goal {
        count,
        tolerance: ROWS_TOLERANCE,
        pass_count_max: ROWS_PASS_COUNT_MAX,
    };
    let apply = |block: &[f64]| -> std::result::Result<Vec<f64>, PassError> {
        Ok(apply_covariance(layers, &summary.mean, block, row_count)?)
    };
    let (spectrum, _, _) =
        Spectrum::of_operator(width, total / row_count, goal, apply).map_err(|error| match error {
            PassError::Lapack(error) => Error::from_source(layers[0].source.name(), &error),
            PassError::Run(error) => error,
        })?;
    Ok(Part { summary, spectrum })
}

enum PassError {
    Lapack(LapackError),
    Run(Error),
}

impl From<LapackError> for PassError {
    fn from(error: LapackError) -> Self {
        Self::Lapack(error)
    }
}

impl From<Error> for PassError {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// Mean, norms and total scatter in one pass over blocks (Chan's update without the products).
fn summary_by_pass(layers: &[Rows<'_>]) -> Result<(Summary, f64)> {
    let width = layers[0].width();
    let mut count = 0_u64;
    let mut mean = vec![0.0; width];
    let mut scatter = vec![0.0; width];
    let mut unit_sum = vec![0.0; width];
    let mut norm_sum = 0.0;
    each_block(layers, |block| {
        let block_count = block.prompts.len() as f64;
        let norms: Vec<f64> = block.rows.par_chunks(width).with_min_len(16).map(norm).collect();
        if let Some(bad) = norms.iter().position(|norm| !norm.is_finite()) {
            let row = count as usize + bad;
            return Err(Error::input(
                layers[0].source.name(),
                format!("row {row} holds a number that is not finite"),
            ));
        }
        let total = count as f64 + block_count;
        let share = block_count / total;
        let weight = count as f64 * share;
        mean.par_chunks_mut(64)
            .zip(scatter.par_chunks_mut(64))
            .zip(unit_sum.par_chunks_mut(64))
            .enumerate()
            .for_each(|(chunk, ((mean, scatter), unit_sum))| {
                let columns = chunk * 64..chunk * 64 + mean.len();
                let origin: Vec<f64> = block.rows[columns.clone()].iter().map(|x| f64::from(*x)).collect();
                let (mut sums, mut squares) = (vec![0.0; mean.len()], vec![0.0; mean.len()]);
                for (row, norm) in block.rows.chunks_exact(width).zip(&norms) {
                    let inverse = if *norm > 0.0 { 1.0 / norm } else { 0.0 };
                    for (j, x) in row[columns.clone()].iter().enumerate() {
                        let x = f64::from(*x);
                        let shifted = x - origin[j];
                        sums[j] += shifted;
                        squares[j] += shifted * shifted;
                        unit_sum[j] += x * inverse;
                    }
                }
                for j in 0..mean.len() {
                    let delta = origin[j] + sums[j] / block_count - mean[j];
                    scatter[j] += squares[j] - sums[j] * sums[j] / block_count + delta * delta * weight;
                    mean[j] += delta * share;
                }
            });
        count += block.prompts.len() as u64;
        norm_sum += norms.iter().sum::<f64>();
        Ok(())
    })?;
    let total = scatter.iter().sum();
    let n = count as f64;
    let summary = Summary {
        count,
        root_mean_squares: mean
            .iter()
            .zip(&scatter)
            .map(|(mean, s)| (mean * mean + s / n).sqrt())
            .collect(),
        norm_mean: Some(norm_sum / n),
        anisotropy: measures::mean_pairwise_cosine(&unit_sum, count),
        mean,
        norm_sum,
        unit_sum,
    };
    Ok((summary, total))
}

/// (1/N) Σ (x − x̄)(x − x̄)ᵀ v for every row v of `vectors`: f32 products of short blocks, summed in f64.
fn apply_covariance(layers: &[Rows<'_>], mean: &[f64], vectors: &[f64], row_count: f64) -> Result<Vec<f64>> {
    const PIECE: usize = 128;
    let width = layers[0].width();
    let count = vectors.len() / width;
    let single: Vec<f32> = vectors.iter().map(|x| *x as f32).collect();
    let mut sums = vec![0.0; vectors.len()];
    each_block(layers, |block| {
        let pieces: Vec<Vec<f32>> = block
            .rows
            .par_chunks(PIECE * width)
            .map(|rows| {
                let n = rows.len() / width;
                let mut centred = vec![0.0_f32; rows.len()];
                for (centred, row) in centred.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
                    for ((centred, x), mean) in centred.iter_mut().zip(row).zip(mean) {
                        *centred = (f64::from(*x) - mean) as f32;
                    }
                }
                let mut along = vec![0.0_f32; count * n]; // (vectors, rows)
                let rows = View::new(&centred, n, width, width);
                product::multiply(
                    View::new(&single, count, width, width),
                    rows.transposed(),
                    &mut along,
                    n,
                );
                let mut out = vec![0.0_f32; count * width];
                product::multiply(View::new(&along, count, n, n), rows, &mut out, width);
                out
            })
            .collect();
        sums.par_chunks_mut(width).enumerate().for_each(|(vector, sums)| {
            for piece in &pieces {
                for (sum, x) in sums.iter_mut().zip(&piece[vector * width..]) {
                    *sum += f64::from(*x);
                }
            }
        });
        Ok(())
    })?;
    for sum in &mut sums {
        *sum /= row_count;
    }
    Ok(sums)
}

fn each_block(layers: &[Rows<'_>], mut visit: impl FnMut(Block<'_, f32>) -> Result<()>) -> Result<()> {
    layers.iter().try_for_each(|rows| rows.for_each::<f32>(&mut visit))
}

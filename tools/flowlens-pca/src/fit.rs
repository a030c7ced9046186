//! The analysis itself: rows or moments of every layer and group become summaries and spectra, for the layers and for the whole.
//!
//! Where a layer has no more rows than dimensions, spectra come from the Gram matrix of its rows; otherwise from moments, which are
//! then all that is held. Which of the two is decided by the shapes alone.

mod layer;
mod passes;
mod reduced;
mod stack;
mod summary;

pub use stack::StackFit;
pub use summary::{Contrasted, Summary, centred, dot};

use crate::cli::{Center, Layout};
use crate::plan::{Components, DropDims, Plan};
use crate::rows::Rows;
use crate::source::Source;
use layer::fit_layer;
use numerics::measures;
use numerics::moments::Moments;
use numerics::spectrum::Spectrum;
use passes::leading_by_passes;
use process::{Error, Progress, Result, ResultExt};
use rayon::prelude::*;
use reduced::reduce;
use stack::Stack;

/// Components kept beside the intrinsic dimension: the leading eight are reported everywhere.
pub const COMPONENT_COUNT: usize = 8;

/// Components kept where rows are resampled: the space in which resamples are solved.
pub const RESAMPLED_COMPONENT_COUNT: usize = 64;

/// A pass costs the work of a covariance times block rows over width; some ten passes are needed, at a far lower rate than the scatter
/// kernel's. Six components of 2,048 dimensions take 1.6 times as long by passes, of 4,096 0.9 times as long and two thirds of the memory.
const WIDTH_PER_COMPONENT_FOR_PASSES: usize = 256;

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

pub struct Fit {
    /// The dimensions kept; `None` for all.
    pub columns: Option<Vec<usize>>,
    pub layers: Vec<LayerFit>,
    pub stack: StackFit,
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
        if source.has_rows() {
            for layer in &source.layers {
                let width = columns.as_ref().map_or(layer.width, Vec::len);
                check_rank(plan, &source.name(), source.row_count(), width)?;
            }
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
            stack: StackFit::new(all, Vec::new()),
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

/// Centred rows span no more dimensions than there are of them less one.
fn check_rank(plan: &Plan, subject: &str, row_count: u64, width: usize) -> Result<()> {
    let rank = row_count.saturating_sub(1).min(width as u64);
    match plan.components {
        Components::Leading(count) if count as u64 > rank => Err(Error::input(
            subject,
            format!(
                "{row_count} rows of {width} dimensions have no more than {rank} components, and {count} were asked for"
            ),
        )
        .hint(if rank > 0 {
            format!("--components {rank}")
        } else {
            "more rows".to_owned()
        })),
        _ => Ok(()),
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
    // Per layer and group a packed triangle; per factorisation a full matrix and workspace.
    let each = width * width * 8 * (2 + source.groups.len() as u64 / 2);
    let bound = (plan.max_memory / each.max(1)).max(1) as usize;
    rayon::current_num_threads().min(bound).max(1)
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

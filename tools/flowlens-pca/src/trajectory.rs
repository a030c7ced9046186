//! Trajectories: where the centre of a group (or one prompt) lies along a component, layer by layer.

use crate::cli::{Center, Layout, Measures};
use crate::fit::{Fit, LayerFit, dot};
use crate::plan::Plan;
use crate::rows::Rows;
use crate::source::Source;
use numerics::rng::Rng;
use numerics::{path, statistics};
use process::{Error, Result};
use products::matrix;
use rayon::prelude::*;
use records::Trajectory;

/// Intervals are resampled up to this many prompts; a mean over more has none worth drawing.
const RESAMPLED_PROMPTS_MAX: usize = 20_000;
/// Components that span the space of `center3`.
const CENTER_COMPONENTS: usize = 3;
const LEVEL: f64 = 0.95;

/// The components that trajectories are drawn on.
pub struct Axes<'a> {
    /// "own" or "reference".
    pub basis: &'static str,
    /// The common mean, where the basis has one; otherwise every layer is centred on its own.
    pub mean: Option<&'a [f64]>,
    /// Components of each layer, (components, width): the same ones in the stacked layout.
    pub components: Vec<&'a [f64]>,
    /// 1-based number of PC_ID.
    pub component_id: Option<usize>,
}

impl<'a> Axes<'a> {
    pub fn own(plan: &Plan, fit: &'a Fit, component_id: Option<usize>) -> Self {
        let stack = &fit.stack.all;
        let components = match &fit.stack.segments {
            Some(segments) => segments.iter().map(Vec::as_slice).collect(),
            None => vec![stack.spectrum.components.as_slice(); fit.layers.len()],
        };
        let common = plan.center == Center::Global && plan.layout == Layout::Stacked;
        Self {
            basis: "own",
            mean: common.then_some(stack.summary.mean.as_slice()),
            components,
            component_id,
        }
    }

    fn names(&self, fit: &Fit) -> Vec<(String, usize)> {
        let counts = self.components.iter().zip(&fit.layers).map(|(rows, layer)| {
            let width = layer.all.summary.mean.len();
            rows.len() / width.max(1)
        });
        let count = counts.min().unwrap_or(0);
        let mut names = Vec::new();
        if count > 0 {
            names.push(("1".to_owned(), 0));
        }
        if let Some(id) = self.component_id.filter(|id| (1..=count).contains(id)) {
            names.push(("id".to_owned(), id - 1));
        }
        names
    }

    fn origin<'b>(&'b self, layer: &'b LayerFit) -> &'b [f64] {
        self.mean.unwrap_or(&layer.all.summary.mean)
    }

    fn component(&self, layer: usize, index: usize, width: usize) -> &[f64] {
        &self.components[layer][index * width..(index + 1) * width]
    }
}

/// Projections of every prompt (the mean of its rows), per layer: (prompts, components of `names`, then the first three).
struct PromptProjections {
    layers: Vec<Vec<f64>>,
    width: usize,
}

pub fn all(plan: &Plan, source: &Source, fit: &Fit, axes: &Axes<'_>) -> Result<Vec<Trajectory>> {
    let names = axes.names(fit);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let has_intervals = plan.measures == Measures::All
        && plan.resamples > 0
        && source.has_rows()
        && source.prompt_count() <= RESAMPLED_PROMPTS_MAX;
    let prompts = (has_intervals || plan.prompts.is_some())
        .then(|| PromptProjections::new(source, fit, axes, &names))
        .transpose()?;
    let drawing = Drawing {
        source,
        fit,
        axes,
        names: &names,
        layer_index: fit.layers.iter().map(|layer| layer.index).collect(),
    };
    let mut found = drawing.groups(|group| match (&prompts, has_intervals) {
        (Some(prompts), true) => prompts.intervals(plan, source, group, names.len()),
        _ => None,
    });
    if let (Some(wish), Some(prompts)) = (&plan.prompts, &prompts) {
        found.extend(drawing.prompts(prompts, wish)?);
    }
    Ok(found)
}

/// Low and high of every layer, by component.
type Intervals = Vec<(Vec<f64>, Vec<f64>)>;

/// What all trajectories of one basis share.
struct Drawing<'a> {
    source: &'a Source,
    fit: &'a Fit,
    axes: &'a Axes<'a>,
    names: &'a [(String, usize)],
    layer_index: Vec<u32>,
}

impl Drawing<'_> {
    /// The centres of all rows, or of every group.
    fn groups(&self, intervals: impl Fn(Option<usize>) -> Option<Intervals>) -> Vec<Trajectory> {
        let named = self.source.groups.iter().cloned().zip((0..).map(Some));
        let groups: Vec<(String, Option<usize>)> = match self.source.groups.is_empty() {
            true => vec![(String::new(), None)],
            false => named.collect(),
        };
        let mut found = Vec::new();
        for (group, at) in groups {
            let centres: Vec<Vec<f64>> = (0..self.fit.layers.len()).map(|layer| self.centre(layer, at)).collect();
            let intervals = intervals(at);
            for (order, (component, index)) in self.names.iter().enumerate() {
                let projection = centres.iter().map(|centre| centre[*index]).collect();
                let (low, high) = intervals.as_ref().map(|all| all[order].clone()).unzip();
                found.push(Trajectory {
                    group: Some(group.clone()),
                    low,
                    high,
                    ..self.trajectory(component, projection, &centres)
                });
            }
        }
        found
    }

    /// The centre of a group (or of all rows) in one layer, along every component.
    fn centre(&self, layer: usize, group: Option<usize>) -> Vec<f64> {
        let fit = &self.fit.layers[layer];
        let part = group.map_or(&fit.all, |group| &fit.groups[group]);
        let from_origin = part.summary.mean.iter().zip(self.axes.origin(fit));
        let offset: Vec<f64> = from_origin.map(|(mean, origin)| mean - origin).collect();
        let components = self.axes.components[layer].chunks_exact(offset.len());
        components.map(|component| dot(&offset, component)).collect()
    }

    /// Single prompts, by id.
    fn prompts(&self, prompts: &PromptProjections, wish: &str) -> Result<Vec<Trajectory>> {
        let mut found = Vec::new();
        for (id, prompt) in chosen_prompts(wish, self.source)? {
            let rows: Vec<&[f64]> = prompts.layers.iter().map(|layer| prompts.row(layer, prompt)).collect();
            let centres: Vec<Vec<f64>> = rows.iter().map(|row| row[self.names.len()..].to_vec()).collect();
            for (order, (component, _)) in self.names.iter().enumerate() {
                let projection = rows.iter().map(|row| row[order]).collect();
                found.push(Trajectory {
                    id: Some(id.clone()),
                    ..self.trajectory(component, projection, &centres)
                });
            }
        }
        Ok(found)
    }

    /// A path of nobody's, without intervals.
    fn trajectory(&self, component: &str, projection: Vec<f64>, centres: &[Vec<f64>]) -> Trajectory {
        let count = centres.iter().map(Vec::len).min().unwrap_or(0).min(CENTER_COMPONENTS);
        let center3: Vec<Vec<f64>> = centres.iter().map(|centre| centre[..count].to_vec()).collect();
        let flat: Vec<f64> = center3.iter().flatten().copied().collect();
        let depth = |layer: &u32| self.source.depth(Some(*layer)).depth;
        let norms: Option<Vec<f64>> = self
            .fit
            .layers
            .iter()
            .map(|layer| layer.all.summary.norm_mean)
            .collect();
        let norms = norms.filter(|norms| norms.iter().all(|norm| *norm > 0.0));
        Trajectory {
            group: None,
            id: None,
            component: component.to_owned(),
            basis: self.axes.basis.to_owned(),
            layer_count: self.source.layer_count(),
            layer_index: self.layer_index.iter().map(|layer| *layer as usize).collect(),
            depth: self.layer_index.iter().filter_map(depth).collect(),
            norm_correlation: norms
                .as_ref()
                .and_then(|norms| statistics::correlation(&projection, norms)),
            projection_normed: norms.map(|norms| projection.iter().zip(norms).map(|(x, norm)| x / norm).collect()),
            projection,
            low: None,
            high: None,
            smoothness_ratio: path::smoothness_ratio(matrix(&flat, center3.len(), count)),
            turning_angle: path::turning_angle(matrix(&flat, center3.len(), count)),
            center3,
            rest: Default::default(),
        }
    }
}

/// Prompts named by id, or all of them.
fn chosen_prompts(wish: &str, source: &Source) -> Result<Vec<(String, usize)>> {
    let Some(prompts) = source.prompts() else {
        return Err(Error::input(
            source.name(),
            "has no sample records, so no prompts to name",
        ));
    };
    if wish == "all" {
        return Ok(prompts.ids.iter().cloned().zip(0..).collect());
    }
    wish.split(',')
        .map(|id| {
            let at = prompts
                .ids
                .iter()
                .position(|known| known == id)
                .ok_or_else(|| Error::input(source.name(), format!("there is no prompt \"{id}\"")))?;
            Ok((id.to_owned(), at))
        })
        .collect()
}

impl PromptProjections {
    fn new(source: &Source, fit: &Fit, axes: &Axes<'_>, names: &[(String, usize)]) -> Result<Self> {
        let prompt_count = source.prompt_count();
        let mut layers = Vec::with_capacity(fit.layers.len());
        let mut width = 0;
        for (l, (layer, one)) in source.layers.iter().zip(&fit.layers).enumerate() {
            let rows = Rows {
                source,
                layer,
                columns: fit.columns.as_deref(),
            };
            let d = rows.width();
            let count = (axes.components[l].len() / d).min(CENTER_COMPONENTS);
            let vectors: Vec<&[f64]> = names
                .iter()
                .map(|(_, index)| axes.component(l, *index, d))
                .chain((0..count).map(|index| axes.component(l, index, d)))
                .collect();
            width = vectors.len();
            let origin = axes.origin(one);
            let mut sums = vec![0.0; prompt_count * width];
            let mut row_counts = vec![0.0; prompt_count];
            rows.for_each::<f64>(|block| {
                let projected: Vec<Vec<f64>> = block
                    .rows
                    .par_chunks(d)
                    .with_min_len(16)
                    .map(|row| {
                        let offset: Vec<f64> = row.iter().zip(origin).map(|(x, origin)| x - origin).collect();
                        vectors.iter().map(|vector| dot(&offset, vector)).collect()
                    })
                    .collect();
                for (prompt, values) in block.prompts.iter().zip(projected) {
                    let at = *prompt as usize;
                    row_counts[at] += 1.0;
                    for (sum, value) in sums[at * width..(at + 1) * width].iter_mut().zip(values) {
                        *sum += value;
                    }
                }
                Ok(())
            })?;
            for (sums, count) in sums.chunks_exact_mut(width.max(1)).zip(&row_counts) {
                for sum in sums {
                    *sum /= f64::max(*count, 1.0);
                }
            }
            layers.push(sums);
        }
        Ok(Self { layers, width })
    }

    fn row<'b>(&self, layer: &'b [f64], prompt: usize) -> &'b [f64] {
        &layer[prompt * self.width..(prompt + 1) * self.width]
    }

    /// Percentile intervals of the group's mean over resampled prompts: per component, low and high of every layer.
    fn intervals(
        &self,
        plan: &Plan,
        source: &Source,
        group: Option<usize>,
        component_count: usize,
    ) -> Option<Intervals> {
        let own: Vec<usize> = (0..source.prompt_count())
            .filter(|prompt| group.is_none_or(|group| source.group_of(*prompt as u32) == group))
            .collect();
        if own.len() < 2 {
            return None;
        }
        let rng = Rng::new(plan.seed, "trajectory");
        let n = own.len() as f64;
        // (resamples)(layers × components)
        let replicates: Vec<Vec<f64>> = (0..plan.resamples)
            .into_par_iter()
            .map(|resample| {
                let counts = statistics::resample_counts(&rng, resample, own.len());
                let mut means = vec![0.0; self.layers.len() * component_count];
                for (l, layer) in self.layers.iter().enumerate() {
                    for (prompt, count) in own.iter().zip(&counts) {
                        let values = &self.row(layer, *prompt)[..component_count];
                        for (mean, value) in means[l * component_count..].iter_mut().zip(values) {
                            *mean += f64::from(*count) * value / n;
                        }
                    }
                }
                means
            })
            .collect();
        Some(
            (0..component_count)
                .map(|component| {
                    (0..self.layers.len())
                        .filter_map(|l| {
                            let mut values: Vec<f64> = replicates
                                .iter()
                                .map(|means| means[l * component_count + component])
                                .collect();
                            values.sort_unstable_by(f64::total_cmp);
                            statistics::percentile_interval(&values, LEVEL)
                                .map(|interval| (interval.low, interval.high))
                        })
                        .unzip()
                })
                .collect(),
        )
    }
}

//! What needs the rows a second time: distances from the centre, intrinsic dimension, silhouette.

use crate::cli::{Center, Layout, Measures};
use crate::fit::{Contrasted, Fit, LayerFit, Part};
use crate::plan::Plan;
use crate::rows::Rows;
use crate::source::Source;
use numerics::rng::Rng;
use numerics::{classes, dimension, neighbours};
use process::Result;
use products::matrix;

/// Neighbours of the Levina–Bickel estimate.
const NEIGHBOUR_COUNT: usize = 20;

/// Measures of one set of rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread {
    /// Mean distance from the centroid.
    pub dispersion: Option<f64>,
    pub id_twonn: Option<f64>,
    pub id_mle: Option<f64>,
}

#[derive(Debug, Clone, Default)]
pub struct LayerSpread {
    pub all: Spread,
    pub groups: Vec<Spread>,
    /// Of the two contrasted groups.
    pub silhouette: Option<f64>,
}

pub struct Spreads {
    pub layers: Vec<LayerSpread>,
    pub stack: LayerSpread,
}

impl Spreads {
    pub fn new(plan: &Plan, source: &Source, fit: &Fit) -> Result<Self> {
        if plan.measures == Measures::Moments {
            let none = LayerSpread {
                groups: vec![Spread::default(); source.groups.len()],
                ..LayerSpread::default()
            };
            return Ok(Self {
                layers: vec![none.clone(); fit.layers.len()],
                stack: none,
            });
        }
        let drawn = Drawn::new(plan, source);
        if let ([layer], [layer_fit]) = (&source.layers[..], &fit.layers[..])
            && plan.center == Center::Global
            && plan.layout == Layout::Stacked
        {
            // One layer is its own stack: nothing is searched twice.
            let rows = Rows {
                source,
                layer,
                columns: fit.columns.as_deref(),
            };
            let only = layer_spread(&rows, layer_fit, &drawn)?;
            return Ok(Self {
                layers: vec![only.clone()],
                stack: only,
            });
        }
        let mut layers = Vec::with_capacity(fit.layers.len());
        let mut stack = StackRows::new(plan, source, &drawn);
        for (layer, layer_fit) in source.layers.iter().zip(&fit.layers) {
            let rows = Rows {
                source,
                layer,
                columns: fit.columns.as_deref(),
            };
            layers.push(layer_spread(&rows, layer_fit, &drawn)?);
            stack.add(&rows, layer_fit, &fit.stack.all, &fit.stack.groups)?;
        }
        Ok(Self {
            layers,
            stack: stack.finish(),
        })
    }
}

/// The rows that take part where all pairs are needed: the same in every layer.
struct Drawn {
    all: Vec<usize>,
    groups: Vec<Vec<usize>>,
    /// Group of every row, where there are groups.
    labels: Vec<u32>,
    rng: Rng,
    count: usize,
}

impl Drawn {
    fn new(plan: &Plan, source: &Source) -> Self {
        let rng = Rng::new(plan.seed, "neighbours");
        let row_count = source.row_count() as usize;
        let count = plan.neighbour_rows;
        let labels: Vec<u32> = if source.groups.is_empty() {
            Vec::new()
        } else {
            source
                .runs()
                .iter()
                .flat_map(|run| std::iter::repeat_n(source.group_of(run.prompt) as u32, run.row_count as usize))
                .collect()
        };
        let groups = (0..source.groups.len())
            .map(|group| {
                let own: Vec<usize> = (0..row_count).filter(|row| labels[*row] as usize == group).collect();
                rng.subset(1 + group as u64, count, own.len())
                    .into_iter()
                    .map(|at| own[at])
                    .collect()
            })
            .collect();
        Self {
            all: rng.subset(0, count, row_count),
            groups,
            labels,
            rng,
            count,
        }
    }
}

fn layer_spread(rows: &Rows<'_>, fit: &LayerFit, drawn: &Drawn) -> Result<LayerSpread> {
    let mut distances = Distances::new(&fit.all, &fit.groups);
    rows.for_each::<f64>(|block| {
        distances.add(block.rows, block.prompts, rows.source, rows.width());
        Ok(())
    })?;
    let mut spread = distances.finish();
    (spread.all.id_twonn, spread.all.id_mle) = dimensions(&single(rows, &drawn.all, &fit.all)?, rows.width());
    for (group, (spread, part)) in spread.groups.iter_mut().zip(&fit.groups).enumerate() {
        (spread.id_twonn, spread.id_mle) = dimensions(&single(rows, &drawn.groups[group], part)?, rows.width());
    }
    if let Some(Contrasted { a, b, .. }) = &fit.contrast {
        let mut indices: Vec<usize> = drawn.groups[*a].iter().chain(&drawn.groups[*b]).copied().collect();
        indices.sort_unstable();
        let in_first: Vec<bool> = indices.iter().map(|row| drawn.labels[*row] as usize == *a).collect();
        let both = crate::fit::centred(&rows.subset::<f64>(&indices)?, &fit.all.summary.mean);
        spread.silhouette = classes::silhouette(matrix(&both, indices.len(), rows.width()), &in_first);
    }
    Ok(spread)
}

/// The drawn rows as f32: as they are where they are stored so, else after centring in f64, so that a large mean costs no digits.
fn single(rows: &Rows<'_>, indices: &[usize], part: &Part) -> Result<Vec<f32>> {
    if !rows.source.is_double() {
        return rows.subset::<f32>(indices);
    }
    let centred = crate::fit::centred(&rows.subset::<f64>(indices)?, &part.summary.mean);
    Ok(centred.into_iter().map(|x| x as f32).collect())
}

fn dimensions(rows: &[f32], width: usize) -> (Option<f64>, Option<f64>) {
    let row_count = rows.len() / width.max(1);
    let count = NEIGHBOUR_COUNT.min(row_count.saturating_sub(1));
    match neighbours::nearest(matrix(rows, row_count, width), count) {
        Some(found) if count >= 2 => (dimension::two_nn(&found), dimension::levina_bickel(&found)),
        _ => (None, None),
    }
}

/// Sums of ‖x − centroid‖ for everything and for each group.
struct Distances<'a> {
    all: &'a Part,
    groups: &'a [Part],
    sum: f64,
    group_sums: Vec<f64>,
}

impl<'a> Distances<'a> {
    fn new(all: &'a Part, groups: &'a [Part]) -> Self {
        Self {
            all,
            groups,
            sum: 0.0,
            group_sums: vec![0.0; groups.len()],
        }
    }

    fn add(&mut self, rows: &[f64], prompts: &[u32], source: &Source, width: usize) {
        use rayon::prelude::*;
        let found: Vec<(f64, f64)> = rows
            .par_chunks(width)
            .zip(prompts)
            .with_min_len(16)
            .map(|(row, prompt)| {
                let own = self
                    .groups
                    .get(source.group_of(*prompt))
                    .map_or(0.0, |part| distance(row, &part.summary.mean));
                (distance(row, &self.all.summary.mean), own)
            })
            .collect();
        for ((whole, own), prompt) in found.into_iter().zip(prompts) {
            self.sum += whole;
            if let Some(sum) = self.group_sums.get_mut(source.group_of(*prompt)) {
                *sum += own;
            }
        }
    }

    fn finish(self) -> LayerSpread {
        let mean = |sum: f64, part: &Part| (part.summary.count > 0).then(|| sum / part.summary.count as f64);
        LayerSpread {
            all: Spread {
                dispersion: mean(self.sum, self.all),
                ..Spread::default()
            },
            groups: self
                .group_sums
                .iter()
                .zip(self.groups)
                .map(|(sum, part)| Spread {
                    dispersion: mean(*sum, part),
                    ..Spread::default()
                })
                .collect(),
            silhouette: None,
        }
    }
}

fn distance(row: &[f64], centre: &[f64]) -> f64 {
    row.iter()
        .zip(centre)
        .map(|(x, c)| (x - c) * (x - c))
        .sum::<f64>()
        .sqrt()
}

/// Rows of the whole analysis, drawn from all layers.
struct StackRows<'a> {
    plan: &'a Plan,
    source: &'a Source,
    /// Per layer, the drawn rows of everything and of each group.
    all: Vec<Vec<usize>>,
    groups: Vec<Vec<Vec<usize>>>,
    layer: usize,
    width: usize,
    rows: Vec<f32>,
    group_rows: Vec<Vec<f32>>,
    sum: f64,
    group_sums: Vec<f64>,
    counts: (u64, Vec<u64>),
}

impl<'a> StackRows<'a> {
    fn new(plan: &'a Plan, source: &'a Source, drawn: &Drawn) -> Self {
        let layer_count = source.layers.len();
        let row_count = source.row_count() as usize;
        let group_count = source.groups.len();
        let (all, groups) = if plan.layout == Layout::Concat {
            (
                vec![drawn.all.clone(); layer_count],
                vec![drawn.groups.clone(); layer_count],
            )
        } else {
            // (layer, row) pairs are drawn as one population.
            let spread = |unit: u64, own: &[usize]| {
                let mut per_layer = vec![Vec::new(); layer_count];
                for at in drawn.rng.subset(unit, drawn.count, layer_count * own.len()) {
                    per_layer[at / own.len()].push(own[at % own.len()]);
                }
                per_layer
            };
            let every: Vec<usize> = (0..row_count).collect();
            let all = spread(1 << 32, &every);
            let mut groups = vec![Vec::with_capacity(group_count); layer_count];
            for group in 0..group_count {
                let own: Vec<usize> = (0..row_count)
                    .filter(|row| drawn.labels[*row] as usize == group)
                    .collect();
                for (layer, rows) in groups.iter_mut().zip(spread((1 << 32) + 1 + group as u64, &own)) {
                    layer.push(rows);
                }
            }
            (all, groups)
        };
        Self {
            plan,
            source,
            all,
            groups,
            layer: 0,
            width: 0,
            rows: Vec::new(),
            group_rows: vec![Vec::new(); group_count],
            sum: 0.0,
            group_sums: vec![0.0; group_count],
            counts: (0, vec![0; group_count]),
        }
    }

    fn add(&mut self, rows: &Rows<'_>, fit: &LayerFit, stack: &Part, groups: &[Part]) -> Result<()> {
        let layer = self.layer;
        self.layer += 1;
        let offset = (self.plan.center == Center::Layer).then_some(&fit.all);
        let taken = drawn_rows(rows, &self.all[layer], offset)?;
        if self.plan.layout == Layout::Concat {
            beside(&mut self.rows, self.width, &taken, rows.width());
            for (group, all) in self.group_rows.iter_mut().enumerate() {
                beside(
                    all,
                    self.width,
                    &drawn_rows(rows, &self.groups[layer][group], offset)?,
                    rows.width(),
                );
            }
            self.width += rows.width();
            return Ok(());
        }
        self.width = rows.width();
        self.rows.extend(taken);
        for (group, all) in self.group_rows.iter_mut().enumerate() {
            all.extend(drawn_rows(rows, &self.groups[layer][group], offset)?);
        }
        let mut centre = Part { ..stack.clone() };
        let mut centres = groups.to_vec();
        if let Some(offset) = offset {
            // Stack means are of rows less their layer's mean.
            for part in std::iter::once(&mut centre).chain(&mut centres) {
                for (x, mean) in part.summary.mean.iter_mut().zip(&offset.summary.mean) {
                    *x += mean;
                }
            }
        }
        let mut distances = Distances::new(&centre, &centres);
        rows.for_each::<f64>(|block| {
            distances.add(block.rows, block.prompts, self.source, rows.width());
            Ok(())
        })?;
        self.sum += distances.sum;
        for (sum, own) in self.group_sums.iter_mut().zip(&distances.group_sums) {
            *sum += own;
        }
        self.counts.0 += fit.all.summary.count;
        for (count, part) in self.counts.1.iter_mut().zip(&fit.groups) {
            *count += part.summary.count;
        }
        Ok(())
    }

    fn finish(self) -> LayerSpread {
        let mean = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        let spread = |rows: &[f32], sum: f64, count: u64| {
            let (id_twonn, id_mle) = dimensions(rows, self.width);
            Spread {
                dispersion: mean(sum, count),
                id_twonn,
                id_mle,
            }
        };
        LayerSpread {
            all: spread(&self.rows, self.sum, self.counts.0),
            groups: (0..self.group_rows.len())
                .map(|at| spread(&self.group_rows[at], self.group_sums[at], self.counts.1[at]))
                .collect(),
            silhouette: None,
        }
    }
}

fn drawn_rows(rows: &Rows<'_>, indices: &[usize], offset: Option<&Part>) -> Result<Vec<f32>> {
    match offset {
        None if !rows.source.is_double() => rows.subset::<f32>(indices),
        None => Ok(rows.subset::<f64>(indices)?.into_iter().map(|x| x as f32).collect()),
        Some(part) => {
            let centred = crate::fit::centred(&rows.subset::<f64>(indices)?, &part.summary.mean);
            Ok(centred.into_iter().map(|x| x as f32).collect())
        }
    }
}

/// Puts `fresh` to the right of `all`.
fn beside(all: &mut Vec<f32>, width: usize, fresh: &[f32], fresh_width: usize) {
    let row_count = fresh.len() / fresh_width.max(1);
    let mut joined = Vec::with_capacity(all.len() + fresh.len());
    for row in 0..row_count {
        joined.extend_from_slice(&all[row * width..(row + 1) * width]);
        joined.extend_from_slice(&fresh[row * fresh_width..(row + 1) * fresh_width]);
    }
    *all = joined;
}

//! `--against`: how the components, the representation and the concentration of variance differ from a reference.
//!
//! Intervals come from a bootstrap over prompts: both sides draw the same prompts where they hold the same ids (paired). A resample's
//! leading eigenvalues are solved in the space of the leading components of all prompts, its total variance exactly.

use crate::basis::Basis;
use crate::cli::{Center, Layout, Measures};
use crate::fit::{Fit, Part, RESAMPLED_COMPONENT_COUNT, centred, dot};
use crate::plan::Plan;
use crate::report::CONCENTRATION_COUNTS;
use crate::rows::Rows;
use crate::source::Source;
use numerics::rng::Rng;
use numerics::spectrum::gram;
use numerics::{lapack, measures, statistics, subspace};
use process::{Error, Result, ResultExt};
use products::{Product, matrix};
use rayon::prelude::*;
use records::Compare;
use std::collections::HashMap;

const LEVEL: f64 = 0.95;

/// A dump, its fit, and where its prompts stand in the order of the other side.
pub struct Side<'a> {
    pub source: &'a Source,
    pub fit: &'a Fit,
}

/// Against a saved basis: components only.
pub fn with_basis(
    plan: &Plan,
    source: &Source,
    fit: &Fit,
    basis: &Basis,
    component_id: Option<usize>,
) -> Result<Vec<Compare>> {
    let width = source.layers[0].width;
    let mut rows = Vec::new();
    for (at, layer) in fit.layers.iter().enumerate() {
        let own = match &fit.stack.segments {
            Some(segments) => segments[at].clone(),
            None if plan.center == Center::Layer => layer.all.spectrum.components.clone(),
            None => continue,
        };
        let Some((_, _, theirs)) = basis.layers.iter().find(|(index, _, _)| *index == layer.index) else {
            continue;
        };
        let theirs = basis.narrowed(theirs, source.layers[at].width, fit.columns.as_deref())?;
        let kept = layer.all.summary.mean.len();
        rows.extend(components(
            source,
            Some(layer.index),
            &own,
            &theirs,
            kept,
            component_id,
            &basis.name,
        )?);
    }
    if fit.stack.segments.is_none() && !basis.components.is_empty() {
        let theirs = basis.narrowed(&basis.components, width, fit.columns.as_deref())?;
        let all = &fit.stack.all;
        rows.extend(components(
            source,
            None,
            &all.spectrum.components,
            &theirs,
            all.spectrum.width,
            component_id,
            &basis.name,
        )?);
    }
    if rows.is_empty() {
        return Err(Error::input(
            &basis.name,
            "was fitted in another layout: it shares no space with this analysis",
        ));
    }
    Ok(rows)
}

/// Against another dump or moments.
pub fn with_dump(plan: &Plan, own: &Side<'_>, other: &Side<'_>, component_id: Option<usize>) -> Result<Vec<Compare>> {
    let subject = format!("{} and {}", own.source.name(), other.source.name());
    let pairing = Pairing::new(own.source, other.source, true)?;
    let resampled =
        plan.resamples > 0 && plan.measures == Measures::All && own.source.has_rows() && other.source.has_rows();
    let mut rows = Vec::new();
    let mut stack = (Resampled::default(), Resampled::default());
    for (at, (a, b)) in own.fit.layers.iter().zip(&other.fit.layers).enumerate() {
        let width = a.all.summary.mean.len();
        let (a_components, b_components) = match (&own.fit.stack.segments, &other.fit.stack.segments) {
            (Some(a), Some(b)) => (&a[at], &b[at]),
            _ => (&a.all.spectrum.components, &b.all.spectrum.components),
        };
        let mut found = components(
            own.source,
            Some(a.index),
            a_components,
            b_components,
            width,
            component_id,
            &subject,
        )?;
        concentration_deltas(&mut found, &a.all, &b.all);
        if let Some(order) = &pairing.order {
            let cka = cka(plan, own, other, at, order)?;
            for row in &mut found {
                row.cka = cka;
            }
        }
        if resampled {
            let (a_rows, b_rows) = (own.rows(at), other.rows(at));
            let one = (Resampled::new(&a_rows, &a.all)?, Resampled::new(&b_rows, &b.all)?);
            intervals(plan, &mut found, &one, &pairing).at(&subject)?;
            if plan.layout == Layout::Stacked {
                let (a_stack, b_stack) = (&own.fit.stack.all, &other.fit.stack.all);
                stack.0.extend(Resampled::of_stack(plan, &a_rows, a_stack, &a.all)?);
                stack.1.extend(Resampled::of_stack(plan, &b_rows, b_stack, &b.all)?);
            }
        }
        rows.extend(found);
    }
    if plan.layout == Layout::Stacked {
        let (a, b) = (&own.fit.stack.all, &other.fit.stack.all);
        let mut found = components(
            own.source,
            None,
            &a.spectrum.components,
            &b.spectrum.components,
            a.spectrum.width,
            component_id,
            &subject,
        )?;
        concentration_deltas(&mut found, a, b);
        if resampled {
            intervals(plan, &mut found, &stack, &pairing).at(&subject)?;
        }
        let distance = path_distance(own.fit, other.fit).at(&subject)?;
        for row in &mut found {
            row.procrustes = distance;
        }
        rows.extend(found);
    }
    for row in &mut rows {
        row.paired = Some(pairing.order.is_some());
    }
    Ok(rows)
}

impl Side<'_> {
    fn rows(&self, layer: usize) -> Rows<'_> {
        Rows {
            source: self.source,
            layer: &self.source.layers[layer],
            columns: self.fit.columns.as_deref(),
        }
    }
}

/// Which prompt of the other side is ours.
pub struct Pairing {
    /// For each of our prompts, theirs; `None` unless both sides hold the same ones.
    pub order: Option<Vec<usize>>,
    counts: (usize, usize),
}

impl Pairing {
    /// `same_text`: prompts with one id must have one text.
    pub fn new(own: &Source, other: &Source, same_text: bool) -> Result<Self> {
        let counts = (own.prompt_count(), other.prompt_count());
        let (Some(ours), Some(theirs)) = (own.prompts(), other.prompts()) else {
            return Ok(Self { order: None, counts });
        };
        let mut places = HashMap::new();
        for (at, key) in theirs.keys.iter().enumerate() {
            if places.insert(key.as_str(), at).is_some() {
                return Err(Error::input(
                    other.name(),
                    format!("prompt {} is there twice", theirs.ids[at]),
                ));
            }
        }
        let order: Option<Vec<usize>> = ours.keys.iter().map(|key| places.get(key.as_str()).copied()).collect();
        let order = order.filter(|order| order.len() == theirs.keys.len());
        if let (Some(order), true) = (&order, same_text) {
            for (at, to) in order.iter().enumerate() {
                if let (Some(a), Some(b)) = (&ours.text_digests[at], &theirs.text_digests[*to])
                    && a != b
                {
                    let id = &ours.ids[at];
                    return Err(Error::input(
                        other.name(),
                        format!("prompt {id} has another text than in {}", own.name()),
                    ));
                }
            }
        }
        if let Some(order) = &order {
            let mut seen = vec![false; order.len()];
            for (at, to) in order.iter().enumerate() {
                if std::mem::replace(&mut seen[*to], true) {
                    return Err(Error::input(
                        own.name(),
                        format!("prompt {} is there twice", ours.ids[at]),
                    ));
                }
            }
        }
        Ok(Self { order, counts })
    }
}

fn components(
    source: &Source,
    layer_index: Option<u32>,
    own: &[f64],
    theirs: &[f64],
    width: usize,
    component_id: Option<usize>,
    subject: &str,
) -> Result<Vec<Compare>> {
    let common = (own.len() / width).min(theirs.len() / width);
    let component = |rows: &'_ [f64], k: usize| -> Vec<f64> { rows[(k - 1) * width..k * width].to_vec() };
    let alignment = |k: usize| subspace::alignment(&component(own, k), &component(theirs, k));
    let alignment_id = component_id.filter(|id| *id <= common).and_then(alignment);
    CONCENTRATION_COUNTS
        .into_iter()
        .filter(|k| *k <= common)
        .map(|k| {
            let (a, b) = (
                orthonormal(&own[..k * width], width),
                orthonormal(&theirs[..k * width], width),
            );
            let (a, b) = (matrix(&a, a.len() / width, width), matrix(&b, b.len() / width, width));
            Ok(Compare {
                layer_index: layer_index.map(|index| index as usize),
                depth: source.depth(layer_index),
                component: k.to_string(),
                alignment: alignment(k),
                alignment_id,
                angles: subspace::principal_angles(a.view(), b.view()).at(subject)?,
                overlap: subspace::overlap(a, b),
                cka: None,
                procrustes: None,
                c_k_delta: None,
                c_k_delta_low: None,
                c_k_delta_high: None,
                p_value: None,
                paired: None,
            })
        })
        .collect()
}

/// Rows made orthonormal in order: segments of a concatenated component are neither unit nor orthogonal.
fn orthonormal(rows: &[f64], width: usize) -> Vec<f64> {
    let mut basis: Vec<f64> = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(width) {
        let mut row = row.to_vec();
        for _ in 0..2 {
            for other in basis.chunks_exact(width) {
                let weight = dot(&row, other);
                for (x, y) in row.iter_mut().zip(other) {
                    *x -= weight * y;
                }
            }
        }
        let length = dot(&row, &row).sqrt();
        if length > 1e-12 {
            basis.extend(row.iter().map(|x| x / length));
        }
    }
    basis
}

fn concentration_deltas(rows: &mut [Compare], own: &Part, other: &Part) {
    for row in rows {
        let Ok(k) = row.component.parse() else { continue };
        let share = |part: &Part| {
            let spectrum = &part.spectrum;
            let known = spectrum.complete || k <= spectrum.values.len();
            if known {
                measures::concentration(&spectrum.values, spectrum.total, k)
            } else {
                None
            }
        };
        row.c_k_delta = share(own).zip(share(other)).map(|(a, b)| a - b);
    }
}

/// Linear CKA of the two sides' rows of a layer, over the same drawn prompts; `None` where prompts have different numbers of rows.
fn cka(plan: &Plan, own: &Side<'_>, other: &Side<'_>, layer: usize, order: &[usize]) -> Result<Option<f64>> {
    if plan.measures == Measures::Moments {
        return Ok(None);
    }
    let (ours, theirs) = (rows_of_prompts(own.source), rows_of_prompts(other.source));
    if ours.iter().zip(order).any(|(rows, to)| rows.len() != theirs[*to].len()) {
        return Ok(None);
    }
    let total: usize = ours.iter().map(Vec::len).sum();
    let pairs: Vec<(usize, usize)> = ours
        .iter()
        .zip(order)
        .flat_map(|(rows, to)| rows.iter().copied().zip(theirs[*to].iter().copied()))
        .collect();
    let drawn = Rng::new(plan.seed, "cka").subset(0, plan.neighbour_rows, total);
    let take = |side: &Side<'_>, mut rows: Vec<(usize, usize)>| -> Result<Vec<f64>> {
        // Rows are read in their own order and then put into the order of the pairs.
        let reader = side.rows(layer);
        rows.sort_unstable();
        let indices: Vec<usize> = rows.iter().map(|(row, _)| *row).collect();
        let read = reader.subset::<f64>(&indices)?;
        let width = reader.width();
        let mut ordered = vec![0.0; read.len()];
        for (row, (_, place)) in read.chunks_exact(width).zip(&rows) {
            ordered[place * width..(place + 1) * width].copy_from_slice(row);
        }
        let mean = mean_of(&ordered, width);
        Ok(centred(&ordered, &mean))
    };
    let a = take(
        own,
        drawn
            .iter()
            .enumerate()
            .map(|(place, at)| (pairs[*at].0, place))
            .collect(),
    )?;
    let b = take(
        other,
        drawn
            .iter()
            .enumerate()
            .map(|(place, at)| (pairs[*at].1, place))
            .collect(),
    )?;
    let (a_width, b_width) = (own.rows(layer).width(), other.rows(layer).width());
    let count = drawn.len();
    let (a, b) = (matrix(&a, count, a_width), matrix(&b, count, b_width));
    Ok(if count <= a_width {
        subspace::cka_of_grams(gram(a).view(), gram(b).view())
    } else {
        subspace::cka_of_rows(a, b)
    })
}

fn mean_of(rows: &[f64], width: usize) -> Vec<f64> {
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += x;
        }
    }
    let count = (rows.len() / width).max(1) as f64;
    mean.iter_mut().for_each(|mean| *mean /= count);
    mean
}

/// Canonical row indices of every prompt.
fn rows_of_prompts(source: &Source) -> Vec<Vec<usize>> {
    let mut rows = vec![Vec::new(); source.prompt_count()];
    let mut at = 0;
    for run in source.runs() {
        rows[run.prompt as usize].extend(at..at + run.row_count as usize);
        at += run.row_count as usize;
    }
    rows
}

fn path_distance(own: &Fit, other: &Fit) -> std::result::Result<Option<f64>, lapack::LapackError> {
    let centres = |fit: &Fit| -> Vec<f64> {
        fit.layers
            .iter()
            .flat_map(|layer| layer.all.summary.mean.iter().copied())
            .collect()
    };
    let width = |fit: &Fit| fit.layers[0].all.summary.mean.len();
    if own.layers.len() < 2 {
        return Ok(None);
    }
    subspace::procrustes(
        matrix(&centres(own), own.layers.len(), width(own)),
        matrix(&centres(other), other.layers.len(), width(other)),
    )
}

/// Rows in the space of their leading components, which is all a resample needs.
#[derive(Default)]
struct Resampled {
    prompts: Vec<u32>,
    width: usize,
    /// (rows, width).
    coordinates: Vec<f64>,
    /// ‖x − mean‖².
    squares: Vec<f64>,
}

impl Resampled {
    fn new(rows: &Rows<'_>, part: &Part) -> Result<Self> {
        Self::project(rows, &part.spectrum.components, &part.summary.mean)
    }

    fn of_stack(plan: &Plan, rows: &Rows<'_>, stack: &Part, layer: &Part) -> Result<Self> {
        let mut origin = stack.summary.mean.clone();
        if plan.center == Center::Layer {
            for (origin, mean) in origin.iter_mut().zip(&layer.summary.mean) {
                *origin += mean;
            }
        }
        Self::project(rows, &stack.spectrum.components, &origin)
    }

    fn project(rows: &Rows<'_>, components: &[f64], origin: &[f64]) -> Result<Self> {
        let d = rows.width();
        let width = (components.len() / d).min(RESAMPLED_COMPONENT_COUNT);
        let mut found = Self {
            width,
            ..Self::default()
        };
        rows.for_each::<f64>(|block| {
            let centred = centred(block.rows, origin);
            let n = block.prompts.len();
            let coordinates = Product::of(matrix(&centred, n, d), matrix(components, width, d).reversed_axes());
            found.prompts.extend_from_slice(block.prompts);
            found.coordinates.extend(coordinates.to_vec());
            found.squares.extend(centred.chunks_exact(d).map(|row| dot(row, row)));
            Ok(())
        })?;
        Ok(found)
    }

    fn extend(&mut self, more: Self) {
        self.width = more.width;
        self.prompts.extend(more.prompts);
        self.coordinates.extend(more.coordinates);
        self.squares.extend(more.squares);
    }

    /// C_k of a resample, for every k asked.
    fn concentrations(
        &self,
        counts: &[u32],
        ks: &[usize],
    ) -> std::result::Result<Vec<Option<f64>>, lapack::LapackError> {
        let width = self.width;
        let mut weighted = Vec::with_capacity(self.coordinates.len());
        let (mut total, mut weight_sum) = (0.0, 0.0);
        let mut mean = vec![0.0; width];
        for ((row, prompt), square) in self
            .coordinates
            .chunks_exact(width.max(1))
            .zip(&self.prompts)
            .zip(&self.squares)
        {
            let count = counts[*prompt as usize];
            if count == 0 {
                continue;
            }
            let weight = f64::from(count);
            let root = weight.sqrt();
            weighted.extend(row.iter().map(|x| x * root));
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += weight * x;
            }
            total += weight * square;
            weight_sum += weight;
        }
        if weight_sum == 0.0 || width == 0 {
            return Ok(vec![None; ks.len()]);
        }
        mean.iter_mut().for_each(|mean| *mean /= weight_sum);
        let rows = matrix(&weighted, weighted.len() / width, width);
        let mut covariance = Product::of(rows.t(), rows.view()).to_array();
        for ((i, j), x) in covariance.indexed_iter_mut() {
            *x = *x / weight_sum - mean[i] * mean[j];
        }
        let total = total / weight_sum - dot(&mean, &mean);
        let values = lapack::eigen(covariance)?.values;
        Ok(ks.iter().map(|k| measures::concentration(&values, total, *k)).collect())
    }
}

fn intervals(
    plan: &Plan,
    rows: &mut [Compare],
    sides: &(Resampled, Resampled),
    pairing: &Pairing,
) -> std::result::Result<(), lapack::LapackError> {
    let ks: Vec<usize> = rows.iter().filter_map(|row| row.component.parse().ok()).collect();
    // The same prompts are drawn in every layer.
    let (own, other) = (
        Rng::new(plan.seed, "bootstrap"),
        Rng::new(plan.seed, "bootstrap of the reference"),
    );
    let replicates: Vec<Vec<Option<f64>>> = (0..plan.resamples)
        .into_par_iter()
        .map(|resample| {
            let a = statistics::resample_counts(&own, resample, pairing.counts.0);
            let b = match &pairing.order {
                Some(order) => {
                    let mut counts = vec![0; order.len()];
                    for (at, to) in order.iter().enumerate() {
                        counts[*to] = a[at];
                    }
                    counts
                }
                None => statistics::resample_counts(&other, resample, pairing.counts.1),
            };
            let (a, b) = (sides.0.concentrations(&a, &ks)?, sides.1.concentrations(&b, &ks)?);
            Ok(a.into_iter()
                .zip(b)
                .map(|(a, b)| a.zip(b).map(|(a, b)| a - b))
                .collect())
        })
        .collect::<std::result::Result<_, lapack::LapackError>>()?;
    for (at, row) in rows.iter_mut().enumerate() {
        let mut values: Vec<f64> = replicates.iter().filter_map(|deltas| deltas[at]).collect();
        values.sort_unstable_by(f64::total_cmp);
        let interval = statistics::percentile_interval(&values, LEVEL);
        row.c_k_delta_low = interval.map(|interval| interval.low);
        row.c_k_delta_high = interval.map(|interval| interval.high);
        row.p_value = interval.map(|_| statistics::sign_p_value(&values));
    }
    Ok(())
}

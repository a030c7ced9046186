//! The rows of this tool, filled from what was measured.

use crate::measure::{Measured, SampleMaxima, Tally};
use crate::plan::measure::{Plan, scale_name};
use crate::subject::{Named, Places, Subject};
use numerics::activity::Extreme;
use numerics::quantisation::Losses;
use numerics::rng::Rng;
use numerics::statistics::percentile_interval;
use numerics::strata::resampled_maxima;
use records::{Act, DimFlow, Headline, Histogram, Int8, Resampled};
use serde::Serialize;
use std::collections::BTreeMap;

/// The components whose largest magnitude is the model's.
const HEADLINE: [&str; 7] = [
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "final_norm",
];

/// Of the interval that resamples give.
const LEVEL: f64 = 0.95;

/// Facts about the input, in the `end` record.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    pub input_digest: String,
}

/// Everything there is to say, in the order it is written.
pub struct Report {
    pub acts: Vec<Act>,
    pub headline: Option<Headline>,
}

impl Report {
    pub fn new(plan: &Plan, subject: &Subject, measured: &[Measured]) -> Self {
        let named = || subject.components.iter().zip(measured);
        let mut acts = Vec::new();
        for (component, measured) in named() {
            let groups = match subject.groups.is_empty() {
                true => Vec::new(),
                false => measured.divided(&subject.groups),
            };
            for (group, tally) in std::iter::once(("", &measured.whole)).chain(groups) {
                acts.push(act(plan, component, group, tally, &subject.places));
            }
        }
        let counted = named().filter(|(component, _)| HEADLINE.contains(&component.site.as_str()));
        let headline = headline(plan, subject, &counted.collect::<Vec<_>>());
        Self { acts, headline }
    }

    pub fn write(&self, writer: &mut records::Writer<impl std::io::Write>) -> records::Result<()> {
        self.acts.iter().try_for_each(|row| writer.row(row))?;
        self.headline.iter().try_for_each(|row| writer.row(row))
    }
}

fn act(plan: &Plan, component: &Named, group: &str, tally: &Tally, places: &Places) -> Act {
    let activity = &tally.activity;
    let largest = activity.top[0];
    let token = places.token(largest.place);
    let bins = activity.magnitudes.log_bins();
    let (first, end) = (
        bins.bins.iter().position(|count| *count > 0).unwrap_or(0),
        bins.bins
            .iter()
            .rposition(|count| *count > 0)
            .map_or(0, |last| last + 1),
    );
    let quantiles = plan.quantiles.iter().filter_map(|share| {
        let value = activity.magnitudes.quantile(*share)?;
        Some((share.to_string(), value))
    });
    Act {
        component: component.site.clone(),
        layer_index: component.layer_index.map(|index| index as usize),
        depth: component.depth,
        group: group.to_owned(),
        row_count: activity.row_count,
        count: activity.count,
        zero_count: activity.magnitudes.zero_count(),
        mean: activity.mean(),
        std: activity.deviation(),
        rms: activity.root_mean_square(),
        mean_abs: activity.mean_magnitude(),
        max: activity.max,
        min: activity.min,
        abs_max: largest.value.abs(),
        abs_max_sample_index: largest.place.sample,
        abs_max_position: token.position,
        abs_max_dim: u64::from(largest.dim),
        abs_max_token_id: token.id,
        top: activity.top.iter().map(|one| placed(one, places)).collect(),
        ratio_max: activity.ratio_max,
        ratio_mean: activity.ratio.value(),
        ratio_sample_mean: activity.sample_ratio.value(),
        massive_count: activity.massive_row_count,
        massive_dims: activity
            .massive_dims
            .iter()
            .map(|(dim, count)| (u64::from(*dim), *count))
            .collect(),
        quantiles: quantiles.collect(),
        entropy_nats: bins.entropy().unwrap_or(0.0),
        histogram: Histogram {
            below: bins.below,
            start: first as u64,
            counts: bins.bins[first..end].to_vec(),
            above: bins.above,
        },
        int8: int8(plan, tally),
        dim_flow: dim_flow(plan, tally),
        temporal_sparsity: tally.changes.as_ref().and_then(|changes| changes.share()),
        rest: Default::default(),
    }
}

/// Value, sample, position and dimension.
fn placed(one: &Extreme, places: &Places) -> (f64, u64, u64, u64) {
    let position = places.token(one.place).position;
    (one.value, one.place.sample, position, u64::from(one.dim))
}

fn int8(plan: &Plan, tally: &Tally) -> BTreeMap<String, Int8> {
    let names = plan.scales.iter().map(scale_name);
    let scales = tally.scales(plan).into_iter().zip(&tally.losses);
    let found = names.zip(scales).filter_map(|(name, (scale, losses))| {
        let loss = losses.as_ref().and_then(Losses::mean)?;
        let row = Int8 {
            limit: scale?.limit(),
            mae: loss.mae,
            rmse: loss.rmse,
            rel_mae: loss.relative_mae,
            rel_rmse: loss.relative_rmse,
            sqnr_db: loss.sqnr_db,
            clip_share: loss.clip_share,
        };
        Some((name, row))
    });
    found.collect()
}

fn dim_flow(plan: &Plan, tally: &Tally) -> Option<DimFlow> {
    let shares = tally.flow.as_ref()?.shares()?;
    Some(DimFlow {
        mass: plan.dim_flow?,
        run: u64::from(plan.run?),
        dims_mean: shares.dims_mean,
        dims_share: shares.dims_share,
        shared_share: shares.shared_share,
        single_share: shares.single_share,
    })
}

/// The largest magnitude of all these components, the first of them where several have it.
fn headline(plan: &Plan, subject: &Subject, counted: &[(&Named, &Measured)]) -> Option<Headline> {
    let largest = |measured: &Measured| measured.whole.activity.top[0].value.abs();
    let first = counted.first()?;
    let (component, measured) =
        counted.iter().skip(1).fold(
            first,
            |most, one| {
                if largest(one.1) > largest(most.1) { one } else { most }
            },
        );
    let one = &measured.whole.activity.top[0];
    let (value, sample_index, position, dim) = placed(one, &subject.places);
    Some(Headline {
        component: component.site.clone(),
        layer_index: component.layer_index.map(|index| index as usize),
        depth: component.depth,
        abs_max: value.abs(),
        value,
        sample_index,
        position,
        dim,
        bootstrap: bootstrap(
            plan,
            &subject.groups,
            counted.iter().map(|(_, measured)| &measured.samples),
        ),
        rest: Default::default(),
    })
}

fn bootstrap<'m>(plan: &Plan, groups: &[String], maxima: impl Iterator<Item = &'m SampleMaxima>) -> Vec<Resampled> {
    if plan.bootstrap.is_empty() {
        return Vec::new();
    }
    let mut by_sample: BTreeMap<u64, (usize, f64)> = BTreeMap::new();
    for (sample, group, magnitude) in maxima.flatten() {
        let entry = by_sample.entry(*sample).or_insert((*group, 0.0));
        entry.1 = entry.1.max(*magnitude);
    }
    let mut strata = vec![Vec::new(); groups.len().max(1)];
    for (group, magnitude) in by_sample.into_values() {
        strata[group].push(magnitude);
    }
    let rng = |size: u64| Rng::new(plan.seed, &format!("headline of {size}"));
    let resampled = |size: &u64| summary(*size, resampled_maxima(&rng(*size), &strata, *size, plan.resamples));
    plan.bootstrap.iter().filter_map(resampled).collect()
}

/// `None` without maxima.
fn summary(sample_count: u64, mut maxima: Vec<f64>) -> Option<Resampled> {
    maxima.sort_by(f64::total_cmp);
    let interval = percentile_interval(&maxima, LEVEL)?;
    let count = maxima.len() as f64;
    let mean = maxima.iter().sum::<f64>() / count;
    let variance = maxima.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (count - 1.0);
    Some(Resampled {
        sample_count,
        resample_count: maxima.len() as u64,
        mean,
        std: variance.sqrt(),
        low: interval.low,
        high: interval.high,
    })
}

//! What the pairs say together: medians and quartiles by group, a model against the first, and the border by verdict.

use crate::plan::Plan;
use crate::report::{ByVerdict, Compare};
use crate::verdicts::Verdicts;
use indexmap::IndexMap;
use numerics::regions;
use numerics::rng::Rng;
use numerics::statistics;
use records::{Measured, Region, RegionSlopes, RegionSummary};
use std::collections::BTreeMap;
use std::hash::Hash;

const RESAMPLES: u64 = 2_000;
const LEVEL: f64 = 0.95;
/// The paper's marks: below, the same region; above, another one.
const SAME_REGION: f64 = 1.2;
const OTHER_REGION: f64 = 10.0;

/// Rows in groups of equal keys, groups in order of first appearance.
fn grouped<'r, K: Hash + Eq>(
    rows: impl IntoIterator<Item = &'r Region>,
    key: impl Fn(&'r Region) -> K,
) -> IndexMap<K, Vec<&'r Region>> {
    let mut groups: IndexMap<K, Vec<&Region>> = IndexMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    statistics::quantile(values, share)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    quantile(&mut values.collect::<Vec<_>>(), 0.5)
}

pub fn summaries(rows: &[Region]) -> Vec<RegionSummary> {
    let key = |row: &Region| {
        (
            row.group.clone(),
            row.model_digest.clone(),
            row.layer_index,
            row.distance.clone(),
            row.baseline.clone(),
        )
    };
    let summary = |((group, model_digest, layer_index, distance, baseline), rows): (_, Vec<&Region>)| {
        let measured: Vec<&Measured> = rows.iter().filter_map(|row| row.measured()).collect();
        let mut slopes: Vec<f64> = measured.iter().map(|m| m.max_slope).collect();
        let share = |holds: &dyn Fn(f64) -> bool| {
            slopes.iter().filter(|&&slope| holds(slope)).count() as f64 / slopes.len() as f64
        };
        let (below, above) = (
            share(&|slope| slope < SAME_REGION),
            share(&|slope| slope > OTHER_REGION),
        );
        let slopes = quantile(&mut slopes, 0.5).and_then(|max_slope_median| {
            Some(RegionSlopes {
                max_slope_median,
                max_slope_q1: quantile(&mut slopes, 0.25)?,
                max_slope_q3: quantile(&mut slopes, 0.75)?,
                share_below_1_2: below,
                share_above_10: above,
            })
        });
        RegionSummary {
            group,
            model_digest,
            layer_index,
            distance,
            baseline,
            pair_count: measured.len(),
            skipped_count: rows.len() - measured.len(),
            slopes,
            width_median: median(measured.iter().filter_map(|m| m.width)),
            boundary_alpha_median: median(measured.iter().filter_map(|m| m.boundary_alpha)),
            gate_flip_count_median: median(
                measured
                    .iter()
                    .filter_map(|m| m.gate_flips.as_ref())
                    .map(|flips| flips.iter().sum::<usize>() as f64),
            ),
            rest: Default::default(),
        }
    };
    grouped(rows, key).into_iter().map(summary).collect()
}

/// Rows of ways to B.
fn plain(rows: &[Region]) -> impl Iterator<Item = &Region> {
    rows.iter().filter(|row| row.baseline.is_none())
}

/// Every further model against the first, pair by pair. `rows` are those of each model, in the order of the models.
pub fn compares(plan: &Plan, rows: &[Vec<Region>]) -> Vec<Compare> {
    let Some((base, others)) = rows.split_first() else {
        return Vec::new();
    };
    let identity = |row: &Region| (row.id.clone(), row.layer_index, row.distance.clone());
    let slope_of: BTreeMap<_, f64> = plain(base)
        .filter_map(|row| Some((identity(row), row.measured()?.max_slope)))
        .collect();
    let rng = Rng::new(plan.seed, "paired slopes");
    let mut compares = Vec::new();
    for (model, rows) in plan.models[1..].iter().zip(others) {
        let key = |row: &Region| (row.group.clone(), row.layer_index, row.distance.clone());
        for ((group, layer_index, distance), members) in grouped(plain(rows), key) {
            let both = |row: &&Region| Some((*slope_of.get(&identity(row))?, row.measured()?.max_slope));
            let (first, second): (Vec<f64>, Vec<f64>) = members.iter().filter_map(both).unzip();
            let differences: Vec<f64> = first
                .iter()
                .zip(&second)
                .map(|(first, second)| second - first)
                .collect();
            let interval = statistics::paired_mean_difference(&first, &second, RESAMPLES, LEVEL, &rng);
            if let (Some(max_slope_delta), Some((interval, p_value))) = (statistics::mean(&differences), interval) {
                compares.push(Compare {
                    group,
                    model_digest: model.model_digest.clone(),
                    base_model_digest: plan.models[0].model_digest.clone(),
                    layer_index,
                    distance,
                    pair_count: differences.len(),
                    max_slope_delta,
                    max_slope_delta_low: interval.low,
                    max_slope_delta_high: interval.high,
                    p_value,
                });
            }
        }
    }
    compares
}

/// The border by what the judge said of the answer to A.
pub fn by_verdict(verdicts: Option<&Verdicts>, by_model: &[Vec<Region>]) -> Vec<ByVerdict> {
    let of_model = |rows: &Vec<Region>| verdicts.map_or_else(Vec::new, |verdicts| borders(verdicts, rows));
    by_model.iter().flat_map(of_model).collect()
}

fn borders(verdicts: &Verdicts, rows: &[Region]) -> Vec<ByVerdict> {
    let joined = plain(rows).filter(|row| verdicts.of(&row.id_a).is_some());
    let key = |row: &Region| {
        let verdict = verdicts.of(&row.id_a);
        let label = verdict.and_then(|v| v.label.clone()).unwrap_or_default();
        (
            row.model_digest.clone(),
            row.layer_index,
            row.distance.clone(),
            label,
            verdict.map_or("", |v| v.verdict.name()),
        )
    };
    let one = |((model_digest, layer_index, distance, label, verdict), rows): ((_, _, _, _, &str), Vec<&Region>)| {
        let measured: Vec<&Measured> = rows.iter().filter_map(|row| row.measured()).collect();
        // The boundary where a bisection found it, else read off the grid.
        let half = |m: &&Measured| {
            let on_grid = || {
                regions::first_crossing(&m.curve, 0.5).map(|step| regions::interpolated(&m.alpha, &m.curve, step, 0.5))
            };
            m.boundary_alpha.or_else(on_grid)
        };
        let mut halves: Vec<f64> = measured.iter().filter_map(half).collect();
        Some(ByVerdict {
            model_digest,
            layer_index,
            distance,
            judge: verdicts.judge.clone(),
            label,
            verdict: str::to_string(verdict),
            pair_count: measured.len(),
            max_slope_median: median(measured.iter().map(|m| m.max_slope))?,
            half_alpha_median: quantile(&mut halves, 0.5)?,
            half_alpha_q1: quantile(&mut halves, 0.25)?,
            half_alpha_q3: quantile(&mut halves, 0.75)?,
            width_median: median(measured.iter().filter_map(|m| m.width)),
            delta_norm_median: median(measured.iter().map(|m| m.delta_norm))?,
        })
    };
    grouped(joined, key).into_iter().filter_map(one).collect()
}

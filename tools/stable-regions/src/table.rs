//! `--format table`: the summaries for people, in columns.

use crate::report::{ByVerdict, Compare};
use process::{Cell, Table, one_below_the_other};
use records::{RegionSlopes, RegionSummary};
use std::collections::HashMap;

/// How the user named each model, by digest.
type Names<'a> = HashMap<&'a str, &'a str>;

pub fn tables(names: &Names, summaries: &[RegionSummary], compares: &[Compare], by_verdict: &[ByVerdict]) -> String {
    one_below_the_other([
        slopes(names, summaries),
        differences(names, compares),
        borders(names, by_verdict),
    ])
}

fn name(names: &Names, digest: &str) -> Cell {
    Cell::text(names.get(digest).copied().unwrap_or(digest))
}

fn slopes(names: &Names, summaries: &[RegionSummary]) -> String {
    let mut table = Table::new([
        "model",
        "group",
        "layer",
        "distance",
        "way",
        "pairs",
        "skipped",
        "slope median",
        "q1",
        "q3",
        "< 1.2",
        "> 10",
        "width",
        "boundary",
        "gate flips",
    ]);
    for row in summaries {
        let slope = |pick: fn(&RegionSlopes) -> f64| Cell::fixed(row.slopes.as_ref().map(pick), 3);
        table.row([
            name(names, &row.model_digest),
            Cell::text(&row.group),
            Cell::count(row.layer_index),
            Cell::text(&row.distance),
            Cell::text(row.baseline.as_deref().unwrap_or("A to B")),
            Cell::count(row.pair_count),
            Cell::count(row.skipped_count),
            slope(|s| s.max_slope_median),
            slope(|s| s.max_slope_q1),
            slope(|s| s.max_slope_q3),
            slope(|s| s.share_below_1_2),
            slope(|s| s.share_above_10),
            Cell::fixed(row.width_median, 3),
            Cell::fixed(row.boundary_alpha_median, 3),
            Cell::fixed(row.gate_flip_count_median, 3),
        ]);
    }
    table.to_string()
}

fn differences(names: &Names, compares: &[Compare]) -> String {
    let mut table = Table::new([
        "model",
        "against",
        "group",
        "layer",
        "distance",
        "pairs",
        "slope difference",
        "low",
        "high",
        "p",
    ]);
    for row in compares {
        table.row([
            name(names, &row.model_digest),
            name(names, &row.base_model_digest),
            Cell::text(&row.group),
            Cell::count(row.layer_index),
            Cell::text(&row.distance),
            Cell::count(row.pair_count),
            Cell::fixed(row.max_slope_delta, 3),
            Cell::fixed(row.max_slope_delta_low, 3),
            Cell::fixed(row.max_slope_delta_high, 3),
            Cell::p_value(row.p_value),
        ]);
    }
    table.to_string()
}

fn borders(names: &Names, by_verdict: &[ByVerdict]) -> String {
    let mut table = Table::new([
        "model",
        "layer",
        "distance",
        "label of A",
        "verdict on A",
        "pairs",
        "half at",
        "q1",
        "q3",
        "width",
        "slope median",
        "|A - B|",
    ]);
    for row in by_verdict {
        table.row([
            name(names, &row.model_digest),
            Cell::count(row.layer_index),
            Cell::text(&row.distance),
            Cell::text(&row.label),
            Cell::text(&row.verdict),
            Cell::count(row.pair_count),
            Cell::fixed(row.half_alpha_median, 3),
            Cell::fixed(row.half_alpha_q1, 3),
            Cell::fixed(row.half_alpha_q3, 3),
            Cell::fixed(row.width_median, 3),
            Cell::fixed(row.max_slope_median, 3),
            Cell::fixed(row.delta_norm_median, 3),
        ]);
    }
    table.to_string()
}

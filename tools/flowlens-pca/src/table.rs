//! `--format table`: the report for people, in columns.

use crate::report::Report;
use process::{Cell, Table, one_below_the_other, significant};
use records::{Geometry, Trajectory};

/// How the space of all layers together is called.
const ALL_LAYERS: &str = "all";

pub fn tables(report: &Report) -> String {
    one_below_the_other([
        geometry(report),
        growth(report),
        contrasts(report),
        trajectories(report),
        compares(report),
        stabilities(report),
        profile(report),
    ])
}

fn geometry(report: &Report) -> String {
    let mut table = Table::new([
        "layer", "group", "rows", "C_1", "C_2", "C_4", "C_8", "PR", "erank", "srank", "alpha", "k90", "iso", "|x|",
        "disp", "aniso", "TwoNN", "MLE",
    ]);
    for row in &report.layers {
        table.row(geometry_row(Cell::count(row.layer_index), &row.geometry));
    }
    for row in &report.stacks {
        table.row(geometry_row(Cell::text(ALL_LAYERS), &row.geometry));
    }
    table.to_string()
}

fn geometry_row(layer: Cell, row: &Geometry) -> [Cell; 18] {
    let share = |k: &str| Cell::significant(row.c_k.get(k).copied());
    [
        layer,
        Cell::text(&row.group),
        Cell::count(row.row_count),
        share("1"),
        share("2"),
        share("4"),
        share("8"),
        Cell::significant(row.participation_ratio),
        Cell::significant(row.effective_rank),
        Cell::significant(row.stable_rank),
        Cell::significant(row.alpha_req),
        Cell::count_if_any(row.k90),
        Cell::significant(row.iso_score),
        Cell::significant(row.norm_mean),
        Cell::significant(row.dispersion),
        Cell::significant(row.anisotropy),
        Cell::significant(row.id_twonn),
        Cell::significant(row.id_mle),
    ]
}

/// A path that runs with the norms this closely says how they grow, and little else.
const PROFILE_CORRELATION: f64 = 0.95;

/// What the whole says in a sentence: how norms grow, whether the first component is but that, and which component is the intrinsic one.
fn growth(report: &Report) -> String {
    let mut out = String::new();
    for stack in report.stacks.iter().filter(|stack| stack.geometry.group.is_empty()) {
        if let (Some(a), Some(b)) = (stack.norm_growth_a, stack.norm_growth_b) {
            out += &format!("norm of layer l ~ {} * {}^l\n", significant(a), significant(b));
        }
        if let Some(r) = norm_profile(report) {
            out += &format!(
                "PC1 of all layers is a profile of norms (r = {} with the mean norm of a layer), of much the same form for every group; \
                 projections over that norm (/|x|) and --center layer say more\n",
                significant(r)
            );
        }
        if let (Some(id), Some(dimension)) = (stack.component_id, stack.geometry.id_twonn) {
            out += &format!(
                "intrinsic dimension {} -> PC_ID is component {id}\n",
                significant(dimension)
            );
        }
    }
    out
}

/// The least correlation of a group's path along the first own component with the norms, where all of them run with these.
fn norm_profile(report: &Report) -> Option<f64> {
    let is_first = |row: &&Trajectory| row.component == "1" && row.basis == "own" && row.group.is_some();
    let paths = report.trajectories.iter().filter(is_first);
    let sizes: Option<Vec<f64>> = paths.map(|row| row.norm_correlation.map(f64::abs)).collect();
    let least = sizes?.into_iter().min_by(f64::total_cmp)?;
    (least >= PROFILE_CORRELATION).then_some(least)
}

fn contrasts(report: &Report) -> String {
    let mut table = Table::new(["layer", "a", "b", "Fisher", "distance", "silhouette", "separation"]);
    for row in &report.contrasts {
        table.row([
            Cell::count(row.layer_index),
            Cell::text(&row.group_a),
            Cell::text(&row.group_b),
            Cell::significant(row.fisher_ratio),
            Cell::significant(row.centroid_distance),
            Cell::significant(row.silhouette),
            Cell::significant(row.separation),
        ]);
    }
    table.to_string()
}

fn trajectories(report: &Report) -> String {
    let mut table = Table::new([
        "trajectory",
        "PC",
        "basis",
        "first",
        "last",
        "r(|x|)",
        "first/|x|",
        "last/|x|",
        "smoothness",
        "turning",
    ]);
    for row in &report.trajectories {
        let name = row.group.as_ref().or(row.id.as_ref());
        let normed = row.projection_normed.as_ref();
        table.row([
            Cell::text(name.map_or("", String::as_str)),
            Cell::text(&row.component),
            Cell::text(&row.basis),
            Cell::significant(row.projection.first().copied()),
            Cell::significant(row.projection.last().copied()),
            Cell::significant(row.norm_correlation),
            Cell::significant(normed.and_then(|path| path.first()).copied()),
            Cell::significant(normed.and_then(|path| path.last()).copied()),
            Cell::significant(row.smoothness_ratio),
            Cell::significant(row.turning_angle),
        ]);
    }
    table.to_string()
}

fn compares(report: &Report) -> String {
    let mut table = Table::new([
        "layer", "k", "align_k", "align_ID", "overlap", "CKA", "dC_k", "low", "high", "p",
    ]);
    for row in &report.compares {
        table.row([
            row.layer_index.map_or_else(|| Cell::text(ALL_LAYERS), Cell::count),
            Cell::text(&row.component),
            Cell::significant(row.alignment),
            Cell::significant(row.alignment_id),
            Cell::significant(row.overlap),
            Cell::significant(row.cka),
            Cell::significant(row.c_k_delta),
            Cell::significant(row.c_k_delta_low),
            Cell::significant(row.c_k_delta_high),
            Cell::p_value(row.p_value),
        ]);
    }
    table.to_string()
}

fn stabilities(report: &Report) -> String {
    let mut table = Table::new(["layer", "r(PC1)", "cosine A", "cosine B"]);
    for row in &report.stabilities {
        table.row([
            Cell::count(row.layer_index),
            Cell::significant(row.pc1_correlation),
            Cell::significant(row.cosine_mean),
            Cell::significant(row.cosine_mean_b),
        ]);
    }
    table.to_string()
}

fn profile(report: &Report) -> String {
    let mut table = Table::new(["prompts", "r over layers", "least", "r to another prompt"]);
    if let Some(row) = &report.profile {
        table.row([
            Cell::count(row.prompt_count),
            Cell::significant(row.correlation),
            Cell::significant(row.correlation_min),
            Cell::significant(row.correlation_other),
        ]);
    }
    table.to_string()
}

//! `--format table`: the report for people, in columns.

use crate::report::{Geometry, Report};
use std::io::{self, Write};

pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if !report.layers.is_empty() {
        let mut rows: Vec<Vec<String>> = report
            .layers
            .iter()
            .map(|row| geometry(row.layer_index.to_string(), &row.geometry))
            .collect();
        rows.extend(
            report
                .stacks
                .iter()
                .map(|row| geometry("all".to_owned(), &row.geometry)),
        );
        let head = [
            "layer", "group", "rows", "C_1", "C_2", "C_4", "C_8", "PR", "erank", "srank", "alpha", "k90", "iso", "|x|",
            "disp", "aniso", "TwoNN", "MLE",
        ];
        columns(&head, &rows, out)?;
    }
    for stack in report.stacks.iter().filter(|stack| stack.geometry.group.is_empty()) {
        if let (Some(a), Some(b)) = (stack.norm_growth_a, stack.norm_growth_b) {
            writeln!(out, "\nnorm of layer l ~ {} * {}^l", number(Some(a)), number(Some(b)))?;
        }
        if let Some(id) = stack.component_id {
            writeln!(
                out,
                "intrinsic dimension {} -> PC_ID is component {id}",
                number(stack.geometry.id_twonn)
            )?;
        }
    }
    if !report.contrasts.is_empty() {
        let rows: Vec<Vec<String>> = report
            .contrasts
            .iter()
            .map(|row| {
                vec![
                    row.layer_index.to_string(),
                    row.group_a.clone(),
                    row.group_b.clone(),
                    number(row.fisher_ratio),
                    number(Some(row.centroid_distance)),
                    number(row.silhouette),
                    number(row.separation),
                ]
            })
            .collect();
        writeln!(out)?;
        columns(
            &["layer", "a", "b", "Fisher", "distance", "silhouette", "separation"],
            &rows,
            out,
        )?;
    }
    if !report.trajectories.is_empty() {
        let rows: Vec<Vec<String>> = report
            .trajectories
            .iter()
            .map(|row| {
                vec![
                    row.group.clone().or_else(|| row.id.clone()).unwrap_or_default(),
                    row.component.clone(),
                    row.basis.to_owned(),
                    number(row.projection.first().copied()),
                    number(row.projection.last().copied()),
                    number(row.smoothness_ratio),
                    number(row.turning_angle),
                ]
            })
            .collect();
        writeln!(out)?;
        columns(
            &["trajectory", "PC", "basis", "first", "last", "smoothness", "turning"],
            &rows,
            out,
        )?;
    }
    if !report.compares.is_empty() {
        let rows: Vec<Vec<String>> = report
            .compares
            .iter()
            .map(|row| {
                vec![
                    row.layer_index
                        .map_or_else(|| "all".to_owned(), |layer| layer.to_string()),
                    row.component.clone(),
                    number(row.alignment),
                    number(row.alignment_id),
                    number(row.overlap),
                    number(row.cka),
                    number(row.c_k_delta),
                    number(row.c_k_delta_low),
                    number(row.c_k_delta_high),
                    number(row.p_value),
                ]
            })
            .collect();
        writeln!(out)?;
        let head = [
            "layer", "k", "align_k", "align_ID", "overlap", "CKA", "dC_k", "low", "high", "p",
        ];
        columns(&head, &rows, out)?;
    }
    if !report.stabilities.is_empty() {
        let rows: Vec<Vec<String>> = report
            .stabilities
            .iter()
            .map(|row| {
                vec![
                    row.layer_index.to_string(),
                    number(row.pc1_correlation),
                    number(row.cosine_mean),
                    number(row.cosine_mean_b),
                ]
            })
            .collect();
        columns(&["layer", "r(PC1)", "cosine A", "cosine B"], &rows, out)?;
    }
    Ok(())
}

fn geometry(layer: String, row: &Geometry) -> Vec<String> {
    let share = |k: &str| number(row.c_k.get(k).copied());
    vec![
        layer,
        process::safe_text(&row.group),
        row.row_count.to_string(),
        share("1"),
        share("2"),
        share("4"),
        share("8"),
        number(row.participation_ratio),
        number(row.effective_rank),
        number(row.stable_rank),
        number(row.alpha_req),
        row.k90.map_or_else(|| "-".to_owned(), |k| k.to_string()),
        number(row.iso_score),
        number(row.norm_mean),
        number(row.dispersion),
        number(row.anisotropy),
        number(row.id_twonn),
        number(row.id_mle),
    ]
}

/// Four significant digits; a dash for what is not defined.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = if size >= 1000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    format!("{value:.digits$}")
}

/// Right-aligned columns under their heads.
fn columns(head: &[&str], rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, name)| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .chain([name.len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:>width$}", width = *width))
            .collect::<Vec<_>>()
            .join("  ")
    };
    writeln!(out, "{}", line(&mut head.iter().copied()))?;
    rows.iter()
        .try_for_each(|row| writeln!(out, "{}", line(&mut row.iter().map(String::as_str))))
}

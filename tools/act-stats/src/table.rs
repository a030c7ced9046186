//! `--format table`: the report for people, in columns.

use crate::report::Report;
use process::{Cell, Table, one_below_the_other, significant};
use records::{Act, Fit, Headline};

pub fn tables(report: &Report) -> String {
    one_below_the_other([
        sizes(report),
        massive(report),
        int8(report),
        along_tokens(report),
        report.headline.as_ref().map(headline).unwrap_or_default(),
    ])
}

/// How every table begins a line.
fn name(act: &Act) -> [Cell; 3] {
    [
        Cell::text(&act.component),
        Cell::count_if_any(act.layer_index),
        Cell::text(&act.group),
    ]
}

fn sizes(report: &Report) -> String {
    let mut table = Table::new([
        "component",
        "layer",
        "group",
        "tokens",
        "mean",
        "std",
        "rms",
        "mean|a|",
        "max",
        "min",
        "median|a|",
        "q.999",
        "entropy",
        "zeros",
    ]);
    for act in &report.acts {
        let [component, layer, group] = name(act);
        let quantile = |share: &str| Cell::significant(act.quantiles.get(share).copied());
        table.row([
            component,
            layer,
            group,
            Cell::count(act.row_count),
            Cell::significant(act.mean),
            Cell::significant(act.std),
            Cell::significant(act.rms),
            Cell::significant(act.mean_abs),
            Cell::significant(act.max),
            Cell::significant(act.min),
            quantile("0.5"),
            quantile("0.999"),
            Cell::significant(act.entropy_nats),
            Cell::significant(act.zero_count as f64 / act.count as f64),
        ]);
    }
    table.to_string()
}

fn massive(report: &Report) -> String {
    let mut table = Table::new([
        "component",
        "layer",
        "group",
        "max|a|",
        "sample",
        "position",
        "token",
        "dim",
        "max ratio",
        "mean ratio",
        "massive tokens",
        "massive dims",
    ]);
    for act in &report.acts {
        let [component, layer, group] = name(act);
        let dims = act.massive_dims.iter().map(|(dim, count)| format!("{dim}:{count}"));
        table.row([
            component,
            layer,
            group,
            Cell::significant(act.abs_max),
            Cell::count(act.abs_max_sample_index),
            Cell::count(act.abs_max_position),
            Cell::count_if_any(act.abs_max_token_id),
            Cell::count(act.abs_max_dim),
            Cell::significant(act.ratio_max),
            Cell::significant(act.ratio_mean),
            Cell::count(act.massive_count),
            Cell::text(dims.collect::<Vec<_>>().join(" ")),
        ]);
    }
    table.to_string()
}

fn int8(report: &Report) -> String {
    let mut table = Table::new([
        "component",
        "layer",
        "group",
        "int8",
        "limit",
        "SQNR [dB]",
        "rel. RMSE",
        "rel. MAE",
        "RMSE",
        "MAE",
        "clipped",
    ]);
    for act in &report.acts {
        for (scale, loss) in &act.int8 {
            let [component, layer, group] = name(act);
            table.row([
                component,
                layer,
                group,
                Cell::text(scale),
                Cell::significant(loss.limit),
                Cell::fixed(loss.sqnr_db, 2),
                Cell::significant(loss.rel_rmse),
                Cell::significant(loss.rel_mae),
                Cell::significant(loss.rmse),
                Cell::significant(loss.mae),
                Cell::significant(loss.clip_share),
            ]);
        }
    }
    table.to_string()
}

fn along_tokens(report: &Report) -> String {
    let mut table = Table::new([
        "component",
        "layer",
        "group",
        "dims for mass",
        "share",
        "shared",
        "single",
        "small changes",
    ]);
    let measured = |act: &&Act| act.dim_flow.is_some() || act.temporal_sparsity.is_some();
    for act in report.acts.iter().filter(measured) {
        let [component, layer, group] = name(act);
        let flow = act.dim_flow;
        table.row([
            component,
            layer,
            group,
            Cell::significant(flow.map(|flow| flow.dims_mean)),
            Cell::significant(flow.map(|flow| flow.dims_share)),
            Cell::significant(flow.map(|flow| flow.shared_share)),
            Cell::significant(flow.map(|flow| flow.single_share)),
            Cell::significant(act.temporal_sparsity),
        ]);
    }
    table.to_string()
}

/// What the whole says in a sentence or two.
fn headline(row: &Headline) -> String {
    let layer = row
        .layer_index
        .map(|layer| format!(" of layer {layer}"))
        .unwrap_or_default();
    let mut text = format!(
        "The largest magnitude is {} ({}{layer}, sample {}, position {}, dimension {}).\n",
        significant(row.value),
        row.component,
        row.sample_index,
        row.position,
        row.dim
    );
    for one in &row.bootstrap {
        text.push_str(&format!(
            "Over {} resamples of {} prompts: {} ± {}, {} to {}.\n",
            one.resample_count,
            one.sample_count,
            significant(one.mean),
            significant(one.std),
            significant(one.low),
            significant(one.high)
        ));
    }
    text
}

/// The laws of every series.
pub fn fits(rows: &[Fit]) -> String {
    let mut table = Table::new([
        "component",
        "layer",
        "group",
        "law",
        "points",
        "parameters",
        "R2",
        "AIC",
        "best",
        "peak",
        "limit",
    ]);
    for row in rows {
        let parameters = row.parameters.iter();
        let parameters = parameters
            .map(|(name, (value, error))| format!("{name} {} ± {}", significant(*value), significant(*error)));
        table.row([
            Cell::text(row.component.as_deref().unwrap_or_default()),
            Cell::count_if_any(row.layer_index),
            Cell::text(row.group.as_deref().unwrap_or_default()),
            Cell::text(&row.law),
            Cell::count(row.count),
            Cell::text(parameters.collect::<Vec<_>>().join(", ")),
            Cell::fixed(row.r2, 4),
            Cell::significant(row.aic),
            Cell::text(if row.best { "yes" } else { "" }),
            Cell::significant(row.peak),
            Cell::significant(row.limit),
        ]);
    }
    table.to_string()
}

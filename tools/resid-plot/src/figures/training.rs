//! Training curves: what vcl-train reports per step, one panel per quantity, raw values faint and a running median on top.

use super::quantile;
use crate::figure::{Axis, Figure, Mark, Panel, Scale, Weight};
use crate::source::{Series, Source, number};
use process::Result;

/// (path of the field, axis, unit), in reading order. A field that no metric record has gets no panel.
const QUANTITIES: [(&str, &str, &str); 6] = [
    ("loss", "SFT loss", "nats / token"),
    ("aux.vcl.c_k", "C_k of the window", "share of variance"),
    ("loss_total", "total loss", "nats / token + auxiliary losses"),
    ("norm_mean", "residual norm", "residual units"),
    ("grad_norm", "gradient norm", "before clipping"),
    ("lr", "learning rate", ""),
];
/// The running median spans this share of the steps.
const WINDOW_SHARE: f64 = 0.04;

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels = Vec::new();
    for (field, name, unit) in QUANTITIES {
        let mut panel = Panel::new(name, Axis::new("step", "").scaled(Scale::Count), Axis::new(name, unit));
        for source in sources {
            let points = values(source, "metric", field);
            if points.is_empty() {
                continue;
            }
            let index = series.index(&source.name.series);
            let smooth = running_median(&points);
            if smooth != points {
                panel.marks.push(Mark::Line {
                    name: String::new(),
                    series: index,
                    points,
                    weight: Weight::Faint,
                });
            }
            panel.marks.push(Mark::Line {
                name: source.name.series.clone(),
                series: index,
                points: smooth,
                weight: Weight::Plain,
            });
            if field == "loss" {
                let held_out = values(source, "eval", "eval_loss");
                if !held_out.is_empty() {
                    let name = format!("{} held out", source.name.series).trim().to_string();
                    panel.marks.push(Mark::Points {
                        name,
                        series: index,
                        points: held_out,
                    });
                }
            }
        }
        if !panel.marks.is_empty() {
            panels.push(panel);
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "training",
        title: "Training curves".to_string(),
        caption: format!(
            "Per optimiser step; the bold line is a running median over {:.0} % of the steps, the faint one the values themselves. Markers in the loss \
             panel are held-out evaluations.",
            WINDOW_SHARE * 100.0
        ),
        panels,
    }))
}

fn values(source: &Source, kind: &str, field: &str) -> Vec<(f64, f64)> {
    source
        .of_type(kind)
        .filter_map(|row| Some((number(row, "step")?, number(row, field)?)))
        .collect()
}

fn running_median(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (points.len() as f64 * WINDOW_SHARE / 2.0).floor() as usize;
    (0..points.len())
        .map(|index| {
            let window = &points[index.saturating_sub(half)..(index + half + 1).min(points.len())];
            let mut values: Vec<f64> = window.iter().map(|point| point.1).collect();
            (points[index].0, quantile(&mut values, 0.5))
        })
        .collect()
}

//! Spectra: the share of variance of each leading component, of the stack and of every layer.

use crate::figure::{Axis, Depth2, Figure, Mark, Panel, Scale, Weight};
use crate::source::{Series, Source, series_name};
use process::Result;
use serde::Deserialize;

#[derive(Deserialize)]
struct Spectrum {
    #[serde(default)]
    group: String,
    #[serde(default)]
    site: String,
    layer_index: Option<usize>,
    evr: Vec<f64>,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let axes = || {
        (
            Axis::new("component", "rank").scaled(Scale::Count),
            Axis::new("share of variance", "").scaled(Scale::Log10),
        )
    };
    let mut panels = Vec::new();
    let (x, y) = axes();
    let mut stack = Panel::new("all layers stacked", x, y);
    for source in sources {
        for row in source.all::<Spectrum>("stack")? {
            let name = series_name(sources, source, &row.group);
            let points = ranked(&row.evr).collect();
            stack.marks.push(Mark::Line {
                series: series.index(&name),
                name,
                points,
                weight: Weight::Marked,
            });
        }
    }
    if !stack.marks.is_empty() {
        panels.push(stack);
    }
    for source in sources {
        let rows = source.all::<Spectrum>("layer")?;
        let mut keys: Vec<(String, String)> = Vec::new();
        for row in &rows {
            let key = (row.group.clone(), row.site.clone());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for (group, site) in keys {
            let of_group: Vec<&Spectrum> = rows.iter().filter(|r| r.group == group && r.site == site).collect();
            let layer_count = of_group.iter().filter_map(|r| r.layer_index).max().unwrap_or(0) + 1;
            let name = series_name(sources, source, &group);
            let (x, y) = axes();
            let mut panel = Panel::new(
                format!("layer by layer: {name}")
                    .trim_end_matches([':', ' '])
                    .to_string(),
                x,
                y,
            );
            panel.colour_bar = Some("depth".to_string());
            for row in of_group {
                let depth = (row.layer_index.unwrap_or(0) + 1) as f64 / layer_count as f64;
                let points = ranked(&row.evr).map(|at| Depth2 { at, depth }).collect();
                panel.marks.push(Mark::Path {
                    name: String::new(),
                    series: 0,
                    points,
                });
            }
            if panel.extent().is_some() {
                panels.push(panel);
            }
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "spectrum",
        title: "Spectra of the residual stream".to_string(),
        caption: "Share of the total variance carried by each leading principal component, on a logarithmic axis. A steep start means that few \
                  directions carry most of the variance."
            .to_string(),
        panels,
    }))
}

/// (rank from 1, share); a share of zero has no place on a logarithmic axis.
fn ranked(shares: &[f64]) -> impl Iterator<Item = (f64, f64)> + '_ {
    shares
        .iter()
        .enumerate()
        .filter(|(_, share)| **share > 0.0)
        .map(|(index, share)| ((index + 1) as f64, *share))
}

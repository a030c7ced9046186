//! Spectra: the share of variance of each leading component, of the stack and of every layer.

use crate::figure::{Axis, Depth2, Figure, Mark, Panel, Scale, Weight};
use crate::source::{Series, Source, series_name};
use indexmap::IndexMap;
use process::Result;
use records::{Geometry, Layer, Stack};

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut panels = Vec::new();
    let stack = stack(sources)?;
    if !stack.marks.is_empty() {
        panels.push(stack);
    }
    for source in sources {
        let mut parts: IndexMap<(String, String), Vec<Layer>> = IndexMap::new();
        for row in source.all::<Layer>()? {
            let key = (row.geometry.group.clone(), row.geometry.site.clone());
            parts.entry(key).or_default().push(row);
        }
        for ((group, _), rows) in parts {
            let panel = layers(source, &series_name(sources, source, &group), &rows);
            if panel.extent().is_some() {
                panels.push(panel);
            }
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "spectrum",
        title: "Spectra of the residual stream".to_string(),
        caption: "Share of the total variance carried by each leading principal component, on a logarithmic axis. A steep start means that few \
                  directions carry most of the variance. Of many layers eight are drawn, evenly spread."
            .to_string(),
        panels,
    }))
}

fn empty_panel(title: &str) -> Panel {
    Panel::new(
        title,
        Axis::new("component", "rank").scaled(Scale::Count),
        Axis::new("share of variance", "").scaled(Scale::Log10),
    )
}

fn stack(sources: &[Source]) -> Result<Panel> {
    let mut series = Series::default();
    let mut panel = empty_panel("all layers stacked");
    for source in sources {
        for row in source.all::<Stack>()? {
            let name = series_name(sources, source, &row.geometry.group);
            panel.marks.push(Mark::Line {
                series: series.index(&name),
                name,
                points: ranked(&row.geometry).collect(),
                weight: Weight::Marked,
            });
        }
    }
    Ok(panel)
}

fn layers(source: &Source, name: &str, rows: &[Layer]) -> Panel {
    let shown = spread(rows);
    let title = match shown.len() == rows.len() {
        true => format!("layer by layer: {name}"),
        false => format!("{} of {} layers: {name}", shown.len(), rows.len()),
    };
    let mut panel = empty_panel(title.trim_end_matches([':', ' ']));
    panel.colour_bar = Some("depth".to_string());
    for row in shown {
        let depth = source.depth(row.layer_index, row.depth.depth);
        panel.marks.push(Mark::Path {
            name: String::new(),
            series: 0,
            points: ranked(&row.geometry).map(|at| Depth2 { at, depth }).collect(),
        });
    }
    panel
}

/// More lines than this lie over each other.
const LAYERS_SHOWN_MAX: usize = 8;

/// Rows of evenly spread layers, the first and the last among them.
fn spread(rows: &[Layer]) -> Vec<&Layer> {
    let count = rows.len().min(LAYERS_SHOWN_MAX);
    let step = (rows.len() - 1) as f64 / (count - 1).max(1) as f64;
    (0..count)
        .map(|at| &rows[(at as f64 * step).round() as usize])
        .collect()
}

/// (rank from 1, share); a share of zero has no place on a logarithmic axis.
fn ranked(geometry: &Geometry) -> impl Iterator<Item = (f64, f64)> + '_ {
    let shares = geometry.evr.iter().flatten();
    shares
        .enumerate()
        .filter(|(_, share)| **share > 0.0)
        .map(|(index, share)| ((index + 1) as f64, *share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_layers_eight_are_drawn_from_the_first_to_the_last() {
        let layer = |index: usize| {
            let row = serde_json::json!({"type": "layer", "layer_index": index, "site": "resid_post", "group": "", "layout": "stacked",
                "center": "global", "row_count": 4, "c_k": {}, "eigenvalues": []});
            serde_json::from_value(row).unwrap()
        };
        let drawn = |count: usize| -> Vec<usize> {
            let rows: Vec<Layer> = (0..count).map(layer).collect();
            spread(&rows).iter().map(|row| row.layer_index).collect()
        };
        assert_eq!(drawn(30), [0, 4, 8, 12, 17, 21, 25, 29]);
        assert_eq!(drawn(1), [0]);
        assert_eq!(drawn(8), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

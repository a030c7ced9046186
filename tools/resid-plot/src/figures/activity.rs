//! How large activations are: maxima and ratios over depth, histograms of magnitudes as a heat map over depth, and laws with their points.

use crate::figure::{Axis, Cell, Figure, Mark, Panel, Scale, Weight};
use crate::source::{Series, Source, plain, series_name};
use indexmap::IndexMap;
use process::{Error, Result};
use records::{Act, Fit};
use std::collections::BTreeMap;

/// Bins of a factor of ten in the histogram, and the exponent of its first edge.
const BINS_PER_DECADE: f64 = 32.0;
const FIRST_EXPONENT: f64 = -8.0;
const BIN_COUNT: usize = 512;

/// A measure of a row, where the row has it.
type Measure = fn(&Act) -> Option<f64>;

pub fn massive(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels = Vec::new();
    let measures: [(&str, Measure); 2] = [
        ("largest magnitude", |act| Some(act.abs_max)),
        ("largest ratio of a token", |act| act.ratio_max),
    ];
    for (title, value) in measures {
        let y = Axis::new(title, "").scaled(Scale::Log10);
        let mut panel = Panel::new("", depth_axis(), y);
        for (name, points) in curves(sources, value)? {
            panel.marks.push(Mark::Line {
                series: series.index(&name),
                name,
                points,
                weight: Weight::Marked,
            });
        }
        if !panel.marks.is_empty() {
            panels.push(panel);
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "massive",
        title: "Largest activations by layer".to_string(),
        caption: "The largest magnitude of a component over all tokens, and the largest ratio of a token's maximum to the lower median of its magnitudes, \
                  by depth (block index over block count). Massive activations lie orders of magnitude above the rest of their layer."
            .to_string(),
        panels,
    }))
}

fn depth_axis() -> Axis {
    Axis::new("depth", "block / blocks").within(0.0, 1.0)
}

/// (depth, value) by component, ascending; what a logarithmic axis cannot show is left out.
fn curves(sources: &[Source], value: impl Fn(&Act) -> Option<f64>) -> Result<IndexMap<String, Vec<(f64, f64)>>> {
    let mut curves: IndexMap<String, Vec<(f64, f64)>> = IndexMap::new();
    for source in sources {
        for act in source.all::<Act>()? {
            let Some((layer, y)) = act.layer_index.zip(value(&act).filter(|y| *y > 0.0)) else {
                continue;
            };
            let depth = source.depth(layer, act.depth.depth);
            curves
                .entry(legend(sources, source, &act))
                .or_default()
                .push((depth, y));
        }
    }
    curves
        .values_mut()
        .for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    Ok(curves)
}

/// Component, source and group, as far as they tell series apart.
fn legend(sources: &[Source], source: &Source, act: &Act) -> String {
    let component = plain(&act.component);
    match series_name(sources, source, &act.group) {
        name if name.is_empty() => component,
        name => format!("{component} · {name}"),
    }
}

pub fn magnitudes(sources: &[Source]) -> Result<Option<Figure>> {
    let mut panels = Vec::new();
    for source in sources {
        let mut components: BTreeMap<String, BTreeMap<usize, Act>> = BTreeMap::new();
        for act in source.all::<Act>()? {
            if let (Some(layer), true) = (act.layer_index, act.group.is_empty()) {
                check(source, &act)?;
                components
                    .entry(legend(sources, source, &act))
                    .or_default()
                    .insert(layer, act);
            }
        }
        let drawn = components
            .into_iter()
            .filter_map(|(name, layers)| heat_map(name, &layers));
        panels.extend(drawn);
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "magnitudes",
        title: "Magnitudes by layer".to_string(),
        caption: "How often a magnitude occurs in a layer, on a logarithmic scale of magnitudes; each layer's most frequent bin is 1. A few massive \
                  activations are too rare to be seen here: the figure \"massive\" shows them."
            .to_string(),
        panels,
    }))
}

fn check(source: &Source, act: &Act) -> Result<()> {
    let end = act.histogram.start.saturating_add(act.histogram.counts.len() as u64);
    match end <= BIN_COUNT as u64 {
        true => Ok(()),
        false => Err(Error::input(
            &source.path,
            format!(
                "a histogram of {} ends at bin {end} of {BIN_COUNT}",
                plain(&act.component)
            ),
        )),
    }
}

/// Layers from left to right, bins from below; `None` where no bin holds anything.
fn heat_map(name: String, layers: &BTreeMap<usize, Act>) -> Option<Panel> {
    let filled = || {
        layers
            .values()
            .map(|act| &act.histogram)
            .filter(|bins| !bins.counts.is_empty())
    };
    let low = filled().map(|bins| bins.start as usize).min()?;
    let high = filled().map(|bins| bins.start as usize + bins.counts.len()).max()?;
    let (first, last) = (*layers.keys().next()?, *layers.keys().next_back()?);
    let value = |layer: usize, bin: usize| {
        let bins = &layers.get(&layer)?.histogram;
        let largest = *bins.counts.iter().max()?;
        let count = bins.counts.get(bin.checked_sub(bins.start as usize)?)?;
        Some(*count as f64 / largest as f64)
    };
    let cells = (low..high).flat_map(|bin| (first..=last).map(move |layer| (layer, bin)));
    let exponent = |bin: usize| bin as f64 / BINS_PER_DECADE + FIRST_EXPONENT;
    let mut panel = Panel::new(
        name,
        Axis::new("block", "")
            .scaled(Scale::Count)
            .within(first as f64 - 0.5, last as f64 + 0.5),
        Axis::new("log10 of the magnitude", "").within(exponent(low), exponent(high)),
    );
    panel.colour_bar = Some("count / largest of the layer".to_string());
    panel.marks.push(Mark::Cells {
        columns: last - first + 1,
        rows: cells
            .map(|(layer, bin)| Cell::Value(value(layer, bin).unwrap_or(0.0)))
            .collect(),
    });
    Some(panel)
}

pub fn laws(sources: &[Source]) -> Result<Option<Figure>> {
    let mut panels: IndexMap<String, Panel> = IndexMap::new();
    for source in sources {
        for fit in source.all::<Fit>()? {
            let layer = fit.layer_index.map(|layer| format!("layer {layer}"));
            let parts = [
                fit.component.as_deref().map(plain),
                layer,
                fit.group.as_deref().map(plain),
            ];
            let named: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            let title = series_name(sources, source, &named.join(", "));
            let panel = panels.entry(title.clone()).or_insert_with(|| measured(title, &fit));
            let series = panel.marks.len();
            panel.marks.push(Mark::Line {
                name: format!(
                    "{} (R² {:.3}){}",
                    plain(&fit.law),
                    fit.r2,
                    if fit.best { ", best" } else { "" }
                ),
                series,
                points: fit.points.iter().map(|(x, _, law)| (*x, *law)).collect(),
                weight: Weight::Plain,
            });
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "law",
        title: "Laws over training or size".to_string(),
        caption: "Measured points and the laws fitted to them; the best one has the least Akaike criterion."
            .to_string(),
        panels: panels.into_values().collect(),
    }))
}

/// A panel with the points of a series, which all laws of it share.
fn measured(title: String, fit: &Fit) -> Panel {
    let y = plain(&fit.y.replace('_', " "));
    let mut panel = Panel::new(title, Axis::new("step or size", ""), Axis::new(y, ""));
    panel.marks.push(Mark::Points {
        name: "measured".to_string(),
        series: 0,
        points: fit.points.iter().map(|(x, y, _)| (*x, *y)).collect(),
    });
    panel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Name;
    use serde_json::json;

    fn source(rows: Vec<serde_json::Value>) -> Source {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let mut reader = records::Reader::new(text.as_bytes());
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            rows.push(row);
        }
        Source {
            name: Name {
                series: String::new(),
                x: None,
            },
            path: "act.jsonl".into(),
            rows,
            layer_count_seen: 2,
        }
    }

    fn act(layer: usize, abs_max: f64, start: u64, counts: &[u64]) -> serde_json::Value {
        json!({"type": "act", "component": "resid_post", "layer_index": layer, "row_count": 1, "count": 4, "zero_count": 0, "mean": 0.0,
            "std": 1.0, "rms": 1.0, "mean_abs": 1.0, "max": abs_max, "min": 0.0, "abs_max": abs_max, "abs_max_sample_index": 0,
            "abs_max_position": 0, "abs_max_dim": 0, "top": [], "ratio_max": 2.0 * abs_max, "massive_count": 0, "massive_dims": [],
            "quantiles": {}, "entropy_nats": 0.0, "histogram": {"below": 0, "start": start, "counts": counts, "above": 0}})
    }

    #[test]
    fn maxima_and_ratios_are_drawn_by_depth() {
        let figure = massive(&[source(vec![act(1, 30.0, 0, &[]), act(0, 10.0, 0, &[])])])
            .unwrap()
            .unwrap();
        let line = |panel: &Panel| match &panel.marks[..] {
            [Mark::Line { name, points, .. }] => (name.clone(), points.clone()),
            marks => panic!("{marks:?}"),
        };
        assert_eq!(
            line(&figure.panels[0]),
            ("resid_post".into(), vec![(0.5, 10.0), (1.0, 30.0)])
        );
        assert_eq!(line(&figure.panels[1]).1, vec![(0.5, 20.0), (1.0, 60.0)]);
    }

    #[test]
    fn a_heat_map_spans_the_bins_of_all_layers() {
        let figure = magnitudes(&[source(vec![act(0, 1.0, 256, &[1, 4]), act(2, 1.0, 255, &[5])])])
            .unwrap()
            .unwrap();
        let [Mark::Cells { columns, rows }] = &figure.panels[0].marks[..] else {
            panic!("one mark")
        };
        assert_eq!(*columns, 3);
        let values = [0.0, 0.0, 1.0, 0.25, 0.0, 0.0, 1.0, 0.0, 0.0];
        assert_eq!(rows, &values.map(Cell::Value));
        assert_eq!(figure.panels[0].y.range, Some((255.0 / 32.0 - 8.0, 258.0 / 32.0 - 8.0)));
        let beyond = source(vec![act(0, 1.0, 512, &[1])]);
        assert!(magnitudes(&[beyond]).is_err());
    }

    #[test]
    fn laws_of_a_series_share_its_points() {
        let fit = |law: &str, best: bool| {
            json!({"type": "fit", "law": law, "y": "ratio_max", "component": "resid_post", "layer_index": 1, "group": "", "count": 2,
                "parameters": {"a": [1.0, 0.1]}, "r2": 0.5, "best": best, "points": [[0.0, 1.0, 1.1], [1.0, 2.0, 1.9]]})
        };
        let figure = laws(&[source(vec![fit("linear", true), fit("massive", false)])])
            .unwrap()
            .unwrap();
        assert_eq!((figure.panels.len(), figure.panels[0].marks.len()), (1, 3));
        assert_eq!(figure.panels[0].title, "resid_post, layer 1");
    }
}

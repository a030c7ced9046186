//! Vectors that might steer, layer by layer: what steer-vec measured of each, a line for every token position.

use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, series_name};
use indexmap::IndexMap;
use process::Result;
use records::Candidate;

type Measure = fn(&Candidate) -> Option<f64>;

/// (axis, unit, value), in reading order. What no candidate has gets no panel.
const MEASURES: [(&str, &str, Measure); 5] = [
    ("refusal score, ablated", "log odds", |row| row.refusal_harmful),
    ("false-refusal score, ablated", "log odds", |row| row.refusal_pseudo),
    ("change of harmless answers", "nats of KL divergence", |row| row.kl),
    ("refusal score, added", "log odds", |row| row.induced_harmless),
    ("length of the vector", "residual units", |row| Some(row.norm)),
];

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut candidates = Vec::new();
    for source in sources {
        let rows = source.all::<Candidate>()?.into_iter();
        candidates.extend(rows.map(|row| (series_name(sources, source, &format!("token {}", row.position)), row)));
    }
    let mut series = Series::default();
    let panels: Vec<Panel> = MEASURES
        .iter()
        .filter_map(|measure| panel(measure, &candidates, &mut series))
        .collect();
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "candidates",
        title: "Candidates by layer".to_string(),
        caption: "Every vector by the layer and the token, from the end of the prompt, that it was taken from; the large marker is the chosen one. Layers \
                  that were discarded for their depth were not tried."
            .to_string(),
        panels,
    }))
}

fn panel(
    (name, unit, value): &(&str, &'static str, Measure),
    candidates: &[(String, Candidate)],
    series: &mut Series,
) -> Option<Panel> {
    let mut lines: IndexMap<&str, Vec<(f64, f64)>> = IndexMap::new();
    let mut chosen = Vec::new();
    for (name, row) in candidates {
        let Some(y) = value(row) else { continue };
        let at = (row.layer_index as f64, y);
        lines.entry(name).or_default().push(at);
        if row.chosen {
            chosen.push(at);
        }
    }
    let mut panel = Panel::new(*name, Axis::new("layer", ""), Axis::new(*name, unit));
    for (name, points) in lines {
        panel.marks.push(Mark::Line {
            name: name.to_owned(),
            series: series.index(name),
            points,
            weight: Weight::Plain,
        });
    }
    if !chosen.is_empty() {
        panel.marks.push(Mark::Points {
            name: "chosen".to_owned(),
            series: series.index("chosen"),
            points: chosen,
        });
    }
    (!panel.marks.is_empty()).then_some(panel)
}

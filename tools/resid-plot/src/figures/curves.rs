//! Interpolation curves of stable-regions: distance travelled against α, the median over pairs and its quartiles, single
//! pairs faintly behind.

use super::quantile;
use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, series_name};
use process::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Up to this many single curves are drawn behind the median.
const SINGLE_CURVES_MAX: usize = 40;

#[derive(Deserialize)]
struct Region {
    id: String,
    #[serde(default)]
    group: String,
    model_digest: String,
    distance: String,
    path_kind: String,
    layer_index: Option<usize>,
    /// Present where the way went in a random direction.
    baseline: Option<String>,
    #[serde(default)]
    skipped: Option<String>,
    #[serde(default)]
    alpha: Vec<f64>,
    #[serde(default)]
    curve: Vec<f64>,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels: Vec<(String, Panel)> = Vec::new();
    for source in sources {
        let rows: Vec<Region> = source
            .all::<Region>("region")?
            .into_iter()
            .filter(|row| row.skipped.is_none())
            .collect();
        let mut models: Vec<&str> = Vec::new();
        for row in &rows {
            if row.alpha.len() != row.curve.len() || row.alpha.is_empty() {
                return Err(Error::input(
                    &source.path,
                    format!(
                        "region \"{}\" has {} values of alpha and {} of curve",
                        row.id,
                        row.alpha.len(),
                        row.curve.len()
                    ),
                ));
            }
            if !models.contains(&row.model_digest.as_str()) {
                models.push(&row.model_digest);
            }
        }
        let layers: BTreeSet<Option<usize>> = rows.iter().map(|row| row.layer_index).collect();
        let key = |row: &Region| {
            let texts = [&row.distance, &row.model_digest, &row.group].map(String::clone);
            (texts, row.layer_index, row.baseline.is_some())
        };
        let mut keys = Vec::new();
        for row in &rows {
            let key = key(row);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for chosen_key in keys {
            let chosen: Vec<&Region> = rows.iter().filter(|row| key(row) == chosen_key).collect();
            let ([distance, model, group], layer, is_baseline) = chosen_key;
            let mut label = series_name(sources, source, &group);
            if models.len() > 1 {
                let number = models.iter().position(|m| **m == model).unwrap_or(0) + 1;
                label = format!("{label} model {number}").trim().to_string();
            }
            if let (true, Some(layer)) = (layers.len() > 1, layer) {
                label = format!("{label} after block {layer}").trim().to_string();
            }
            if is_baseline {
                label = format!("{label} random direction").trim().to_string();
            }
            let index = match panels.iter().position(|(known, _)| *known == distance) {
                Some(index) => index,
                None => {
                    panels.push((distance.clone(), empty_panel(&distance, &chosen[0].path_kind)));
                    panels.len() - 1
                }
            };
            push(&mut panels[index].1, series.index(&label), label, &chosen);
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "interpolation",
        title: "Interpolation between prompts".to_string(),
        caption: "How far the read-out has moved while the patched residual goes from prompt A (α = 0) to prompt B (α = 1). A plateau with a sudden \
                  rise is a region border; a linear map would give the diagonal. Bold: median over pairs, band: quartiles, faint: single pairs."
            .to_string(),
        panels: panels.into_iter().map(|(_, panel)| panel).collect(),
    }))
}

fn empty_panel(distance: &str, path: &str) -> Panel {
    let (name, unit) = match distance {
        "l2" => ("distance d(α) / d(1)", ""),
        "relative" => ("relative distance", ""),
        "kl" => ("KL(A ‖ X(α)) / KL(A ‖ X(1))", ""),
        "logit" => ("share of the way of the score difference", ""),
        other => (other, ""),
    };
    Panel::new(
        format!("{path} path"),
        Axis::new("α", "").within(0.0, 1.0),
        Axis::new(name, unit),
    )
}

fn push(panel: &mut Panel, series: usize, name: String, rows: &[&Region]) {
    for row in rows.iter().take(SINGLE_CURVES_MAX) {
        let points = row.alpha.iter().copied().zip(row.curve.iter().copied()).collect();
        panel.marks.push(Mark::Line {
            name: String::new(),
            series,
            points,
            weight: Weight::Faint,
        });
    }
    // Curves on one grid only can be summarised; bisection points are off it.
    let grid = &rows[0].alpha;
    let aligned: Vec<&&Region> = rows.iter().filter(|row| row.alpha == *grid).collect();
    let summary = |share: f64| -> Vec<f64> {
        (0..grid.len())
            .map(|i| quantile(&mut aligned.iter().map(|row| row.curve[i]).collect::<Vec<_>>(), share))
            .collect()
    };
    let (low, middle, high) = (summary(0.25), summary(0.5), summary(0.75));
    if aligned.len() > 2 {
        let points = grid
            .iter()
            .zip(low.iter().zip(&high))
            .map(|(a, (l, h))| (*a, *l, *h))
            .collect();
        panel.marks.push(Mark::Band { series, points });
    }
    let points = grid.iter().copied().zip(middle).collect();
    panel.marks.push(Mark::Line {
        name,
        series,
        points,
        weight: Weight::Plain,
    });
}

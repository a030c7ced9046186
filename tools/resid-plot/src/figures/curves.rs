//! Interpolation curves of stable-regions: distance travelled against α, the median over pairs and its quartiles, single
//! pairs faintly behind.

use super::quantile;
use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, plain, series_name};
use indexmap::{IndexMap, IndexSet};
use process::{Error, Result};
use records::{Measured, Region};

/// Up to this many single curves are drawn behind the median.
const SINGLE_CURVES_MAX: usize = 40;

/// What the curves of one line have in common, in the order of the legend.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    distance: String,
    model_digest: String,
    group: String,
    layer_index: usize,
    is_baseline: bool,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels: IndexMap<String, Panel> = IndexMap::new();
    for source in sources {
        let rows = source.all::<Region>()?;
        let mut lines: IndexMap<Key, Vec<&Region>> = IndexMap::new();
        for row in rows.iter().filter(|row| row.measured().is_some()) {
            check_lengths(source, row)?;
            lines.entry(key(row)).or_default().push(row);
        }
        let models: IndexSet<&str> = lines.keys().map(|key| key.model_digest.as_str()).collect();
        let layers: IndexSet<usize> = lines.keys().map(|key| key.layer_index).collect();
        for (key, rows) in &lines {
            let mut label = series_name(sources, source, &key.group);
            if let (true, Some(index)) = (models.len() > 1, models.get_index_of(key.model_digest.as_str())) {
                label = format!("{label} model {}", index + 1).trim().to_string();
            }
            if layers.len() > 1 {
                label = format!("{label} after block {}", key.layer_index).trim().to_string();
            }
            if key.is_baseline {
                label = format!("{label} random direction").trim().to_string();
            }
            let panel = panels
                .entry(key.distance.clone())
                .or_insert_with(|| empty_panel(&key.distance, &rows[0].path_kind));
            let curves: Vec<&Measured> = rows.iter().filter_map(|row| row.measured()).collect();
            push(panel, series.index(&label), label, &curves);
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "interpolation",
        title: "Interpolation between prompts".to_string(),
        caption: "How far the read-out has moved while the patched residual goes from prompt A (α = 0) to prompt B (α = 1). A plateau with a sudden \
                  rise is a region border; a linear map would give the diagonal. Bold: median over pairs, band: quartiles, faint: single pairs."
            .to_string(),
        panels: panels.into_values().collect(),
    }))
}

fn key(row: &Region) -> Key {
    Key {
        distance: row.distance.clone(),
        model_digest: row.model_digest.clone(),
        group: row.group.clone(),
        layer_index: row.layer_index,
        is_baseline: row.baseline.is_some(),
    }
}

fn check_lengths(source: &Source, row: &Region) -> Result<()> {
    let (alpha, curve) = row.measured().map_or((0, 0), |m| (m.alpha.len(), m.curve.len()));
    if alpha == curve && alpha > 0 {
        return Ok(());
    }
    let id = plain(&row.id);
    Err(Error::input(
        &source.path,
        format!("region \"{id}\" has {alpha} values of alpha and {curve} of curve"),
    ))
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

fn push(panel: &mut Panel, series: usize, name: String, rows: &[&Measured]) {
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
    let aligned: Vec<&&Measured> = rows.iter().filter(|row| row.alpha == *grid).collect();
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

//! Numbers of `layer` records against depth: the variance concentration C_k, or any other field by name.

use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, capital, plain, series_name};
use process::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One curve: (legend entry, (depth, value) by layer).
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(default)]
    group: String,
    layer_index: usize,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
}

pub fn concentration(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels = Vec::new();
    for k in ["1", "2", "3", "4", "8"] {
        let curves = curves(sources, |layer| layer.fields.get("c_k")?.get(k)?.as_f64())?;
        if curves.is_empty() {
            continue;
        }
        let y = Axis::new(format!("C_{k}"), "share of variance").within(0.0, 1.0);
        let mut panel = Panel::new(format!("k = {k}"), depth_axis(), y);
        push(&mut panel, &mut series, curves);
        panels.push(panel);
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "concentration",
        title: "Variance concentration C_k by layer".to_string(),
        caption: "C_k is the share of the variance of a layer's residuals that the k leading principal components carry; depth is block index over \
                  block count."
            .to_string(),
        panels,
    }))
}

pub fn field(sources: &[Source], field: &str) -> Result<Option<Figure>> {
    let curves = curves(sources, |layer| layer.fields.get(field).and_then(Value::as_f64))?;
    if curves.is_empty() {
        if sources.iter().any(|source| source.has("layer")) {
            return Err(Error::usage(
                format!("--figure layer:{field}"),
                "no layer record has a number of this name",
            ));
        }
        return Ok(None);
    }
    let readable = field.replace('_', " ");
    let mut panel = Panel::new("", depth_axis(), Axis::new(readable.clone(), unit(field)));
    push(&mut panel, &mut Series::default(), curves);
    Ok(Some(Figure {
        kind: "layer",
        title: format!("{} by layer", capital(&readable)),
        caption: format!(
            "The field {} of the layer records, by depth (block index over block count).",
            plain(field)
        ),
        panels: vec![panel],
    }))
}

fn depth_axis() -> Axis {
    Axis::new("depth", "block / blocks").within(0.0, 1.0)
}

/// Units of the numbers flowlens-pca reports; an unknown name is drawn without one.
fn unit(field: &str) -> &'static str {
    match field {
        "norm_mean" | "dispersion" => "residual units",
        "matrix_entropy" => "nats",
        "participation_ratio" | "effective_rank" | "stable_rank" | "id_twonn" | "id_mle" => "dimensions",
        "k90" => "components",
        _ => "",
    }
}

fn curves(sources: &[Source], value: impl Fn(&Layer) -> Option<f64>) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = Vec::new();
    for source in sources {
        let layers = source.all::<Layer>("layer")?;
        // The last block's depth is 1; a dump of some layers only still knows its own last one.
        let layer_count = layers.iter().map(|layer| layer.layer_index + 1).max().unwrap_or(1);
        for layer in &layers {
            let Some(y) = value(layer) else { continue };
            let name = series_name(sources, source, &layer.group);
            let point = ((layer.layer_index + 1) as f64 / layer_count as f64, y);
            match curves.iter_mut().find(|curve| curve.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    name,
                    points: vec![point],
                }),
            }
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(curves)
}

fn push(panel: &mut Panel, series: &mut Series, curves: Vec<Curve>) {
    for curve in curves {
        panel.marks.push(Mark::Line {
            series: series.index(&curve.name),
            name: curve.name,
            points: curve.points,
            weight: Weight::Marked,
        });
    }
}

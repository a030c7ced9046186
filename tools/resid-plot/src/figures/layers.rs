//! Numbers of `layer` records against depth: the variance concentration C_k, or any other field by name.

use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, capital, plain, series_name};
use indexmap::IndexMap;
use process::{Error, Result};
use records::Layer;

/// (depth, value) by legend entry.
type Curves = IndexMap<String, Vec<(f64, f64)>>;

pub fn concentration(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels = Vec::new();
    for k in ["1", "2", "3", "4", "8"] {
        let curves = curves(sources, |layer| layer.geometry.c_k.get(k).copied())?;
        if curves.is_empty() {
            continue;
        }
        let y = Axis::new(format!("C_{k}"), "share of variance");
        let mut panel = Panel::new(format!("k = {k}"), depth_axis(), y);
        push(&mut panel, &mut series, curves);
        panels.push(panel);
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "concentration",
        title: "Variance concentration C_k by layer".to_string(),
        caption: "C_k is the share of the variance of a layer's residuals that the k leading principal components carry; depth is block index over \
                  block count. Every panel has the axis of its own values."
            .to_string(),
        panels,
    }))
}

pub fn field(sources: &[Source], field: &str) -> Result<Option<Figure>> {
    let curves = curves(sources, |layer| serde_json::to_value(layer).ok()?.get(field)?.as_f64())?;
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

fn curves(sources: &[Source], value: impl Fn(&Layer) -> Option<f64>) -> Result<Curves> {
    let mut curves = Curves::new();
    for source in sources {
        for layer in source.all::<Layer>()? {
            if let Some(y) = value(&layer) {
                let name = series_name(sources, source, &layer.geometry.group);
                let depth = source.depth(layer.layer_index, layer.depth.depth);
                curves.entry(name).or_default().push((depth, y));
            }
        }
    }
    for points in curves.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(curves)
}

fn push(panel: &mut Panel, series: &mut Series, curves: Curves) {
    for (name, points) in curves {
        panel.marks.push(Mark::Line {
            series: series.index(&name),
            name,
            points,
            weight: Weight::Marked,
        });
    }
}

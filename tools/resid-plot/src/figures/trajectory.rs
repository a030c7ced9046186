//! Layer trajectories: the mean projection of a group of prompts on a principal component, against depth (the first
//! paper's Figures 2 and 5). A band is the bootstrap interval the records carry.

use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, series_name};
use process::{Error, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trajectory {
    group: Option<String>,
    id: Option<String>,
    component: String,
    basis: String,
    depth: Vec<f64>,
    projection: Vec<f64>,
    low: Option<Vec<f64>>,
    high: Option<Vec<f64>>,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels: Vec<((String, String), Panel)> = Vec::new();
    for source in sources {
        for row in source.all::<Trajectory>("trajectory")? {
            let count = row.depth.len();
            let counts = [
                Some(row.projection.len()),
                row.low.as_ref().map(Vec::len),
                row.high.as_ref().map(Vec::len),
            ];
            if counts.into_iter().flatten().any(|other| other != count) {
                return Err(Error::input(
                    &source.path,
                    format!("a trajectory has {count} depths and another number of values"),
                ));
            }
            let key = (row.basis.clone(), row.component.clone());
            let index = match panels.iter().position(|(known, _)| *known == key) {
                Some(index) => index,
                None => {
                    panels.push((key, empty_panel(&row)));
                    panels.len() - 1
                }
            };
            let panel = &mut panels[index].1;
            let name = series_name(
                sources,
                source,
                row.group.as_deref().or(row.id.as_deref()).unwrap_or_default(),
            );
            let series = series.index(&name);
            if let (Some(low), Some(high)) = (&row.low, &row.high) {
                let points = row
                    .depth
                    .iter()
                    .zip(low)
                    .zip(high)
                    .map(|((d, l), h)| (*d, *l, *h))
                    .collect();
                panel.marks.push(Mark::Band { series, points });
            }
            panel.marks.push(Mark::Line {
                name,
                series,
                points: row.depth.iter().copied().zip(row.projection.iter().copied()).collect(),
                weight: Weight::Marked,
            });
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "trajectory",
        title: "Layer trajectories of the residual stream".to_string(),
        caption: "Mean projection of the last prompt token's residual on a principal component, by depth (block index over block count). \
                  PC1 carries the most variance; PC_ID is the component whose number is the intrinsic dimension. Bands are bootstrap \
                  intervals. The own basis is fitted on the records' own rows, the reference basis on the model compared with."
            .to_string(),
        panels: panels.into_iter().map(|(_, panel)| panel).collect(),
    }))
}

fn empty_panel(row: &Trajectory) -> Panel {
    let component = component_name(&row.component);
    Panel::new(
        format!("{component}, {} basis", row.basis),
        Axis::new("depth", "block / blocks").within(0.0, 1.0),
        Axis::new(format!("projection on {component}"), "residual units"),
    )
}

pub fn component_name(component: &str) -> String {
    match component {
        "id" => "PC_ID".to_string(),
        number => format!("PC{}", crate::source::plain(number)),
    }
}

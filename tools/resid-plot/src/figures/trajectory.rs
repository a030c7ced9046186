//! Layer trajectories: the mean projection of a group of prompts on a principal component, against depth (the first
//! paper's Figures 2 and 5). A band is the bootstrap interval the records carry.

use crate::figure::{Axis, Figure, Mark, Panel, Weight};
use crate::source::{Series, Source, series_name};
use indexmap::IndexMap;
use process::{Error, Result};
use records::Trajectory;

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut series = Series::default();
    let mut panels: IndexMap<(String, String, &str), Panel> = IndexMap::new();
    for source in sources {
        for row in source.all::<Trajectory>()? {
            let depth = depths(source, &row)?;
            check_lengths(source, &row)?;
            let key = |unit: &'static str| (row.basis.clone(), row.component.clone(), unit);
            let name = series_name(sources, source, who(&row));
            let series = series.index(&name);
            let panel = panels
                .entry(key(RESIDUAL))
                .or_insert_with(|| empty_panel(&row, RESIDUAL));
            if let (Some(low), Some(high)) = (&row.low, &row.high) {
                let bounds = low.iter().zip(high);
                let points = depth.iter().zip(bounds).map(|(d, (l, h))| (*d, *l, *h)).collect();
                panel.marks.push(Mark::Band { series, points });
            }
            let line = |values: &[f64]| Mark::Line {
                name: name.clone(),
                series,
                points: depth.iter().copied().zip(values.iter().copied()).collect(),
                weight: Weight::Marked,
            };
            panel.marks.push(line(&row.projection));
            if let Some(normed) = &row.projection_normed {
                let panel = panels.entry(key(NORMS)).or_insert_with(|| empty_panel(&row, NORMS));
                panel.marks.push(line(normed));
            }
        }
    }
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "trajectory",
        title: "Layer trajectories of the residual stream".to_string(),
        caption: "Mean projection of the last prompt token's residual on a principal component, by depth (block index over block count). \
                  PC1 carries the most variance; PC_ID is the component whose number is the intrinsic dimension. Bands are bootstrap \
                  intervals. Where norms grow with depth a projection grows with them: in units of the layer's mean norm it does not. The own basis is fitted on the records' own rows, the reference basis on the model compared with."
            .to_string(),
        panels: panels.into_values().collect(),
    }))
}

/// The group or the prompt that the path belongs to.
pub fn who(row: &Trajectory) -> &str {
    row.group.as_deref().or(row.id.as_deref()).unwrap_or_default()
}

/// The depth of every layer of the path.
pub fn depths(source: &Source, row: &Trajectory) -> Result<Vec<f64>> {
    if !row.depth.is_empty() && row.depth.len() != row.layer_index.len() {
        return Err(Error::input(
            &source.path,
            format!(
                "a trajectory has {} layers and {} depths",
                row.layer_index.len(),
                row.depth.len()
            ),
        ));
    }
    let said = |at: usize| row.depth.get(at).copied();
    let layers = row.layer_index.iter().enumerate();
    Ok(layers.map(|(at, layer)| source.depth(*layer, said(at))).collect())
}

fn check_lengths(source: &Source, row: &Trajectory) -> Result<()> {
    let count = row.layer_index.len();
    let lengths = [
        Some(&row.projection),
        row.projection_normed.as_ref(),
        row.low.as_ref(),
        row.high.as_ref(),
    ];
    match lengths.into_iter().flatten().find(|values| values.len() != count) {
        None => Ok(()),
        Some(values) => Err(Error::input(
            &source.path,
            format!("a trajectory has {count} layers and {} values", values.len()),
        )),
    }
}

/// What projections are measured in.
const RESIDUAL: &str = "residual units";
const NORMS: &str = "mean norms of the layer";

fn empty_panel(row: &Trajectory, unit: &'static str) -> Panel {
    let component = component_name(&row.component);
    Panel::new(
        format!("{component}, {} basis", row.basis),
        Axis::new("depth", "block / blocks").within(0.0, 1.0),
        Axis::new(format!("projection on {component}"), unit),
    )
}

pub fn component_name(component: &str) -> String {
    match component {
        "id" => "PC_ID".to_string(),
        number => format!("PC{}", crate::source::plain(number)),
    }
}

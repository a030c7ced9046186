//! The path of each group's centre through the first three components, coloured by depth (the first paper's Figure 4).

use crate::figure::{Axis, Depth2, Figure, Mark, Panel, Path3};
use crate::source::{Series, Source, series_name};
use process::{Error, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Centres {
    group: Option<String>,
    id: Option<String>,
    basis: String,
    depth: Vec<f64>,
    center3: Option<Vec<Vec<f64>>>,
}

struct Path {
    name: String,
    basis: String,
    points: Vec<([f64; 3], f64)>,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut paths: Vec<Path> = Vec::new();
    for source in sources {
        for row in source.all::<Centres>("trajectory")? {
            let Some(centres) = row.center3 else { continue };
            let name = series_name(
                sources,
                source,
                row.group.as_deref().or(row.id.as_deref()).unwrap_or_default(),
            );
            // Every component's trajectory repeats the same centres.
            if paths.iter().any(|path| path.name == name && path.basis == row.basis) {
                continue;
            }
            if centres.len() != row.depth.len() {
                return Err(Error::input(
                    &source.path,
                    format!(
                        "group \"{name}\" has {} depths and {} centres",
                        row.depth.len(),
                        centres.len()
                    ),
                ));
            }
            let points = centres
                .iter()
                .zip(&row.depth)
                .map(|(centre, depth)| match centre[..] {
                    [x, y, z] => Ok(([x, y, z], *depth)),
                    _ => Err(Error::input(
                        &source.path,
                        format!(
                            "center3 of group \"{name}\" has a point of {} numbers, not 3",
                            centre.len()
                        ),
                    )),
                })
                .collect::<Result<_>>()?;
            paths.push(Path {
                name,
                basis: row.basis,
                points,
            });
        }
    }
    let mut bases: Vec<String> = Vec::new();
    for path in &paths {
        if !bases.contains(&path.basis) {
            bases.push(path.basis.clone());
        }
    }
    Ok((!paths.is_empty()).then(|| Figure {
        kind: "projection",
        title: "Paths through the first principal components".to_string(),
        caption: "Mean residual of each group after every block, in the first three principal components, coloured by depth from the first \
                  block (dark) to the last (light). Right: the same paths in the first two components. Markers tell the groups apart."
            .to_string(),
        panels: bases.iter().flat_map(|basis| panels(&paths, basis)).collect(),
    }))
}

fn panels(paths: &[Path], basis: &str) -> [Panel; 2] {
    let axis = |n: usize| Axis::new(format!("PC{n}"), "residual units");
    let mut series = Series::default();
    let chosen: Vec<&Path> = paths.iter().filter(|path| path.basis == basis).collect();
    let mut space = Panel::new(format!("{basis} basis, three components"), axis(1), axis(2));
    space.marks.push(Mark::Space {
        axis_names: ["PC1", "PC2", "PC3"].map(str::to_string),
        paths: chosen
            .iter()
            .map(|path| Path3 {
                name: path.name.clone(),
                points: path.points.clone(),
            })
            .collect(),
    });
    let mut plane = Panel::new(format!("{basis} basis, two components"), axis(1), axis(2));
    plane.colour_bar = Some("depth".to_string());
    for path in chosen {
        plane.marks.push(Mark::Path {
            name: path.name.clone(),
            series: series.index(&path.name),
            points: path
                .points
                .iter()
                .map(|(at, depth)| Depth2 {
                    at: (at[0], at[1]),
                    depth: *depth,
                })
                .collect(),
        });
    }
    [space, plane]
}

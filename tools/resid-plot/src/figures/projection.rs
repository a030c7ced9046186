//! The path of each group's centre through the first three components, coloured by depth (the first paper's Figure 4).

use super::trajectory::{depths, who};
use crate::figure::{Axis, Depth2, Figure, Mark, Panel, Path3};
use crate::source::{Series, Source, series_name};
use indexmap::IndexSet;
use process::{Error, Result};
use records::Trajectory;

struct Path {
    name: String,
    basis: String,
    points: Vec<([f64; 3], f64)>,
}

pub fn figure(sources: &[Source]) -> Result<Option<Figure>> {
    let mut paths: Vec<Path> = Vec::new();
    for source in sources {
        for row in source.all::<Trajectory>()? {
            let name = series_name(sources, source, who(&row));
            // Every component's trajectory repeats the same centres.
            if paths.iter().any(|path| path.name == name && path.basis == row.basis) {
                continue;
            }
            paths.push(Path {
                points: points(source, &row, &name)?,
                name,
                basis: row.basis,
            });
        }
    }
    let bases: IndexSet<&str> = paths.iter().map(|path| path.basis.as_str()).collect();
    Ok((!paths.is_empty()).then(|| Figure {
        kind: "projection",
        title: "Paths through the first principal components".to_string(),
        caption: "Mean residual of each group after every block, in the first three principal components, coloured by depth from the first \
                  block (dark) to the last (light). Right: the same paths in the first two components. Markers tell the groups apart."
            .to_string(),
        panels: bases.into_iter().flat_map(|basis| panels(&paths, basis)).collect(),
    }))
}

/// The centre after each layer, with its depth.
fn points(source: &Source, row: &Trajectory, name: &str) -> Result<Vec<([f64; 3], f64)>> {
    let refuse = |cause: String| Error::input(&source.path, format!("group \"{name}\": {cause}"));
    let depths = depths(source, row)?;
    if row.center3.len() != depths.len() {
        return Err(refuse(format!(
            "{} layers and {} centres",
            depths.len(),
            row.center3.len()
        )));
    }
    let point = |(centre, depth): (&Vec<f64>, f64)| match centre[..] {
        [x, y, z] => Ok(([x, y, z], depth)),
        _ => Err(refuse(format!(
            "center3 has a point of {} numbers, not 3",
            centre.len()
        ))),
    };
    row.center3.iter().zip(depths).map(point).collect()
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

//! One number of every source against the source's x (`SERIES@X=FILE`): false refusal against the safety share, alignment
//! against γ. Sources of one series and x are repeats (seeds): each is a point, the line joins their means.

use crate::figure::{Axis, Figure, Mark, Panel, Scale, Weight};
use crate::source::{Series, Source, capital, number, plain};
use indexmap::IndexSet;
use process::{Error, Result};

pub fn figure(sources: &[Source], record: &str, field: &str) -> Result<Option<Figure>> {
    let flag = format!("--figure sweep:{record}.{field}");
    let mut points: Vec<(String, f64, f64)> = Vec::new();
    for source in sources {
        let Some(x) = source.name.x else {
            return Err(Error::usage(&flag, format!("{} has no place on the axis", source.path))
                .hint("name every input SERIES@X=FILE"));
        };
        let mut found = Vec::new();
        for row in source.of_type(record) {
            if let Some(y) = number(row, field) {
                found.push(y);
            }
        }
        match found[..] {
            [y] => points.push((source.name.series.clone(), x, y)),
            [] => {
                return Err(Error::input(
                    &source.path,
                    format!("no {record} record has the number {field}"),
                ));
            }
            _ => {
                return Err(Error::input(
                    &source.path,
                    format!(
                        "{} {record} records have the number {field}; a sweep wants one",
                        found.len()
                    ),
                )
                .hint("select the record first, for example with jq"));
            }
        }
    }
    if points.is_empty() {
        return Ok(None);
    }
    let readable = plain(&field.replace(['_', '.'], " "));
    let mut series = Series::default();
    let mut panel = Panel::new(
        "",
        Axis::new("x", ""),
        Axis::new(readable.clone(), "").scaled(Scale::Linear),
    );
    let names: IndexSet<&str> = points.iter().map(|(name, ..)| name.as_str()).collect();
    for name in names {
        let own: Vec<(f64, f64)> = points.iter().filter(|p| p.0 == name).map(|p| (p.1, p.2)).collect();
        let index = series.index(name);
        panel.marks.push(Mark::Line {
            name: String::new(),
            series: index,
            points: means(&own),
            weight: Weight::Plain,
        });
        panel.marks.push(Mark::Points {
            name: name.to_string(),
            series: index,
            points: own,
        });
    }
    Ok(Some(Figure {
        kind: "sweep",
        title: capital(&readable),
        caption: format!(
            "{} of the {record} records; every marker is one run, lines join the means of runs with the same x.",
            plain(field)
        ),
        panels: vec![panel],
    }))
}

fn means(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    sorted
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| (same[0].0, same.iter().map(|p| p.1).sum::<f64>() / same.len() as f64))
        .collect()
}

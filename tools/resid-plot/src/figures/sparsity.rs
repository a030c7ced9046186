//! What a model can do without: the error of matrices, and the model's perplexity, against the share of inputs that are not read.

use crate::figure::{Axis, Figure, Mark, Panel, Scale, Weight};
use crate::figures::quantile;
use crate::source::{Series, Source, series_name};
use indexmap::IndexMap;
use process::Result;
use records::{Ppl, Sparsity};

/// A panel's lines: (share, value) by name.
type Lines = IndexMap<String, Vec<(f64, f64)>>;

/// Shares and errors of the layers, by line and level.
type Levels = IndexMap<(String, String), [Vec<f64>; 2]>;

fn share_axis() -> Axis {
    Axis::new("share of inputs not read", "").within(0.0, 1.0)
}

/// The median over layers, a point for every level.
pub fn errors(sources: &[Source]) -> Result<Option<Figure>> {
    let mut levels: IndexMap<String, Levels> = IndexMap::new();
    for source in sources {
        for row in source.all::<Sparsity>()? {
            let Some(error) = row.rel_error else { continue };
            let name = series_name(sources, source, &row.criterion);
            let level = row.level.map_or_else(String::new, |level| level.to_string());
            let [shares, errors] = levels.entry(row.site).or_default().entry((name, level)).or_default();
            shares.push(row.sparsity);
            errors.push(error);
        }
    }
    let panels = levels.into_iter().map(|(site, levels)| {
        let mut lines = Lines::new();
        for ((name, _), [mut shares, mut errors]) in levels {
            let point = (quantile(&mut shares, 0.5), quantile(&mut errors, 0.5));
            lines.entry(name).or_default().push(point);
        }
        (site, lines)
    });
    let panels = drawn(panels, &Axis::new("relative error of the output", ""));
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "sparsity",
        title: "What matrices lose by what they do not read".to_string(),
        caption: "The relative error of a matrix's output against the share of its inputs that are left out, a line for each criterion and a point \
                  for each level: the median over layers, on the activations of the dense model."
            .to_string(),
        panels,
    }))
}

pub fn perplexity(sources: &[Source]) -> Result<Option<Figure>> {
    let mut by_sites: IndexMap<String, Lines> = IndexMap::new();
    for source in sources {
        for row in source.all::<Ppl>()? {
            let name = series_name(sources, source, &row.criterion);
            let line = by_sites
                .entry(row.sites.join(", "))
                .or_default()
                .entry(name)
                .or_default();
            if line.is_empty() {
                line.push((0.0, row.perplexity_dense));
            }
            line.extend(row.perplexity.map(|perplexity| (row.sparsity, perplexity)));
        }
    }
    let panels = drawn(by_sites, &Axis::new("perplexity", "").scaled(Scale::Log10));
    Ok((!panels.is_empty()).then(|| Figure {
        kind: "perplexity",
        title: "Perplexity by what is not read".to_string(),
        caption: "The model's perplexity against the share of weights that are not read, a line for each criterion; at 0 the dense model. Points lie \
                  close where a bound was searched."
            .to_string(),
        panels,
    }))
}

fn drawn(panels: impl IntoIterator<Item = (String, Lines)>, y: &Axis) -> Vec<Panel> {
    let mut series = Series::default();
    let panel = |(title, lines): (String, Lines)| {
        let mut panel = Panel::new(title, share_axis(), y.clone());
        for (name, mut points) in lines {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points.dedup();
            panel.marks.push(Mark::Line {
                series: series.index(&name),
                name,
                points,
                weight: Weight::Marked,
            });
        }
        panel
    };
    panels.into_iter().map(panel).collect()
}

//! The rows of this tool, filled from a fit.

use crate::cli::Measures;
use crate::fit::{Fit, LayerFit, Part};
use crate::plan::Plan;
use crate::source::Source;
use crate::spread::{Spread, Spreads};
use numerics::measures;
use process::{significant, word};
use records::{Compare, Contrast, Geometry, Layer, Stability, StabilityProfile, Stack, Trajectory};
use serde::Serialize;
use std::collections::BTreeMap;

/// The k of C_k.
pub const CONCENTRATION_COUNTS: [usize; 5] = [1, 2, 3, 4, 8];
const EIGENVALUE_COUNT: usize = 8;

/// Facts about the input, in the `end` record.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    pub input_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_row_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_dims: Option<Vec<usize>>,
}

/// Everything there is to say, in the order it is written.
#[derive(Debug, Default)]
pub struct Report {
    pub layers: Vec<Layer>,
    pub stacks: Vec<Stack>,
    pub contrasts: Vec<Contrast>,
    pub trajectories: Vec<Trajectory>,
    pub compares: Vec<Compare>,
    pub stabilities: Vec<Stability>,
    pub profile: Option<StabilityProfile>,
}

impl Report {
    pub fn geometry(plan: &Plan, source: &Source, fit: &Fit, spreads: &Spreads, component_id: Option<usize>) -> Self {
        let mut report = Self::default();
        for (layer, spread) in fit.layers.iter().zip(&spreads.layers) {
            for (group, part, spread) in parts(source, &layer.all, &layer.groups, spread.all, &spread.groups) {
                report.layers.push(Layer {
                    layer_index: layer.index as usize,
                    depth: source.depth(Some(layer.index)),
                    geometry: geometry(plan, source, fit, group, part, spread),
                    rest: Default::default(),
                });
            }
            report.contrasts.extend(contrast(source, layer, spread.silhouette));
        }
        let stack = &fit.stack;
        for (at, (group, part, spread)) in parts(
            source,
            &stack.all,
            &stack.groups,
            spreads.stack.all,
            &spreads.stack.groups,
        )
        .enumerate()
        {
            let growth = norm_growth(fit, at.checked_sub(1));
            report.stacks.push(Stack {
                depth: source.depth(None),
                geometry: geometry(plan, source, fit, group, part, spread),
                norm_growth_a: growth.map(|(a, _)| a),
                norm_growth_b: growth.map(|(_, b)| b),
                component_id: if at == 0 { component_id } else { None },
            });
        }
        report
    }

    /// What in the numbers asks for another look, and what to do about it.
    pub fn doubts(&self) -> Vec<String> {
        let layers = || self.layers.iter().filter(|row| row.geometry.group.is_empty());
        let below_one = layers().map(|row| (format!("layer {}", row.layer_index), &row.geometry));
        let below_one = below_one.chain(
            self.stacks
                .iter()
                .take(1)
                .map(|row| ("all layers".to_owned(), &row.geometry)),
        );
        let mut doubts: Vec<String> = below_one.filter_map(|(place, row)| near_copies(&place, row)).collect();
        let mut layers_of: BTreeMap<usize, usize> = BTreeMap::new();
        for dim in layers().flat_map(|row| row.geometry.massive_dims.iter().flatten()) {
            *layers_of.entry(*dim).or_default() += 1;
        }
        doubts.extend(layers_of.iter().map(|(dim, count)| {
            format!(
                "dimension {dim} is massive in {count} of {} layers (root mean square above {} times the median's): \
                 --drop-dims auto leaves such dimensions out, --drop-bos the first rows that they are often due to",
                layers().count(),
                measures::MASSIVE_RATIO
            )
        }));
        doubts
    }

    pub fn write(&self, writer: &mut records::Writer<impl std::io::Write>) -> records::Result<()> {
        self.layers.iter().try_for_each(|row| writer.row(row))?;
        self.stacks.iter().try_for_each(|row| writer.row(row))?;
        self.contrasts.iter().try_for_each(|row| writer.row(row))?;
        self.trajectories.iter().try_for_each(|row| writer.row(row))?;
        self.compares.iter().try_for_each(|row| writer.row(row))?;
        self.stabilities.iter().try_for_each(|row| writer.row(row))?;
        self.profile.iter().try_for_each(|row| writer.row(row))
    }
}

/// Everything under the group "", then each group.
fn parts<'a>(
    source: &'a Source,
    all: &'a Part,
    groups: &'a [Part],
    spread: Spread,
    group_spreads: &'a [Spread],
) -> impl Iterator<Item = (&'a str, &'a Part, Spread)> {
    let named = source.groups.iter().map(String::as_str).zip(groups).zip(group_spreads);
    std::iter::once(("", all, spread)).chain(named.map(|((name, part), spread)| (name, part, *spread)))
}

fn geometry(plan: &Plan, source: &Source, fit: &Fit, group: &str, part: &Part, spread: Spread) -> Geometry {
    let (spectrum, summary) = (&part.spectrum, &part.summary);
    let values = &spectrum.values;
    let whole = |measure: fn(&[f64]) -> Option<f64>| if spectrum.complete { measure(values) } else { None };
    let participation_ratio = whole(measures::participation_ratio);
    let c_k = CONCENTRATION_COUNTS
        .into_iter()
        .filter(|k| spectrum.complete || *k <= values.len())
        .filter_map(|k| Some((k.to_string(), measures::concentration(values, spectrum.total, k)?)))
        .collect();
    let leading: Vec<f64> = values.iter().take(EIGENVALUE_COUNT).copied().collect();
    Geometry {
        site: source.site.clone(),
        group: group.to_owned(),
        layout: word(plan.layout),
        center: word(plan.center),
        row_count: summary.count,
        evr: measures::explained_ratio(&leading, spectrum.total),
        c_k,
        participation_ratio,
        effective_rank: whole(measures::effective_rank),
        stable_rank: values
            .first()
            .and_then(|largest| measures::stable_rank(*largest, spectrum.total)),
        alpha_req: whole(measures::alpha_req),
        k90: if spectrum.complete {
            measures::components_for_share(values, 0.9)
        } else {
            None
        },
        iso_score: participation_ratio.and_then(|ratio| measures::iso_score(ratio, spectrum.width)),
        matrix_entropy: whole(measures::matrix_entropy),
        norm_mean: summary.norm_mean,
        dispersion: spread.dispersion,
        anisotropy: summary.anisotropy,
        id_twonn: spread.id_twonn,
        id_mle: spread.id_mle,
        massive_dims: (!summary.root_mean_squares.is_empty()).then(|| {
            let found = measures::massive_dimensions(&summary.root_mean_squares);
            // Numbered as in the input, also where dimensions were dropped.
            found
                .into_iter()
                .map(|dim| fit.columns.as_ref().map_or(dim, |columns| columns[dim]))
                .collect()
        }),
        eigenvalues: leading,
    }
}

fn near_copies(place: &str, row: &Geometry) -> Option<String> {
    let id = row.id_twonn.filter(|id| *id < 1.0)?;
    let mle = row
        .id_mle
        .map(|mle| format!(" (MLE {})", significant(mle)))
        .unwrap_or_default();
    Some(format!(
        "{place}: TwoNN is {}{mle}, below one dimension: many rows are near copies of others, as the same last tokens are in early \
         layers; leave those out with --layers, or rest nothing on it",
        significant(id)
    ))
}

fn contrast(source: &Source, layer: &LayerFit, silhouette: Option<f64>) -> Option<Contrast> {
    let contrast = layer.contrast.as_ref()?;
    let (a, b) = (&layer.groups[contrast.a], &layer.groups[contrast.b]);
    let (a_count, b_count) = (a.summary.count as f64, b.summary.count as f64);
    let distance = numerics::classes::centroid_distance(&a.summary.mean, &b.summary.mean);
    let within = a.spectrum.total * a_count + b.spectrum.total * b_count;
    let fisher_ratio = numerics::classes::fisher_ratio(distance, a_count, b_count, within);
    let along = contrast.along.as_ref();
    Some(Contrast {
        layer_index: layer.index as usize,
        depth: source.depth(Some(layer.index)),
        group_a: source.groups[contrast.a].clone(),
        group_b: source.groups[contrast.b].clone(),
        fisher_ratio,
        centroid_distance: distance,
        silhouette,
        projection_a: along.map(|along| along.projection_a),
        projection_b: along.map(|along| along.projection_b),
        separation: along
            .filter(|along| along.deviation > 0.0)
            .map(|along| (along.projection_a - along.projection_b) / along.deviation),
    })
}

/// Norm ≈ a·b^l over the layers, of everything or of one group.
fn norm_growth(fit: &Fit, group: Option<usize>) -> Option<(f64, f64)> {
    let mut indices = Vec::new();
    let mut norms = Vec::new();
    for layer in &fit.layers {
        let part = group.map_or(&layer.all, |group| &layer.groups[group]);
        indices.push(f64::from(layer.index));
        norms.push(part.summary.norm_mean?);
    }
    measures::norm_growth(&indices, &norms)
}

/// The component whose number is the intrinsic dimension, rounded up.
pub fn component_id(plan: &Plan, spreads: &Spreads) -> Option<usize> {
    if plan.measures == Measures::Moments {
        return None;
    }
    spreads
        .stack
        .all
        .id_twonn
        .filter(|id| id.is_finite() && *id < 1e6)
        .map(|id| (id.ceil() as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn near_copies_and_massive_dimensions_are_pointed_out() {
        let layer = |index: usize, twonn: f64, massive: &[usize]| -> Layer {
            let row = json!({"type": "layer", "layer_index": index, "site": "resid_post", "group": "", "layout": "stacked", "center": "global",
                "row_count": 4, "c_k": {}, "eigenvalues": [], "id_twonn": twonn, "id_mle": 4.2, "massive_dims": massive});
            serde_json::from_value(row).unwrap()
        };
        let report = Report {
            layers: vec![layer(0, 0.86, &[]), layer(1, 3.0, &[507]), layer(2, 3.5, &[507])],
            ..Report::default()
        };
        let doubts = report.doubts();
        assert_eq!(doubts.len(), 2, "{doubts:?}");
        assert!(
            doubts[0].starts_with("layer 0: TwoNN is 0.86") && doubts[0].contains("--layers"),
            "{}",
            doubts[0]
        );
        assert!(
            doubts[1].starts_with("dimension 507 is massive in 2 of 3 layers")
                && doubts[1].contains("--drop-dims auto"),
            "{}",
            doubts[1]
        );
        let quiet = Report {
            layers: vec![layer(0, 3.0, &[])],
            ..Report::default()
        };
        assert!(quiet.doubts().is_empty());
    }
}

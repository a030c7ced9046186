//! `cluster`: what is to be forgotten falls into clusters, and each is led away from, where a row lies near it (GUARD-IT).

use numerics::clusters;
use process::{Error, Result};
use serde_json::json;
use steering::{Gate, GateKind, Op, Operation, Plan};

use super::mean::source;
use crate::cli::{Away, ClusterArgs};
use crate::dump::{Groups, Place, Rows};
use crate::product::Found;
use crate::report::Clustering;
use crate::vectors::{dot, mean, mean_norm, unit, without};

pub fn run(flags: &ClusterArgs, groups: &Groups) -> Result<Found> {
    let mut found = Found::default();
    let mut operations = Vec::new();
    for &place in &groups.places {
        let [forget, retain] = groups.rows(place, flags.position)?;
        let labels = divided(flags, place, &forget, &mut found)?;
        for label in 0..=labels.iter().copied().max().unwrap_or(0) {
            let members = forget.iter().zip(&labels).filter(|(_, of)| **of == label);
            let members: Rows = members.map(|(row, _)| row.clone()).collect();
            operations.push(leading_away(flags, place, &members, &retain)?);
        }
    }
    found.plan = Some(Plan {
        made: groups.made.clone(),
        operations,
    });
    Ok(found)
}

/// The cluster of every row; one cluster where there are too few rows to divide.
fn divided(flags: &ClusterArgs, place: Place, rows: &Rows, found: &mut Found) -> Result<Vec<usize>> {
    let most = (flags.clusters_max as usize).min(rows.len().saturating_sub(1));
    let tried: Vec<_> = (2..=most)
        .map(|count| {
            let labels = clusters::divide(rows, count, flags.seed);
            let silhouette = clusters::silhouette(rows, &labels);
            (labels, silhouette.unwrap_or(f64::NEG_INFINITY))
        })
        .collect();
    let best = (0..tried.len()).reduce(|best, at| if tried[at].1 > tried[best].1 { at } else { best });
    for (at, (labels, silhouette)) in tried.iter().enumerate().filter(|(_, (_, score))| score.is_finite()) {
        let count = labels.iter().max().map_or(0, |label| label + 1);
        found.row(&Clustering {
            site: place.site.to_string(),
            layer_index: place.layer,
            cluster_count: count,
            silhouette: *silhouette,
            sizes: (0..count)
                .map(|label| labels.iter().filter(|&&of| of == label).count())
                .collect(),
            chosen: Some(at) == best,
        })?;
    }
    Ok(best.map_or_else(|| vec![0; rows.len()], |best| tried[best].0.clone()))
}

fn leading_away(flags: &ClusterArgs, place: Place, forget: &Rows, retain: &Rows) -> Result<Operation> {
    let (centre, other) = (mean(forget), mean(retain));
    let share = match flags.vector {
        Away::Orthogonal => dot(&centre, &other) / (dot(&other, &other) + 1e-6),
        Away::Difference => 1.0,
    };
    let direction = unit(&without(&centre, share, &other));
    let direction =
        direction.ok_or_else(|| Error::input(place, "a cluster has the mean of the others, so no vector"))?;
    let length = (mean_norm(forget) + mean_norm(retain)) / 2.0;
    let vector = direction.iter().map(|x| x * length).collect();
    let mut operation = Operation::new(Op::Redirect, place.site, vec![place.layer], vec![vector]);
    operation.coefficient = flags.alpha;
    operation.gate = Some(Gate {
        kind: GateKind::Cosine,
        at_least: flags.gate,
        direction: centre,
    });
    operation.source = source("cluster", place, flags.position, length);
    operation.source.insert("row_count".into(), json!(forget.len()));
    Ok(operation)
}

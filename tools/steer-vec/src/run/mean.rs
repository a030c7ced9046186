//! `mean`: the difference of the groups' means.

use process::{Error, Result};
use serde_json::json;
use steering::{Op, Operation, Plan};

use crate::candidate::{self, Vector};
use crate::cli::MeanArgs;
use crate::dump::{Groups, Place};
use crate::product::Found;
use crate::vectors::{difference, mean, norm};

pub fn run(flags: &MeanArgs, groups: &Groups) -> Result<Found> {
    let mut found = Found::default();
    let mut operations = Vec::new();
    for &place in &groups.places {
        for (at, &position) in flags.positions.iter().enumerate() {
            let [positive, negative] = groups.rows(place, position)?;
            let values = difference(&mean(&positive), &mean(&negative));
            let vector = Vector {
                layer: place.layer,
                position,
                values,
            };
            let mut row = candidate::row("mean", place.site, &vector, groups.made.layer_count);
            row.chosen = at == 0;
            found.row(&row)?;
            if row.chosen {
                operations.push(adding("mean", place, position, vector.values)?);
            }
        }
    }
    found.plan = Some(Plan {
        made: groups.made.clone(),
        operations,
    });
    Ok(found)
}

/// Adds a vector where it was found.
pub fn adding(method: &str, place: Place, position: i64, vector: Vec<f64>) -> Result<Operation> {
    let length = norm(&vector);
    if length == 0.0 {
        return Err(Error::input(place, "the two groups have the same mean, so no vector"));
    }
    let mut operation = Operation::new(Op::Add, place.site, vec![place.layer], vec![vector]);
    operation.source = source(method, place, position, length);
    Ok(operation)
}

/// How a vector came about.
pub fn source(method: &str, place: Place, position: i64, norm: f64) -> serde_json::Map<String, serde_json::Value> {
    let text = json!({
        "method": method, "site": place.site.to_string(), "layer_index": place.layer, "position": position, "norm": norm,
    });
    text.as_object().cloned().unwrap_or_default()
}

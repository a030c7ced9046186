//! `function`: the mean effect of demonstrations, over pairs of prompts with and without (Todd et al. 2024).

use process::Result;
use steering::Plan;

use super::mean::adding;
use crate::candidate::{self, Vector};
use crate::cli::FunctionArgs;
use crate::dump::Groups;
use crate::product::Found;
use crate::vectors::{mean, without};

pub fn run(flags: &FunctionArgs, groups: &Groups) -> Result<Found> {
    let mut found = Found::default();
    let mut operations = Vec::new();
    for &place in &groups.places {
        let [with, without_them] = groups.pairs(place, flags.position)?;
        let pairs = with.iter().zip(&without_them);
        let effects: Vec<Vec<f64>> = pairs.map(|(with, bare)| without(with, 1.0, bare)).collect();
        let vector = Vector {
            layer: place.layer,
            position: flags.position,
            values: mean(&effects),
        };
        let mut row = candidate::row("function", place.site, &vector, groups.made.layer_count);
        row.chosen = true;
        found.row(&row)?;
        operations.push(adding("function", place, flags.position, vector.values)?);
    }
    found.plan = Some(Plan {
        made: groups.made.clone(),
        operations,
    });
    Ok(found)
}

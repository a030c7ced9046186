//! `plane`: two vectors to rotate in, and the layers in which the groups lie on opposite sides of the first.

use std::collections::BTreeSet;

use process::{Error, Result};
use serde_json::json;
use steering::{Mode, Op, Operation, Plan};

use crate::cli::{PlaneArgs, Turn};
use crate::dump::{Groups, Place, Rows};
use crate::product::Found;
use crate::report::PlaneLayer;
use crate::vectors::{difference, dot, mean, unit, without};

pub fn run(flags: &PlaneArgs, groups: &Groups) -> Result<Found> {
    let rows = groups.places.iter().map(|&place| groups.rows(place, flags.position));
    let rows: Vec<[Rows; 2]> = rows.collect::<Result<_>>()?;
    let candidates = groups
        .places
        .iter()
        .zip(&rows)
        .map(|(place, rows)| direction(*place, rows));
    let candidates: Vec<Vec<f64>> = candidates.collect::<Result<_>>()?;
    let width = candidates[0].len();
    if candidates.iter().any(|candidate| candidate.len() != width) {
        return Err(Error::usage(
            "--site",
            "the sites of the dumps differ in width: name one",
        ));
    }
    let [first, second] = plane(&candidates)?;
    let mut found = Found::default();
    let sides: Vec<[f64; 2]> = rows.iter().map(|rows| sides(rows, &first)).collect();
    let chosen = opposite(&groups.places, &sides);
    for ((place, candidate), [positive, negative]) in groups.places.iter().zip(&candidates).zip(&sides) {
        found.row(&PlaneLayer {
            site: place.site.to_string(),
            layer_index: place.layer,
            projection_positive: *positive,
            projection_negative: *negative,
            cosine: dot(candidate, &first),
            chosen: chosen.contains(&place.layer),
        })?;
    }
    if !chosen.is_empty() {
        found.plan = Some(rotation(flags, groups, chosen, [first, second]));
    }
    Ok(found)
}

fn direction(place: Place, [positive, negative]: &[Rows; 2]) -> Result<Vec<f64>> {
    let difference = difference(&mean(positive), &mean(negative));
    unit(&difference).ok_or_else(|| Error::input(place, "the two groups have the same mean, so no direction"))
}

/// The candidate that agrees best with all others, and how the candidates vary across it.
fn plane(candidates: &[Vec<f64>]) -> Result<[Vec<f64>; 2]> {
    let agreement = |one: &Vec<f64>| candidates.iter().map(|other| dot(one, other)).sum::<f64>();
    let scores: Vec<f64> = candidates.iter().map(agreement).collect();
    let best = (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best });
    let first = candidates[best.unwrap_or(0)].clone();
    let across: Vec<Vec<f64>> = candidates
        .iter()
        .map(|one| without(one, dot(one, &first), &first))
        .collect();
    let component = numerics::leading::principal(&across);
    let second = component.and_then(|second| unit(&without(&second, dot(&second, &first), &first)));
    let second =
        second.ok_or_else(|| Error::input("plane", "the layers' directions are all the same: there is no second"))?;
    Ok([first, second])
}

/// The mean projections of each group's unit rows.
fn sides(rows: &[Rows; 2], first: &[f64]) -> [f64; 2] {
    let mean_projection = |rows: &Rows| {
        let along: f64 = rows.iter().filter_map(|row| Some(dot(&unit(row)?, first))).sum();
        along / rows.len() as f64
    };
    [mean_projection(&rows[0]), mean_projection(&rows[1])]
}

/// Layers whose groups lie on opposite sides at every site.
fn opposite(places: &[Place], sides: &[[f64; 2]]) -> BTreeSet<usize> {
    let all: BTreeSet<usize> = places.iter().map(|place| place.layer).collect();
    let of = |layer: usize| places.iter().zip(sides).filter(move |(place, _)| place.layer == layer);
    all.into_iter()
        .filter(|&layer| of(layer).all(|(_, [positive, negative])| positive * negative < 0.0))
        .collect()
}

fn rotation(flags: &PlaneArgs, groups: &Groups, chosen: BTreeSet<usize>, plane: [Vec<f64>; 2]) -> Plan {
    let mut sites: Vec<_> = groups.places.iter().map(|place| place.site).collect();
    sites.dedup();
    let mode = match flags.mode {
        Turn::Absolute => Mode::Absolute,
        Turn::Positive => Mode::Positive,
        Turn::Relative => Mode::Relative,
    };
    let operation = |site| {
        let mut operation = Operation::new(Op::Rotate, site, chosen.iter().copied().collect(), plane.to_vec());
        operation.angle = Some(flags.angle);
        operation.mode = Some(mode);
        operation.source.insert("method".into(), json!("plane"));
        operation.source.insert("position".into(), json!(flags.position));
        operation
    };
    Plan {
        made: groups.made.clone(),
        operations: sites.into_iter().map(operation).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Site;

    #[test]
    fn the_first_vector_is_the_most_agreed_on_and_the_second_lies_across_it() {
        let direction = |degrees: f64| vec![degrees.to_radians().cos(), degrees.to_radians().sin(), 0.0];
        let [first, second] = plane(&[direction(0.0), direction(40.0), direction(50.0)]).unwrap();
        assert_eq!(first, direction(40.0));
        assert!(dot(&first, &second).abs() < 1e-12 && (dot(&second, &second) - 1.0).abs() < 1e-12);
        assert!(second[2].abs() < 1e-12);
        assert!(plane(&[direction(0.0), direction(0.0)]).is_err());
    }

    #[test]
    fn a_layer_is_chosen_where_the_groups_part_at_every_site() {
        let place = |site, layer| Place { site, layer };
        let places = [
            place(Site::ResidPre, 0),
            place(Site::ResidMid, 0),
            place(Site::ResidPre, 1),
            place(Site::ResidMid, 1),
        ];
        let sides = [[0.1, -0.1], [0.1, 0.2], [0.1, -0.1], [-0.2, 0.3]];
        assert_eq!(opposite(&places, &sides), BTreeSet::from([1]));
    }
}

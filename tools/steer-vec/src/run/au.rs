//! `au`: single dimensions whose differences in pairs have one sign (AUSteer).

use process::Result;
use serde_json::json;
use steering::{Op, Operation, Plan};

use crate::cli::AuArgs;
use crate::dump::{Groups, Place, Rows};
use crate::product::Found;
use crate::report::Dimension;

pub fn run(flags: &AuArgs, groups: &Groups) -> Result<Found> {
    let mut all = Vec::new();
    for &place in &groups.places {
        let [positive, negative] = groups.pairs(place, flags.position)?;
        let betas = betas(&positive, &negative);
        all.extend(betas.into_iter().enumerate().map(|(dim, beta)| (place, dim, beta)));
    }
    // stable: of equal scores the earlier place and dimension comes first
    all.sort_by(|(_, _, a), (_, _, b)| b.abs().total_cmp(&a.abs()));
    all.truncate(flags.dimensions as usize);
    all.retain(|(_, _, beta)| *beta != 0.0);
    let mut found = Found::default();
    for (place, dim, beta) in &all {
        found.row(&Dimension {
            site: place.site.to_string(),
            layer_index: place.layer,
            dim: *dim,
            score: beta.abs(),
            beta: *beta,
            chosen: true,
        })?;
    }
    let operation = |place: &Place, width: usize| {
        let mut factors = vec![0.0; width];
        let own = all.iter().filter(|(of, _, _)| of == place);
        own.for_each(|(_, dim, beta)| factors[*dim] = *beta);
        factors.iter().any(|x| *x != 0.0).then(|| {
            let mut operation = Operation::new(Op::Scale, place.site, vec![place.layer], vec![factors]);
            operation.coefficient = flags.alpha;
            operation.source.insert("method".into(), json!("au"));
            operation.source.insert("position".into(), json!(flags.position));
            operation
        })
    };
    let mut operations = Vec::new();
    for place in &groups.places {
        operations.extend(operation(place, groups.width(*place)?));
    }
    found.plan = (!operations.is_empty()).then(|| Plan {
        made: groups.made.clone(),
        operations,
    });
    Ok(found)
}

/// Of every dimension the share of pairs whose difference is positive, or minus the share of those where it is negative, if that is no
/// smaller.
fn betas(positive: &Rows, negative: &Rows) -> Vec<f64> {
    let width = positive.first().map_or(0, Vec::len);
    let (mut above, mut below) = (vec![0usize; width], vec![0usize; width]);
    for (positive, negative) in positive.iter().zip(negative) {
        for (dim, (x, y)) in positive.iter().zip(negative).enumerate() {
            above[dim] += usize::from(x > y);
            below[dim] += usize::from(x < y);
        }
    }
    let count = positive.len() as f64;
    let shares = above.into_iter().zip(below);
    shares
        .map(|(above, below)| {
            if above > below {
                above as f64 / count
            } else {
                -(below as f64) / count
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_are_those_of_numpy() {
        let rows = |a: f64| -> Rows {
            let at = |i: usize, j: usize| (a * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64).sin();
            (0..20).map(|i| (0..16).map(|j| at(i, j)).collect()).collect()
        };
        let betas = betas(&rows(0.41), &rows(0.83));
        let mut order: Vec<usize> = (0..16).collect();
        order.sort_by(|&a, &b| betas[b].abs().total_cmp(&betas[a].abs()));
        let first: Vec<(usize, f64)> = order.into_iter().take(4).map(|dim| (dim, betas[dim])).collect();
        assert_eq!(first, [(14, -1.0), (4, -0.65), (9, -0.65), (2, -0.6)]);
    }
}

//! Geometry of two groups of rows: how far apart their centres lie, and how much that is beside their spread.

use crate::moments::norm;
use ndarray::ArrayView2;
use products::{Product, matrix, strided_mut};
use rayon::prelude::*;
use std::ops::Range;

/// tr S_b / tr S_w of two groups, from the distance of their centres and the trace of their pooled scatter Σ‖x − mean‖²; `None` when
/// a group is empty or neither spreads.
pub fn fisher_ratio(centroid_distance: f64, a_count: f64, b_count: f64, within: f64) -> Option<f64> {
    let defined = a_count > 0.0 && b_count > 0.0 && within > 0.0;
    defined.then(|| a_count * b_count / (a_count + b_count) * centroid_distance * centroid_distance / within)
}

/// ‖mean_a − mean_b‖.
pub fn centroid_distance(a: &[f64], b: &[f64]) -> f64 {
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference)
}

/// Queries and candidates of one product.
const TILE: usize = 256;

/// Mean silhouette (Rousseeuw 1987, Euclidean distance) of the rows of two groups: (outside − inside) / max of the two mean distances,
/// zero for a row alone in its group. `None` unless both groups have rows.
///
/// Rows are centred by the caller if their mean is large beside their spread.
pub fn silhouette(rows: ArrayView2<'_, f64>, in_first: &[bool]) -> Option<f64> {
    let (row_count, width) = rows.dim();
    let rows = rows.as_slice().expect("row-major");
    assert_eq!(row_count, in_first.len(), "one label per row");
    let first_count = in_first.iter().filter(|&&first| first).count();
    if first_count == 0 || first_count == row_count {
        return None;
    }
    let squares: Vec<f64> = rows.par_chunks(width).map(|row| norm(row) * norm(row)).collect();
    let scores: Vec<f64> = (0..row_count.div_ceil(TILE))
        .into_par_iter()
        .flat_map_iter(|tile| {
            let queries = tile * TILE..((tile + 1) * TILE).min(row_count);
            let mut to_first = vec![0.0; queries.len()];
            let mut to_second = vec![0.0; queries.len()];
            let mut product = vec![0.0; queries.len() * TILE];
            for start in (0..row_count).step_by(TILE) {
                let candidates = start..(start + TILE).min(row_count);
                let part = |at: &Range<usize>| matrix(&rows[at.start * width..], at.len(), width);
                let place = strided_mut(&mut product, queries.len(), candidates.len(), TILE);
                Product::of(part(&queries), part(&candidates).reversed_axes()).fill(place);
                for (at, query) in queries.clone().enumerate() {
                    for (column, candidate) in candidates.clone().enumerate() {
                        if candidate == query {
                            continue;
                        }
                        let square = squares[query] + squares[candidate] - 2.0 * product[at * TILE + column];
                        let distance = square.max(0.0).sqrt();
                        if in_first[candidate] {
                            to_first[at] += distance;
                        } else {
                            to_second[at] += distance;
                        }
                    }
                }
            }
            queries
                .enumerate()
                .map(move |(at, query)| {
                    let (inside_sum, inside_count, outside) = if in_first[query] {
                        (
                            to_first[at],
                            first_count - 1,
                            to_second[at] / (row_count - first_count) as f64,
                        )
                    } else {
                        (
                            to_second[at],
                            row_count - first_count - 1,
                            to_first[at] / first_count as f64,
                        )
                    };
                    if inside_count == 0 {
                        return 0.0;
                    }
                    let inside = inside_sum / inside_count as f64;
                    let larger = inside.max(outside);
                    if larger > 0.0 { (outside - inside) / larger } else { 0.0 }
                })
                .collect::<Vec<_>>()
        })
        .collect();
    crate::statistics::mean(&scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fisher_ratio_is_between_over_within() {
        // {0, 2} and {10, 12}: S_b = 2·2/4·10² = 100, S_w = 2 + 2.
        assert_eq!(centroid_distance(&[1.0, 5.0], &[11.0, 5.0]), 10.0);
        assert_eq!(fisher_ratio(10.0, 2.0, 2.0, 4.0), Some(25.0));
        assert_eq!(fisher_ratio(10.0, 2.0, 0.0, 4.0), None);
    }

    #[test]
    fn silhouette_agrees_with_the_definition_worked_by_hand() {
        let rows = [0.0, 2.0, 10.0, 12.0];
        let labels = [true, true, false, false];
        // Row 0: inside 2, outside 11 -> 9/11; row 1: inside 2, outside 9 -> 7/9; and the same mirrored.
        let expected = (9.0 / 11.0 + 7.0 / 9.0) / 2.0;
        assert!((silhouette(matrix(&rows, 4, 1), &labels).unwrap() - expected).abs() < 1e-12);
        assert_eq!(silhouette(matrix(&rows, 4, 1), &[true; 4]), None);
    }
}

//! Intrinsic dimension from nearest-neighbour distances.

use crate::neighbours::Neighbours;

/// Share of the largest ratios that TwoNN sets aside.
const DISCARDED_SHARE: f64 = 0.1;

/// TwoNN (Facco et al. 2017), as scikit-dimension computes it: μ = r₂/r₁ per row, the largest tenth set aside, slope through the
/// origin of −ln(1 − i/N), i from 1, on ln μ. Rows with a duplicate (r₁ = 0) are left out. `None` when too little is left to fit.
pub fn two_nn(neighbours: &Neighbours) -> Option<f64> {
    let mut log_ratios: Vec<f64> = neighbours
        .rows()
        .filter_map(|row| match row {
            [first, second, ..] if *first > 0.0 => Some(libm::log(second / first)),
            _ => None,
        })
        .collect();
    log_ratios.sort_unstable_by(f64::total_cmp);
    let row_count = log_ratios.len() as f64;
    let kept = (row_count * (1.0 - DISCARDED_SHARE)) as usize;
    if kept < 2 {
        return None;
    }
    let (mut product, mut square) = (0.0, 0.0);
    for (index, log_ratio) in log_ratios[..kept].iter().enumerate() {
        product -= log_ratio * libm::log(1.0 - (index + 1) as f64 / row_count);
        square += log_ratio * log_ratio;
    }
    (square > 0.0).then(|| product / square)
}

/// Levina and Bickel's estimate over all neighbours given, with the inverses averaged over rows (MacKay and Ghahramani 2005), which
/// removes most of its bias. Rows with a duplicate are left out. `None` when nothing is left.
pub fn levina_bickel(neighbours: &Neighbours) -> Option<f64> {
    let inverses: Vec<f64> = neighbours
        .rows()
        .filter(|row| row.len() >= 2 && row[0] > 0.0)
        .map(|row| {
            let farthest = row[row.len() - 1];
            let nearer = &row[..row.len() - 1];
            nearer
                .iter()
                .map(|distance| libm::log(farthest / distance))
                .sum::<f64>()
                / nearer.len() as f64
        })
        .collect();
    let mean = crate::statistics::mean(&inverses)?;
    (mean > 0.0).then(|| 1.0 / mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::nearest;
    use crate::rng::Rng;
    use products::matrix;

    /// Uniform points of a cube of dimension `dimension`, laid into `width` dimensions by a fixed linear map.
    fn cube(dimension: usize, width: usize, row_count: usize) -> Vec<f32> {
        let rng = Rng::new(11, "cube");
        let map = |i: usize, j: usize| rng.normal(1_000_000 + i as u64, j as u64);
        let mut rows = Vec::new();
        for row in 0..row_count {
            let point: Vec<f64> = (0..dimension).map(|i| rng.uniform(row as u64, i as u64)).collect();
            rows.extend((0..width).map(|j| {
                if dimension == width {
                    point[j] as f32
                } else {
                    point.iter().enumerate().map(|(i, x)| x * map(i, j)).sum::<f64>() as f32
                }
            }));
        }
        rows
    }

    #[test]
    fn uniform_cubes_have_their_dimension() {
        for (dimension, tolerance) in [(2, 0.12), (3, 0.2), (5, 0.45)] {
            let rows = cube(dimension, dimension, 3000);
            let neighbours = nearest(matrix(&rows, rows.len() / dimension, dimension), 20).unwrap();
            let two_nn = two_nn(&neighbours).unwrap();
            let mle = levina_bickel(&neighbours).unwrap();
            assert!(
                (two_nn - dimension as f64).abs() < tolerance,
                "TwoNN {two_nn} for {dimension}"
            );
            assert!(
                (mle - dimension as f64).abs() < 1.5 * tolerance,
                "MLE {mle} for {dimension}"
            );
        }
    }

    #[test]
    fn a_flat_embedding_changes_nothing_much() {
        let neighbours = nearest(matrix(&cube(3, 40, 2000), 2000, 40), 2).unwrap();
        assert!((two_nn(&neighbours).unwrap() - 3.0).abs() < 0.3);
    }

    #[test]
    fn two_nn_agrees_with_scikit_dimension() {
        // Rows (i·√2 mod 1, i·√3 mod 1, i·√5 mod 1) for i < 40, as f32; skdim.id.TwoNN().fit(rows).dimension_
        let rows: Vec<f32> = (0..40)
            .flat_map(|i| [2.0_f64, 3.0, 5.0].map(|n| (f64::from(i) * n.sqrt()).fract() as f32))
            .collect();
        let found = two_nn(&nearest(matrix(&rows, rows.len() / 3, 3), 2).unwrap()).unwrap();
        assert!((found - 3.3409175715662727).abs() < 1e-6, "{found}");
    }

    #[test]
    fn duplicates_alone_have_no_dimension() {
        let neighbours = nearest(matrix(&[1.0; 20], 10, 2), 2).unwrap();
        assert_eq!(two_nn(&neighbours), None);
        assert_eq!(levina_bickel(&neighbours), None);
    }
}

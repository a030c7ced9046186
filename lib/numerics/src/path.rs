//! The path that a group's centre takes through the layers: how smooth it is, how sharply it turns.

use ndarray::ArrayView2;

/// Σ_l ‖c_{l+1} − 2c_l + c_{l−1}‖² / Σ_l ‖c_{l+1} − c_l‖² over the layer centres (one a row): 0 for a straight
/// path at even pace. `None` for fewer than three centres or a path that does not move.
pub fn smoothness_ratio(centres: ArrayView2<'_, f64>) -> Option<f64> {
    let steps = steps(centres);
    let moved: f64 = steps.iter().map(|step| dot(step, step)).sum();
    let bent: f64 = steps
        .windows(2)
        .map(|pair| {
            pair[0]
                .iter()
                .zip(&pair[1])
                .map(|(before, after)| (after - before) * (after - before))
                .sum::<f64>()
        })
        .sum();
    (steps.len() >= 2 && moved > 0.0).then(|| bent / moved)
}

/// Mean angle, in radians, between successive steps Δ_l and Δ_{l+1}; pairs with a step of zero length have none. `None` if no pair has.
pub fn turning_angle(centres: ArrayView2<'_, f64>) -> Option<f64> {
    let steps = steps(centres);
    let angles: Vec<f64> = steps
        .windows(2)
        .filter_map(|pair| {
            let lengths = dot(&pair[0], &pair[0]).sqrt() * dot(&pair[1], &pair[1]).sqrt();
            (lengths > 0.0).then(|| libm::acos((dot(&pair[0], &pair[1]) / lengths).clamp(-1.0, 1.0)))
        })
        .collect();
    crate::statistics::mean(&angles)
}

fn steps(centres: ArrayView2<'_, f64>) -> Vec<Vec<f64>> {
    let pairs = centres.rows().into_iter().zip(centres.rows().into_iter().skip(1));
    pairs
        .map(|(before, after)| before.iter().zip(after).map(|(from, to)| to - from).collect())
        .collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, arr2, aview2};

    #[test]
    fn a_straight_even_path_is_perfectly_smooth() {
        let line = Array2::from_shape_fn((5, 2), |(l, j)| (l * (j + 1)) as f64);
        assert!(smoothness_ratio(line.view()).unwrap() < 1e-15);
        assert!(turning_angle(line.view()).unwrap() < 1e-7);
    }

    #[test]
    fn a_staircase_turns_by_a_right_angle() {
        let stairs = arr2(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0]]);
        assert!((turning_angle(stairs.view()).unwrap() - std::f64::consts::FRAC_PI_2).abs() < 1e-15);
        // Two bends of squared length 2 over three steps of length 1.
        assert!((smoothness_ratio(stairs.view()).unwrap() - 4.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn a_path_that_stands_still_or_is_too_short_has_no_shape() {
        assert_eq!(smoothness_ratio(aview2(&[[1.0], [1.0], [1.0]])), None);
        assert_eq!(turning_angle(aview2(&[[1.0], [1.0], [1.0]])), None);
        assert_eq!(smoothness_ratio(aview2(&[[1.0], [2.0]])), None);
        assert_eq!(turning_angle(aview2(&[[1.0], [2.0]])), None);
    }
}

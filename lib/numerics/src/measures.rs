//! Numbers that describe a spectrum. Eigenvalues λ come in descending order and are not negative; logarithms are natural.
//!
//! A measure that is not defined (no variance at all, one value only) is `None`: never zero, never NaN.

use crate::entropy::entropy_nats;

/// λ_j / Σλ for the given leading eigenvalues; `total` is Σλ over all of them.
pub fn explained_ratio(leading: &[f64], total: f64) -> Option<Vec<f64>> {
    (total > 0.0).then(|| leading.iter().map(|value| (value / total).min(1.0)).collect())
}

/// C_k = Σ_{j≤k} λ_j / Σλ. With fewer than k eigenvalues in the whole spectrum it is 1.
pub fn concentration(leading: &[f64], total: f64, k: usize) -> Option<f64> {
    (total > 0.0).then(|| (leading.iter().take(k).sum::<f64>() / total).min(1.0))
}

/// (Σλ)² / Σλ².
pub fn participation_ratio(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    // Scaled by the sum, so that squares neither overflow nor vanish.
    let squares: f64 = values.iter().map(|value| (value / sum) * (value / sum)).sum();
    (sum > 0.0).then(|| 1.0 / squares)
}

/// exp of the entropy of singular values σ = √λ (Roy and Vetterli 2007; RankMe).
pub fn effective_rank(values: &[f64]) -> Option<f64> {
    let singular: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
    (values.iter().sum::<f64>() > 0.0).then(|| libm::exp(entropy_nats(&singular)))
}

/// Σσ² / σ₁²; `total` is Σλ.
pub fn stable_rank(largest: f64, total: f64) -> Option<f64> {
    (largest > 0.0).then(|| total / largest)
}

/// Entropy of λ / Σλ.
pub fn matrix_entropy(values: &[f64]) -> Option<f64> {
    (values.iter().sum::<f64>() > 0.0).then(|| entropy_nats(values))
}

/// α-ReQ: minus the least-squares slope of ln λ_i on ln i, over the positive eigenvalues; at least two are needed.
pub fn alpha_req(values: &[f64]) -> Option<f64> {
    let points: Vec<(f64, f64)> = values
        .iter()
        .enumerate()
        .filter(|(_, value)| **value > 0.0)
        .map(|(index, value)| (libm::log((index + 1) as f64), libm::log(*value)))
        .collect();
    if points.len() < 2 {
        return None;
    }
    let n = points.len() as f64;
    let x_mean = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let y_mean = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let product: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let square: f64 = points.iter().map(|(x, _)| (x - x_mean) * (x - x_mean)).sum();
    Some(-product / square)
}

/// The least k with C_k ≥ `share`.
pub fn components_for_share(values: &[f64], share: f64) -> Option<usize> {
    let total: f64 = values.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mut sum = 0.0;
    for (index, value) in values.iter().enumerate() {
        sum += value;
        // The last eigenvalue completes the sum whatever rounding did on the way.
        if sum / total >= share || index + 1 == values.len() {
            return Some(index + 1);
        }
    }
    None
}

/// IsoScore in closed form, (PR − 1) / (d − 1): 0 for one direction, 1 for a sphere.
pub fn iso_score(participation_ratio: f64, width: usize) -> Option<f64> {
    (width > 1).then(|| (participation_ratio - 1.0) / (width as f64 - 1.0))
}

/// Mean cosine over all pairs of different rows, from Σx/‖x‖ alone: Σ_{i≠j} cos = ‖Σu‖² − n.
pub fn mean_pairwise_cosine(unit_sum: &[f64], row_count: u64) -> Option<f64> {
    if row_count < 2 {
        return None;
    }
    let n = row_count as f64;
    let square: f64 = unit_sum.iter().map(|x| x * x).sum();
    Some(((square - n) / (n * (n - 1.0))).clamp(-1.0, 1.0))
}

/// Dimensions of massive activation: those whose root mean square over rows exceeds [`MASSIVE_RATIO`] times the median dimension's.
pub fn massive_dimensions(root_mean_squares: &[f64]) -> Vec<usize> {
    let mut ascending = root_mean_squares.to_vec();
    ascending.sort_by(f64::total_cmp);
    let Some(median) = crate::statistics::quantile(&ascending, 0.5) else {
        return Vec::new();
    };
    if median == 0.0 {
        return Vec::new();
    }
    (0..root_mean_squares.len())
        .filter(|&index| root_mean_squares[index] > MASSIVE_RATIO * median)
        .collect()
}

/// Massive activations lie two to four orders of magnitude above the median (Sun et al. 2024) where they occur; over all rows of a
/// layer, many of them ordinary, an order and a half still separates such dimensions from the merely large.
pub const MASSIVE_RATIO: f64 = 30.0;

/// Growth of norms through depth, norm_l ≈ a·b^l: least squares of ln norm on l. Returns (a, b); needs two positive norms.
pub fn norm_growth(layer_indices: &[f64], norms: &[f64]) -> Option<(f64, f64)> {
    if norms.len() < 2 || norms.iter().any(|&norm| norm <= 0.0) {
        return None;
    }
    let n = norms.len() as f64;
    let x_mean = layer_indices.iter().sum::<f64>() / n;
    let y_mean = norms.iter().map(|&norm| libm::log(norm)).sum::<f64>() / n;
    let (mut product, mut square) = (0.0, 0.0);
    for (x, norm) in layer_indices.iter().zip(norms) {
        product += (x - x_mean) * (libm::log(*norm) - y_mean);
        square += (x - x_mean) * (x - x_mean);
    }
    let slope = product / square;
    (square > 0.0).then(|| (libm::exp(y_mean - slope * x_mean), libm::exp(slope)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flat_spectrum_is_spread_over_all_dimensions() {
        let flat = [2.0; 8];
        assert!((participation_ratio(&flat).unwrap() - 8.0).abs() < 1e-12);
        assert!((effective_rank(&flat).unwrap() - 8.0).abs() < 1e-12);
        assert_eq!(stable_rank(2.0, 16.0), Some(8.0));
        assert!((matrix_entropy(&flat).unwrap() - 8.0_f64.ln()).abs() < 1e-12);
        assert!(alpha_req(&flat).unwrap().abs() < 1e-12);
        assert_eq!(components_for_share(&flat, 0.9), Some(8));
        assert!((iso_score(8.0, 8).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_direction_is_one_of_everything() {
        let one = [5.0, 0.0, 0.0];
        assert_eq!(participation_ratio(&one), Some(1.0));
        assert_eq!(effective_rank(&one), Some(1.0));
        assert_eq!(components_for_share(&one, 0.9), Some(1));
        assert_eq!(iso_score(1.0, 3), Some(0.0));
        assert_eq!(concentration(&one, 5.0, 1), Some(1.0));
        assert_eq!(alpha_req(&one), None);
    }

    #[test]
    fn nothing_is_defined_without_variance() {
        let none = [0.0, 0.0];
        assert_eq!(participation_ratio(&none), None);
        assert_eq!(effective_rank(&none), None);
        assert_eq!(matrix_entropy(&none), None);
        assert_eq!(components_for_share(&none, 0.9), None);
        assert_eq!(concentration(&none, 0.0, 1), None);
        assert_eq!(explained_ratio(&none, 0.0), None);
    }

    #[test]
    fn a_power_law_has_its_exponent_and_growth_its_base() {
        let law: Vec<f64> = (1..200).map(|i| f64::from(i).powf(-1.4)).collect();
        assert!((alpha_req(&law).unwrap() - 1.4).abs() < 1e-12);
        let layers: Vec<f64> = (0..12).map(f64::from).collect();
        let norms: Vec<f64> = layers.iter().map(|l| 3.0 * 1.25_f64.powf(*l)).collect();
        let (a, b) = norm_growth(&layers, &norms).unwrap();
        assert!((a - 3.0).abs() < 1e-12 && (b - 1.25).abs() < 1e-12);
    }

    #[test]
    fn the_mean_cosine_of_pairs_comes_from_the_sum_of_directions() {
        // Three unit rows: two equal, one orthogonal: cosines 1, 0, 0.
        assert!((mean_pairwise_cosine(&[2.0, 1.0], 3).unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(mean_pairwise_cosine(&[1.0, 0.0], 1), None);
    }

    #[test]
    fn a_massive_dimension_is_found_and_ordinary_ones_are_not() {
        let mut squares = vec![1.0; 64];
        squares[5] = 29.0;
        squares[17] = 400.0;
        assert_eq!(massive_dimensions(&squares), vec![17]);
        assert!(massive_dimensions(&[0.0, 0.0, 1.0]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn concentration_rises_with_k_and_scale_changes_nothing(
            mut values in proptest::collection::vec(0.01_f64..10.0, 2..20), scale in 0.001_f64..1000.0,
        ) {
            values.sort_by(|a, b| b.total_cmp(a));
            let total: f64 = values.iter().sum();
            let scaled: Vec<f64> = values.iter().map(|v| v * scale).collect();
            for k in 1..values.len() {
                prop_assert!(concentration(&values, total, k) <= concentration(&values, total, k + 1));
            }
            prop_assert!((participation_ratio(&values).unwrap() - participation_ratio(&scaled).unwrap()).abs() < 1e-9);
            prop_assert!((effective_rank(&values).unwrap() - effective_rank(&scaled).unwrap()).abs() < 1e-9);
            let pr = participation_ratio(&values).unwrap();
            prop_assert!(pr >= 1.0 - 1e-12 && pr <= values.len() as f64 + 1e-9);
        }
    }
}

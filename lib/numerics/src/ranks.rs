//! Relations by ranks, their permutation tests, and the correction for many tests.

use rayon::prelude::*;

use crate::rng::Rng;
use crate::statistics::{Interval, correlation, normal_quantile};

/// Ranks from 1 up; equal values share the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&one, &other| values[one].total_cmp(&values[other]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&one, &other| values[one] == values[other]) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&at| ranks[at] = rank);
        start += tied.len();
    }
    ranks
}

/// Spearman's ρ; `None` where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    correlation(&ranks(x), &ranks(y))
}

/// Spearman's ρ of x and y, what both owe to `given` taken out; `None` where one of them does not vary beside it.
pub fn partial_spearman(x: &[f64], y: &[f64], given: &[f64]) -> Option<f64> {
    let (xy, xz, yz) = (spearman(x, y)?, spearman(x, given)?, spearman(y, given)?);
    let left = (1.0 - xz * xz) * (1.0 - yz * yz);
    (left > 1e-12).then(|| ((xy - xz * yz) / left.sqrt()).clamp(-1.0, 1.0))
}

/// An interval of Spearman's ρ over `count` pairs by Fisher's transformation, its variance as Fieller, Hartley and Pearson have it;
/// `given` variables were taken out. `None` for fewer than four pairs.
pub fn spearman_interval(rho: f64, count: usize, given: usize, level: f64) -> Option<Interval> {
    let freedom = count.checked_sub(3 + given).filter(|freedom| *freedom > 0)?;
    let half = normal_quantile(0.5 + level / 2.0) * libm::sqrt(1.06 / freedom as f64);
    let z = libm::atanh(rho);
    Some(Interval {
        low: libm::tanh(z - half),
        high: libm::tanh(z + half),
    })
}

/// Two-sided p-value of a statistic under permutations of `x` within blocks (`blocks[i]` names the block of x[i]): the share of
/// permutations that lie as far from zero, the order found counted among them.
pub fn permutation_p(
    rng: &Rng,
    permutation_count: u64,
    x: &[f64],
    blocks: &[u64],
    statistic: impl Fn(&[f64]) -> Option<f64> + Sync,
) -> Option<f64> {
    assert_eq!(x.len(), blocks.len(), "a block for each value");
    // rounding alone must not make an equal value a smaller one
    let found = statistic(x)?.abs() * (1.0 - 1e-12);
    let as_far = (0..permutation_count)
        .into_par_iter()
        .filter(|&permutation| {
            let moved = permuted(rng, permutation, x, blocks);
            statistic(&moved).is_some_and(|value| value.abs() >= found)
        })
        .count() as f64;
    Some((as_far + 1.0) / (permutation_count as f64 + 1.0))
}

/// Fisher and Yates's shuffle of each block.
fn permuted(rng: &Rng, permutation: u64, x: &[f64], blocks: &[u64]) -> Vec<f64> {
    let mut moved = x.to_vec();
    for (last, block) in blocks.iter().enumerate().rev() {
        let before: Vec<usize> = (0..=last).filter(|&at| blocks[at] == *block).collect();
        moved.swap(last, before[rng.below(permutation, last as u64, before.len())]);
    }
    moved
}

/// Holm's correction: p-values that can be held to one level together.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&one, &other| p_values[one].total_cmp(&p_values[other]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (before, &at) in order.iter().enumerate() {
        largest = largest.max((p_values.len() - before) as f64 * p_values[at]).min(1.0);
        corrected[at] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.stats.spearmanr and rankdata of the same numbers.
    #[test]
    fn ranks_share_ties_and_rho_is_scipys() {
        let (x, y) = ([1.0, 2.0, 2.0, 4.0, 5.0, 7.0], [3.0, 1.0, 2.0, 6.0, 5.0, 6.0]);
        assert_eq!(ranks(&y), [3.0, 1.0, 2.0, 5.5, 4.0, 5.5]);
        assert!((spearman(&x, &y).unwrap() - 0.705_882_352_941_176_5).abs() < 1e-12);
        assert_eq!(spearman(&x, &[1.0; 6]), None);
    }

    #[test]
    fn what_both_owe_to_a_third_is_taken_out() {
        let given = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let y = [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0];
        assert!(spearman(&x, &y).unwrap() > 0.9);
        let partial = partial_spearman(&x, &y, &given).unwrap();
        assert!(
            (partial + 1.0).abs() < 1e-9,
            "within each pair the order is turned: {partial}"
        );
        assert_eq!(partial_spearman(&x, &y, &x), None);
    }

    #[test]
    fn a_permutation_stays_within_its_block_and_all_orders_come() {
        let rng = Rng::new(1, "permutation");
        let (x, blocks) = ([1.0, 10.0, 2.0, 20.0, 3.0], [0, 1, 0, 1, 0]);
        let orders: std::collections::BTreeSet<String> = (0..500)
            .map(|permutation| {
                let moved = permuted(&rng, permutation, &x, &blocks);
                assert!([1, 3].iter().all(|&at| moved[at] >= 10.0), "{moved:?}");
                format!("{moved:?}")
            })
            .collect();
        assert_eq!(orders.len(), 12);
    }

    /// With four values in one block a perfect order has 2 of 24 permutations as far out.
    #[test]
    fn the_p_value_is_the_share_of_permutations_as_far_out() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]);
        let rng = Rng::new(1, "permutation");
        let p = permutation_p(&rng, 20_000, &x, &[0; 4], |x| spearman(x, &y)).unwrap();
        assert!((p - 2.0 / 24.0).abs() < 0.01, "{p}");
    }

    /// statsmodels' multipletests(method="holm").
    #[test]
    fn holms_correction_is_statsmodels() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
    }

    /// Of 2,000 samples of 40 pairs whose ρ is known, 95 in 100 intervals hold it.
    #[test]
    fn the_interval_of_rho_covers_what_it_says() {
        let rng = Rng::new(7, "coverage");
        // a normal pair of correlation .6 has this rank correlation
        let truth = 6.0 / std::f64::consts::PI * libm::asin(0.3);
        let covered = (0..2000).filter(|&sample| {
            let draw = |at: u64| rng.normal(sample, at);
            let x: Vec<f64> = (0..40).map(|i| draw(2 * i)).collect();
            let y: Vec<f64> = x
                .iter()
                .zip(0..)
                .map(|(x, i)| 0.6 * x + 0.8 * draw(2 * i + 1))
                .collect();
            let interval = spearman_interval(spearman(&x, &y).unwrap(), 40, 0, 0.95).unwrap();
            (interval.low..=interval.high).contains(&truth)
        });
        let share = covered.count() as f64 / 2000.0;
        assert!((0.93..=0.97).contains(&share), "{share}");
    }
}

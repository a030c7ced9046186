//! Resamples that keep the proportions of groups.

use crate::rng::Rng;

/// Draws from strata of the given sizes so that `count` is divided in their proportion: whole shares first, what is left to the largest
/// fractions, earlier strata first where these are equal.
pub fn proportional(sizes: &[usize], count: u64) -> Vec<u64> {
    let total: u128 = sizes.iter().map(|size| *size as u128).sum();
    assert!(total > 0, "there is nothing to draw from");
    let exact = |size: &usize| *size as u128 * u128::from(count);
    let mut shares: Vec<u64> = sizes.iter().map(|size| (exact(size) / total) as u64).collect();
    let mut by_fraction: Vec<usize> = (0..sizes.len()).collect();
    by_fraction.sort_by_key(|at| std::cmp::Reverse(exact(&sizes[*at]) % total));
    let left = count - shares.iter().sum::<u64>();
    for at in by_fraction.into_iter().take(left as usize) {
        shares[at] += 1;
    }
    shares
}

/// The largest value of each resample: `count` draws with replacement, from each stratum in its proportion.
pub fn resampled_maxima(rng: &Rng, strata: &[Vec<f64>], count: u64, resample_count: u64) -> Vec<f64> {
    let sizes: Vec<usize> = strata.iter().map(Vec::len).collect();
    let shares = proportional(&sizes, count);
    let maximum = |resample: u64| {
        let mut position = 0;
        let mut largest = f64::NEG_INFINITY;
        for (values, share) in strata.iter().zip(&shares) {
            for _ in 0..*share {
                largest = largest.max(values[rng.below(resample, position, values.len())]);
                position += 1;
            }
        }
        largest
    };
    (0..resample_count).map(maximum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_goes_to_the_largest_fractions() {
        assert_eq!(proportional(&[50, 30, 20], 10), vec![5, 3, 2]);
        assert_eq!(proportional(&[1, 1, 1], 2), vec![1, 1, 0]);
        assert_eq!(proportional(&[0, 7], 3), vec![0, 3]);
    }

    #[test]
    fn a_stratum_of_one_value_is_drawn_for_its_whole_share() {
        let strata = [vec![1.0; 90], vec![9.0; 10]];
        assert_eq!(resampled_maxima(&Rng::new(1, "test"), &strata, 10, 4), vec![9.0; 4]);
        // Five draws leave the small stratum half a draw, which the large one's equal fraction takes first.
        assert_eq!(resampled_maxima(&Rng::new(1, "test"), &strata, 5, 4), vec![1.0; 4]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_lie_next_to_the_proportion(sizes in proptest::collection::vec(0_usize..50, 1..8), count in 1_u64..5000) {
            prop_assume!(sizes.iter().sum::<usize>() > 0);
            let shares = proportional(&sizes, count);
            prop_assert_eq!(shares.iter().sum::<u64>(), count);
            let total = sizes.iter().sum::<usize>() as f64;
            for (size, share) in sizes.iter().zip(shares) {
                prop_assert!((share as f64 - *size as f64 / total * count as f64).abs() < 1.0);
            }
        }
    }
}

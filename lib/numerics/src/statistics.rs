//! Statistics of counts and of resampled units: intervals, tests and sample sizes.
//!
//! Levels and probabilities are fractions of one. Resampling draws from the counter-based generator, so an interval repeats to the bit.

use crate::rng::Rng;

/// An interval with its two ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// P(Z ≤ z) of a standard normal.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// The z with P(Z ≤ z) = `probability`: a rational start (Acklam) and two Halley steps on the exact distribution function.
///
/// # Panics
/// If `probability` is not strictly between 0 and 1.
pub fn normal_quantile(probability: f64) -> f64 {
    assert!(
        probability > 0.0 && probability < 1.0,
        "a normal quantile needs a probability strictly between 0 and 1"
    );
    // By symmetry only the lower half is solved, where erfc loses nothing.
    if probability > 0.5 {
        return -normal_quantile(1.0 - probability);
    }
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [
        7.784695709041462e-3,
        3.224671290700398e-1,
        2.445134137142996,
        3.754408661907416,
        1.0,
    ];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let mut z = if probability < 0.02425 {
        let q = libm::sqrt(-2.0 * libm::log(probability));
        horner(&C, q) / horner(&D, q)
    } else {
        let q = probability - 0.5;
        q * horner(&A, q * q) / horner(&B, q * q)
    };
    for _ in 0..2 {
        let step = (normal_cdf(z) - probability) * libm::sqrt(std::f64::consts::TAU) * libm::exp(z * z / 2.0);
        z -= step / (1.0 + z * step / 2.0);
    }
    z
}

/// Wilson's score interval for a share of `successes` among `trials`; `None` without trials.
pub fn wilson(successes: u64, trials: u64, level: f64) -> Option<Interval> {
    assert!(successes <= trials, "more successes than trials");
    if trials == 0 {
        return None;
    }
    let z = normal_quantile(0.5 + level / 2.0);
    let n = trials as f64;
    let share = successes as f64 / n;
    let z2 = z * z / n;
    let centre = (share + z2 / 2.0) / (1.0 + z2);
    let half = libm::sqrt(share * (1.0 - share) * z2 + z2 * z2 / 4.0) / (1.0 + z2);
    // At 0 and n the score interval ends exactly at 0 and 1; rounding must not move it past them.
    Some(Interval {
        low: if successes == 0 { 0.0 } else { (centre - half).max(0.0) },
        high: if successes == trials {
            1.0
        } else {
            (centre + half).min(1.0)
        },
    })
}

/// McNemar's exact two-sided p-value: `only_first` and `only_second` count the pairs that changed in each direction.
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    let k = only_first.min(only_second);
    if n == 0 || only_first == only_second {
        return 1.0;
    }
    // The lower tail of Binomial(n, ½), term by term from its largest one, so that nothing underflows too early.
    let log_top = log_choose(n, k) - n as f64 * std::f64::consts::LN_2;
    let mut ratio = 1.0;
    let mut sum = 1.0;
    for i in (1..=k).rev() {
        ratio *= i as f64 / (n - i + 1) as f64;
        sum += ratio;
        if ratio < 1e-18 * sum {
            break;
        }
    }
    (2.0 * libm::exp(log_top) * sum).min(1.0)
}

/// McNemar's chi-squared p-value with Edwards's continuity correction.
pub fn mcnemar_corrected(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    if n == 0 {
        return 1.0;
    }
    let excess = (only_first.abs_diff(only_second) as f64 - 1.0).max(0.0);
    // P(χ²₁ > x) = erfc(√(x/2)).
    libm::erfc(libm::sqrt(excess * excess / n as f64 / 2.0))
}

/// Pairs needed for McNemar's test to see the given shares of changed pairs (Connor, Biometrics 1987). `None` when the shares are equal:
/// then no number of pairs is enough.
pub fn paired_proportion_sample_size(only_first: f64, only_second: f64, alpha: f64, power: f64) -> Option<u64> {
    let changed = only_first + only_second;
    let difference = (only_first - only_second).abs();
    assert!(
        only_first >= 0.0 && only_second >= 0.0 && changed <= 1.0,
        "shares of changed pairs lie in 0..1"
    );
    if difference == 0.0 {
        return None;
    }
    let z_alpha = normal_quantile(1.0 - alpha / 2.0);
    let z_beta = normal_quantile(power);
    let numerator = z_alpha * libm::sqrt(changed) + z_beta * libm::sqrt((changed - difference * difference).max(0.0));
    Some(libm::ceil((numerator / difference) * (numerator / difference)) as u64)
}

/// ln of the binomial coefficient n over k.
pub fn log_choose(n: u64, k: u64) -> f64 {
    assert!(k <= n, "more chosen than there are");
    libm::lgamma(n as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((n - k) as f64 + 1.0)
}

/// The quantile of ascending values, linear between order statistics (type 7, as in numpy and R); `None` for no values.
pub fn quantile(ascending: &[f64], probability: f64) -> Option<f64> {
    assert!((0.0..=1.0).contains(&probability), "a quantile lies in 0..1");
    let last = ascending.len().checked_sub(1)?;
    let position = probability * last as f64;
    let below = (position as usize).min(last);
    let above = (below + 1).min(last);
    Some(ascending[below] + (position - below as f64) * (ascending[above] - ascending[below]))
}

/// Probabilities of scores, in f64 so that a wide vocabulary loses nothing.
pub fn softmax(scores: &[f32]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = scores.iter().map(|score| libm::exp(f64::from(score - top))).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// The place of the largest score, of equal ones the first; 0 for no scores.
pub fn largest(scores: &[f32]) -> usize {
    let best = (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best });
    best.unwrap_or(0)
}

/// Mean; `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Pearson's correlation; `None` when a side does not vary or there are fewer than two pairs.
pub fn correlation(left: &[f64], right: &[f64]) -> Option<f64> {
    assert_eq!(left.len(), right.len(), "a correlation needs pairs");
    let (left_mean, right_mean) = (mean(left)?, mean(right)?);
    let (mut product, mut left_square, mut right_square) = (0.0, 0.0, 0.0);
    for (l, r) in left.iter().zip(right) {
        product += (l - left_mean) * (r - right_mean);
        left_square += (l - left_mean) * (l - left_mean);
        right_square += (r - right_mean) * (r - right_mean);
    }
    (left_square > 0.0 && right_square > 0.0)
        .then(|| (product / (left_square.sqrt() * right_square.sqrt())).clamp(-1.0, 1.0))
}

/// Fisher's interval of Pearson's correlation over `count` independent pairs; `None` for fewer than four.
pub fn correlation_interval(correlation: f64, count: usize, level: f64) -> Option<Interval> {
    let freedom = count.checked_sub(3).filter(|freedom| *freedom > 0)?;
    let half = normal_quantile(0.5 + level / 2.0) / libm::sqrt(freedom as f64);
    let z = libm::atanh(correlation);
    Some(Interval {
        low: libm::tanh(z - half),
        high: libm::tanh(z + half),
    })
}

/// How often each of `unit_count` units is drawn in one bootstrap resample.
///
/// Two data sets over the same units use the same counts: that is what makes a comparison paired.
pub fn resample_counts(rng: &Rng, resample: u64, unit_count: usize) -> Vec<u32> {
    counts_from(rng, resample, 0, unit_count)
}

/// The same with the draws that begin at `start`.
fn counts_from(rng: &Rng, resample: u64, start: usize, unit_count: usize) -> Vec<u32> {
    let mut counts = vec![0; unit_count];
    for draw in start..start + unit_count {
        counts[rng.below(resample, draw as u64, unit_count)] += 1;
    }
    counts
}

/// Replicates of a statistic over resampled units, ascending. `statistic` gets how often each unit was drawn, and may return `None` for
/// a resample on which it is not defined; such resamples are left out.
pub fn bootstrap(
    rng: &Rng,
    unit_count: usize,
    resample_count: u64,
    statistic: impl Fn(&[u32]) -> Option<f64> + Sync,
) -> Vec<f64> {
    use rayon::prelude::*;
    let mut replicates: Vec<f64> = (0..resample_count)
        .into_par_iter()
        .filter_map(|resample| statistic(&resample_counts(rng, resample, unit_count)))
        .collect();
    replicates.sort_by(f64::total_cmp);
    replicates
}

/// The percentile interval of ascending replicates; `None` without replicates.
pub fn percentile_interval(ascending: &[f64], level: f64) -> Option<Interval> {
    let tail = (1.0 - level) / 2.0;
    Some(Interval {
        low: quantile(ascending, tail)?,
        high: quantile(ascending, 1.0 - tail)?,
    })
}

/// Two-sided p-value of "the true value is zero" from bootstrap replicates of a difference: twice the smaller share on one side of
/// zero, each with one added so that it is never zero.
pub fn sign_p_value(replicates: &[f64]) -> f64 {
    let below = replicates.iter().filter(|&&x| x <= 0.0).count() + 1;
    let above = replicates.iter().filter(|&&x| x >= 0.0).count() + 1;
    (2.0 * below.min(above) as f64 / (replicates.len() + 1) as f64).min(1.0)
}

/// Bootstrap of the mean difference between paired values: the interval and its replicates' two-sided p-value; `None` without pairs.
pub fn paired_mean_difference(
    first: &[f64],
    second: &[f64],
    resample_count: u64,
    level: f64,
    rng: &Rng,
) -> Option<(Interval, f64)> {
    assert_eq!(first.len(), second.len(), "a paired comparison needs pairs");
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
    if differences.is_empty() {
        return None;
    }
    let replicates = bootstrap(rng, differences.len(), resample_count, |counts| {
        Some(weighted_mean(&differences, counts))
    });
    Some((percentile_interval(&replicates, level)?, sign_p_value(&replicates)))
}

/// The mean of `second` less that of `first`, two samples drawn apart: percentile interval and p-value of resamples of each.
pub fn mean_difference(
    first: &[f64],
    second: &[f64],
    resample_count: u64,
    level: f64,
    rng: &Rng,
) -> Option<(Interval, f64)> {
    use rayon::prelude::*;
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let mut replicates: Vec<f64> = (0..resample_count)
        .into_par_iter()
        .map(|resample| {
            let of_first = counts_from(rng, resample, 0, first.len());
            let of_second = counts_from(rng, resample, first.len(), second.len());
            weighted_mean(second, &of_second) - weighted_mean(first, &of_first)
        })
        .collect();
    replicates.sort_by(f64::total_cmp);
    Some((percentile_interval(&replicates, level)?, sign_p_value(&replicates)))
}

/// The mean of a resample: each value as often as it was drawn.
fn weighted_mean(values: &[f64], counts: &[u32]) -> f64 {
    let terms = counts.iter().zip(values).map(|(&count, x)| f64::from(count) * x);
    terms.sum::<f64>() / values.len() as f64
}

/// A jackknife over units: the bias-corrected estimate and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jackknife {
    pub estimate: f64,
    pub standard_error: f64,
}

/// `whole` is the statistic of all units, `without(i)` that of all but unit i; `None` for fewer than two units.
pub fn jackknife(unit_count: usize, whole: f64, without: impl Fn(usize) -> f64) -> Option<Jackknife> {
    if unit_count < 2 {
        return None;
    }
    let n = unit_count as f64;
    let values: Vec<f64> = (0..unit_count).map(without).collect();
    let mean = mean(&values)?;
    let spread: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    Some(Jackknife {
        estimate: n * whole - (n - 1.0) * mean,
        standard_error: libm::sqrt((n - 1.0) / n * spread),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples of 400 with variances 1/12 and 4/12: the interval of their difference is that of a normal variable.
    #[test]
    fn a_difference_of_means_has_the_interval_of_two_samples() {
        let even = |count: usize, scale: f64| -> Vec<f64> {
            (0..count).map(|at| scale * (at as f64 + 0.5) / count as f64).collect()
        };
        let (first, second) = (even(400, 1.0), even(300, 2.0));
        let rng = Rng::new(7, "test");
        let (interval, p) = mean_difference(&first, &second, 4000, 0.95, &rng).unwrap();
        let half = 1.96 * f64::sqrt(1.0 / 12.0 / 400.0 + 4.0 / 12.0 / 300.0);
        assert!((interval.low - (0.5 - half)).abs() < 0.1 * half, "{interval:?}");
        assert!((interval.high - (0.5 + half)).abs() < 0.1 * half, "{interval:?}");
        assert!(p < 0.001);
        let (_, p) = mean_difference(&first, &even(300, 1.0), 4000, 0.95, &rng).unwrap();
        assert!(p > 0.5, "{p}");
        assert!(mean_difference(&first, &[], 4000, 0.95, &rng).is_none());
    }

    #[test]
    fn probabilities_of_large_scores_are_those_of_their_differences() {
        let found = softmax(&[1000.0, 1000.0 + 3f32.ln(), f32::NEG_INFINITY]);
        for (found, wanted) in found.iter().zip([0.25, 0.75, 0.0]) {
            assert!((found - wanted).abs() < 1e-4, "{found}");
        }
    }

    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn normal_quantiles_agree_with_tables_and_invert_the_distribution() {
        near(normal_quantile(0.975), 1.959963984540054, 1e-14);
        near(normal_quantile(0.8), 0.8416212335729143, 1e-14);
        near(normal_quantile(1e-10), -6.361340902404056, 1e-11);
        for p in [1e-6, 0.01, 0.3, 0.5, 0.77, 0.999] {
            near(normal_cdf(normal_quantile(p)), p, 1e-15);
        }
    }

    #[test]
    fn wilson_agrees_with_the_published_example_and_stays_in_zero_to_one() {
        // Newcombe (Stat Med 1998), table I, method 3.
        let interval = wilson(81, 263, 0.95).unwrap();
        near(interval.low, 0.2553, 5e-5);
        near(interval.high, 0.3662, 5e-5);
        let none = wilson(0, 20, 0.95).unwrap();
        assert_eq!(none.low, 0.0);
        near(none.high, 0.1611, 5e-5);
        assert_eq!(wilson(20, 20, 0.95).unwrap().high, 1.0);
        assert_eq!(wilson(0, 0, 0.95), None);
    }

    #[test]
    fn mcnemar_agrees_with_scipy() {
        // scipy.stats.binomtest(k, n, 0.5).pvalue
        near(mcnemar_exact(1, 8), 0.0390625, 1e-13);
        near(mcnemar_exact(25, 10), 0.016673847800120715, 1e-13);
        assert_eq!(mcnemar_exact(7, 7), 1.0);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert!(mcnemar_exact(0, 2000) < 1e-300 || mcnemar_exact(0, 2000) == 0.0);
        // scipy.stats.chi2.sf((|25−10|−1)²/35, 1)
        near(mcnemar_corrected(25, 10), 0.01796047752607879, 1e-14);
        assert_eq!(mcnemar_corrected(3, 3), 1.0);
    }

    #[test]
    fn sample_size_agrees_with_connors_formula_worked_by_hand() {
        // ((1.959964·√0.3 + 0.841621·√(0.3−0.01)) / 0.1)² = 233.09
        assert_eq!(paired_proportion_sample_size(0.2, 0.1, 0.05, 0.8), Some(234));
        assert_eq!(paired_proportion_sample_size(0.1, 0.1, 0.05, 0.8), None);
    }

    #[test]
    fn quantiles_are_numpys() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        near(quantile(&values, 0.9).unwrap(), 6.8, 1e-14);
        assert_eq!(quantile(&values, 1.0), Some(8.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_jackknife_of_a_mean_is_its_standard_error() {
        let values = [1.0, 2.0, 4.0, 9.0];
        let whole = 4.0;
        let found = jackknife(4, whole, |i| (16.0 - values[i]) / 3.0).unwrap();
        near(found.estimate, 4.0, 1e-12);
        // s/√n with s² = 38/3
        near(found.standard_error, (38.0_f64 / 3.0 / 4.0).sqrt(), 1e-12);
    }

    #[test]
    fn the_bootstrap_covers_repeats_and_sees_a_shift() {
        let rng = Rng::new(5, "bootstrap");
        let noise = Rng::new(6, "noise");
        let first: Vec<f64> = (0..200).map(|i| noise.normal(0, i)).collect();
        let second: Vec<f64> = (0..200)
            .map(|i| first[i as usize] + 0.3 + 0.5 * noise.normal(1, i))
            .collect();
        let (interval, p) = paired_mean_difference(&first, &second, 999, 0.95, &rng).unwrap();
        assert!(
            interval.low > 0.15 && interval.high < 0.45 && p < 0.01,
            "{interval:?} {p}"
        );
        assert_eq!(
            paired_mean_difference(&first, &second, 999, 0.95, &rng).unwrap(),
            (interval, p)
        );
        let (_, same) = paired_mean_difference(&first, &first, 99, 0.95, &rng).unwrap();
        assert_eq!(same, 1.0);
    }

    #[test]
    fn correlation_is_one_for_a_line_and_absent_for_a_constant() {
        near(correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap(), 1.0, 1e-15);
        near(correlation(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]).unwrap(), -1.0, 1e-15);
        assert_eq!(correlation(&[1.0, 2.0], &[3.0, 3.0]), None);
    }

    #[test]
    fn the_interval_of_a_correlation_is_fishers() {
        // tanh(atanh(r) ± 1.959964 / sqrt(n - 3)), computed apart.
        let interval = correlation_interval(0.5, 103, 0.95).unwrap();
        near(interval.low, 0.3393075224832535, 1e-12);
        near(interval.high, 0.6323381504876256, 1e-12);
        let perfect = correlation_interval(-1.0, 4, 0.95).unwrap();
        assert_eq!((perfect.low, perfect.high), (-1.0, -1.0));
        assert_eq!(correlation_interval(0.5, 3, 0.95), None);
    }
}

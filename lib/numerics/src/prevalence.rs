//! The share of a class, seen through a judge that errs: corrected by how often the judge is known to err, or by labels of some of the
//! very units that it judged.

use crate::statistics::{Interval, normal_quantile};

/// How a judge did where the truth is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    pub true_positive: u64,
    pub positive: u64,
    pub true_negative: u64,
    pub negative: u64,
}

/// A corrected share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrected {
    pub estimate: f64,
    pub interval: Interval,
    /// Variance that stays however many labels there are, and variance that goes down with their number.
    unit_variance: f64,
    label_variance: f64,
}

impl Corrected {
    /// How many labels of the same kind, instead of `label_count`, would halve the interval; `None` where no number would.
    pub fn labels_to_halve(&self, label_count: u64) -> Option<u64> {
        let wanted = (self.unit_variance + self.label_variance) / 4.0 - self.unit_variance;
        (wanted > 0.0).then(|| libm::ceil(label_count as f64 * self.label_variance / wanted) as u64)
    }
}

/// The share behind `hits` of `count` by the judge's own sensitivity and specificity (Rogan and Gladen, 1978), with the interval of Lang
/// and Reiczigel (2014), which counts the errors of all three. `None` where the judge is no better than chance or a side is empty.
pub fn rogan_gladen(hits: u64, count: u64, accuracy: &Accuracy, level: f64) -> Option<Corrected> {
    if count == 0 || accuracy.positive == 0 || accuracy.negative == 0 {
        return None;
    }
    let z = normal_quantile(0.5 + level / 2.0);
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    let sensitivity = share(accuracy.true_positive, accuracy.positive);
    let specificity = share(accuracy.true_negative, accuracy.negative);
    let gain = sensitivity + specificity - 1.0;
    // Each share is moved a little to the middle, as in Agresti and Coull's interval.
    let n = count as f64 + z * z;
    let p = (hits as f64 + z * z / 2.0) / n;
    let (positive, negative) = (accuracy.positive as f64 + 2.0, accuracy.negative as f64 + 2.0);
    let se = (accuracy.true_positive as f64 + 1.0) / positive;
    let sp = (accuracy.true_negative as f64 + 1.0) / negative;
    let j = se + sp - 1.0;
    if gain <= 0.0 || j <= 0.0 {
        return None;
    }
    let centre = (p + sp - 1.0) / j;
    let (se_variance, sp_variance) = (se * (1.0 - se) / positive, sp * (1.0 - sp) / negative);
    let shift = 2.0 * z * z * (centre * se_variance - (1.0 - centre) * sp_variance);
    let unit_variance = p * (1.0 - p) / n / (j * j);
    let label_variance = ((1.0 - centre).powi(2) * sp_variance + centre * centre * se_variance) / (j * j);
    let half = z * libm::sqrt(unit_variance + label_variance);
    Some(Corrected {
        estimate: ((share(hits, count) + specificity - 1.0) / gain).clamp(0.0, 1.0),
        interval: clamped(centre + shift - half, centre + shift + half),
        unit_variance,
        label_variance,
    })
}

/// Units that were drawn for labelling at one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    pub count: u64,
    /// Units that the judge counts to the class.
    pub hit_count: u64,
    pub label_count: u64,
    /// Labelled units of the class that the judge does not count to it, and the other way round.
    pub missed_count: u64,
    pub false_count: u64,
}

/// Counted to every kind of error in every stratum before its variance is taken: with none, a stratum in which no error was seen would
/// count as one in which none can be.
const UNSEEN: f64 = 0.15;

/// The judge's share over all units, moved by the mean error on those that carry a label (prediction-powered inference; Angelopoulos and
/// others, 2023), stratum by stratum. `None` where a stratum has no label.
pub fn rectified(strata: &[Stratum], level: f64) -> Option<Corrected> {
    let total: u64 = strata.iter().map(|stratum| stratum.count).sum();
    if total == 0
        || strata
            .iter()
            .any(|stratum| stratum.count > 0 && stratum.label_count == 0)
    {
        return None;
    }
    let (mut estimate, mut label_variance) = (0.0, 0.0);
    for stratum in strata.iter().filter(|stratum| stratum.count > 0) {
        let weight = stratum.count as f64 / total as f64;
        let labels = stratum.label_count as f64;
        let (missed, false_) = (stratum.missed_count as f64, stratum.false_count as f64);
        estimate += (stratum.hit_count as f64 + stratum.count as f64 * (missed - false_) / labels) / total as f64;
        let padded = labels + 4.0 * UNSEEN;
        let variance = (missed + false_ + 2.0 * UNSEEN) / padded - ((missed - false_) / padded).powi(2);
        let unlabelled = 1.0 - labels / stratum.count as f64;
        label_variance += weight * weight * variance / padded * unlabelled;
    }
    let estimate = estimate.clamp(0.0, 1.0);
    let unit_variance = estimate * (1.0 - estimate) / total as f64;
    let half = normal_quantile(0.5 + level / 2.0) * libm::sqrt(unit_variance + label_variance);
    Some(Corrected {
        estimate,
        interval: clamped(estimate - half, estimate + half),
        unit_variance,
        label_variance,
    })
}

fn clamped(low: f64, high: f64) -> Interval {
    Interval {
        low: low.clamp(0.0, 1.0),
        high: high.clamp(0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn a_perfect_judge_is_not_corrected() {
        let perfect = Accuracy {
            true_positive: 500,
            positive: 500,
            true_negative: 500,
            negative: 500,
        };
        near(rogan_gladen(30, 100, &perfect, 0.95).unwrap().estimate, 0.3);
        let stratum = Stratum {
            count: 100,
            hit_count: 30,
            label_count: 100,
            ..Stratum::default()
        };
        let all = rectified(&[stratum], 0.95).unwrap();
        near(all.estimate, 0.3);
        // With every unit labelled, the interval is that of the share alone.
        near(
            all.interval.high - all.interval.low,
            2.0 * 1.959963984540054 * (0.21f64 / 100.0).sqrt(),
        );
        assert_eq!(all.labels_to_halve(100), None);
    }

    #[test]
    fn the_closed_form_of_rogan_and_gladen() {
        let accuracy = Accuracy {
            true_positive: 90,
            positive: 100,
            true_negative: 190,
            negative: 200,
        };
        // (0.2 + 0.95 - 1) / (0.9 + 0.95 - 1)
        near(rogan_gladen(20, 100, &accuracy, 0.95).unwrap().estimate, 0.15 / 0.85);
        let chance = Accuracy {
            true_positive: 50,
            true_negative: 100,
            ..accuracy
        };
        assert_eq!(rogan_gladen(20, 100, &chance, 0.95), None);
        assert_eq!(rogan_gladen(0, 0, &accuracy, 0.95), None);
    }

    #[test]
    fn the_closed_form_of_a_rectified_share() {
        let strata = [
            Stratum {
                count: 8000,
                hit_count: 0,
                label_count: 20,
                missed_count: 2,
                false_count: 0,
            },
            Stratum {
                count: 2000,
                hit_count: 2000,
                label_count: 10,
                missed_count: 0,
                false_count: 5,
            },
        ];
        // 0.2 + 0.8 · 0.1 − 0.2 · 0.5
        near(rectified(&strata, 0.95).unwrap().estimate, 0.18);
        let unlabelled = Stratum {
            count: 1,
            ..Stratum::default()
        };
        assert_eq!(rectified(&[strata[0], unlabelled], 0.95), None);
        assert!(
            rectified(&strata, 0.95)
                .unwrap()
                .labels_to_halve(30)
                .is_some_and(|labels| labels > 120)
        );
    }

    /// How often the interval holds the truth, over made worlds.
    fn coverage(worlds: u64, truth: f64, interval: impl Fn(u64) -> Interval) -> f64 {
        let holds = |world: u64| {
            let interval = interval(world);
            interval.low <= truth && truth <= interval.high
        };
        (0..worlds).filter(|world| holds(*world)).count() as f64 / worlds as f64
    }

    fn drawn(rng: &Rng, unit: u64, start: u64, count: u64, probability: f64) -> u64 {
        (start..start + count)
            .filter(|position| rng.uniform(unit, *position) < probability)
            .count() as u64
    }

    #[test]
    fn the_interval_of_rogan_and_gladen_holds_the_truth_in_95_of_100_worlds() {
        for (truth, se, sp, count, positive, negative) in [
            (0.05, 0.95, 0.97, 250, 200, 250),
            (0.3, 0.9, 0.95, 250, 200, 250),
            (0.6, 0.97, 0.95, 1000, 300, 300),
        ] {
            let rng = Rng::new(1, "rogan-gladen");
            let found = coverage(4000, truth, |world| {
                let ill = drawn(&rng, world, 0, count, truth);
                let hits = drawn(&rng, world, 10_000, ill, se) + drawn(&rng, world, 20_000, count - ill, 1.0 - sp);
                let accuracy = Accuracy {
                    true_positive: drawn(&rng, world, 30_000, positive, se),
                    positive,
                    true_negative: drawn(&rng, world, 40_000, negative, sp),
                    negative,
                };
                rogan_gladen(hits, count, &accuracy, 0.95).unwrap().interval
            });
            assert!((found - 0.95).abs() <= 0.01, "{truth}: {found}");
        }
    }

    #[test]
    fn the_interval_of_a_rectified_share_holds_the_truth_in_95_of_100_worlds() {
        for (truth, se, sp, count, labels) in [
            (0.3, 0.9, 0.95, 450u64, 100u64),
            (0.2, 0.9, 0.9, 300, 150),
            (0.1, 0.85, 0.97, 450, 150),
        ] {
            let rng = Rng::new(2, "rectified");
            let found = coverage(4000, truth, |world| {
                let mut strata = [Stratum::default(); 2];
                for unit in 0..count {
                    let is_ill = rng.uniform(world, unit) < truth;
                    let share = if is_ill { se } else { 1.0 - sp };
                    let is_hit = rng.uniform(world, 10_000 + unit) < share;
                    let stratum = &mut strata[usize::from(is_hit)];
                    stratum.count += 1;
                    stratum.hit_count += u64::from(is_hit);
                    // The units come in no order, so the first of a stratum are a draw of it.
                    if stratum.label_count < labels / 2 {
                        stratum.label_count += 1;
                        stratum.missed_count += u64::from(is_ill && !is_hit);
                        stratum.false_count += u64::from(!is_ill && is_hit);
                    }
                }
                rectified(&strata, 0.95).unwrap().interval
            });
            assert!((found - 0.95).abs() <= 0.01, "{truth}: {found}");
        }
    }
}

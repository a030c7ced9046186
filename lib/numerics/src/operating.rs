//! One threshold for several groups of scores: how well each group's sides are told apart at it, and how unevenly.

/// The scores of a group, by what is true of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    pub positive: Vec<f64>,
    pub negative: Vec<f64>,
}

impl Scores {
    /// Harmonic mean of sensitivity and specificity, where a score from `threshold` on counts as positive. `None` where a side is empty.
    pub fn utility(&self, threshold: f64) -> Option<f64> {
        let hit_count = self.positive.iter().filter(|score| **score >= threshold).count();
        let spared_count = self.negative.iter().filter(|score| **score < threshold).count();
        let sensitivity = share(hit_count, self.positive.len())?;
        let specificity = share(spared_count, self.negative.len())?;
        match sensitivity + specificity {
            0.0 => Some(0.0),
            sum => Some(2.0 * sensitivity * specificity / sum),
        }
    }

    /// How likely a positive scores above a negative, a tie counting one half. `None` where a side is empty.
    pub fn auroc(&self) -> Option<f64> {
        let mut negative = self.negative.clone();
        negative.sort_by(f64::total_cmp);
        let won = |score: &f64| {
            let below = negative.partition_point(|other| other < score);
            let not_above = negative.partition_point(|other| other <= score);
            (below + not_above) as f64 / 2.0
        };
        let pair_count = self.positive.len() * negative.len();
        (pair_count > 0).then(|| self.positive.iter().map(won).sum::<f64>() / pair_count as f64)
    }

    /// The lowest threshold at which no more than `rate` of the negatives count as positive. `None` without negatives.
    pub fn threshold(&self, rate: f64) -> Option<f64> {
        let mut negative = self.negative.clone();
        negative.sort_by(|one, other| other.total_cmp(one));
        let allowed_count = (rate * negative.len() as f64) as usize;
        negative.get(allowed_count).map(|score| score.next_up())
    }
}

/// The operating-point inconsistency score: how far the groups' utilities lie from their mean, squared, over groups and thresholds.
/// `None` without either, or where a group lacks a side.
pub fn inconsistency(groups: &[Scores], thresholds: &[f64]) -> Option<f64> {
    let at = |threshold: &f64| {
        let utilities: Option<Vec<f64>> = groups.iter().map(|group| group.utility(*threshold)).collect();
        variance(&utilities?)
    };
    let spreads: Option<Vec<f64>> = thresholds.iter().map(at).collect();
    crate::statistics::mean(&spreads?)
}

fn variance(values: &[f64]) -> Option<f64> {
    let mean = crate::statistics::mean(values)?;
    let squares: Vec<f64> = values.iter().map(|value| (value - mean) * (value - mean)).collect();
    crate::statistics::mean(&squares)
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(positive: &[f64], negative: &[f64]) -> Scores {
        Scores {
            positive: positive.to_vec(),
            negative: negative.to_vec(),
        }
    }

    #[test]
    fn a_group_is_as_good_as_its_worse_side_allows() {
        let group = scores(&[1.0, 2.0, 3.0, 4.0], &[0.0, 2.0]);
        // 3 of 4 and 1 of 2.
        assert_eq!(group.utility(2.0), Some(0.6));
        assert_eq!(group.utility(9.0), Some(0.0));
        assert_eq!(scores(&[1.0], &[]).utility(0.0), None);
        // Of 8 pairs 6 are won and 1 is a tie.
        assert_eq!(group.auroc(), Some(6.5 / 8.0));
        assert_eq!(scores(&[], &[1.0]).auroc(), None);
    }

    #[test]
    fn a_threshold_lets_no_more_through_than_its_rate() {
        let group = scores(&[], &[1.0, 2.0, 2.0, 3.0]);
        let let_through = |rate: f64| {
            let threshold = group.threshold(rate).unwrap();
            group.negative.iter().filter(|score| **score >= threshold).count()
        };
        assert_eq!([0.0, 0.25, 0.5, 0.75].map(let_through), [0, 1, 1, 3]);
        assert_eq!(group.threshold(1.0), None);
        assert_eq!(scores(&[1.0], &[]).threshold(0.1), None);
    }

    #[test]
    fn three_groups_at_eleven_thresholds_are_as_uneven_as_numpy_says() {
        // M(1, 30, a)[0, j] = sin(a (j + 1) + 0.1 j) of the golden file, moved up and down by one half.
        let wave = |a: f64, shift: f64| -> Vec<f64> {
            let value = |j: usize| libm::sin(a * (j + 1) as f64 + 0.1 * j as f64) + shift;
            (0..30).map(value).collect()
        };
        let groups = [0.3, 0.45, 0.8].map(|a| scores(&wave(a, 0.5), &wave(a * 1.7, -0.5)));
        let thresholds: Vec<f64> = (0..11).map(|step| -0.5 + 0.1 * step as f64).collect();
        let found = inconsistency(&groups, &thresholds).unwrap();
        assert!((found - 0.0003634365).abs() < 5e-11, "{found}");
    }

    proptest! {
        #[test]
        fn groups_alike_are_even_and_order_changes_nothing(
            positive in prop::collection::vec(-3.0f64..3.0, 1..20),
            negative in prop::collection::vec(-3.0f64..3.0, 1..20),
            threshold in -3.0f64..3.0,
        ) {
            let group = scores(&positive, &negative);
            prop_assert!(inconsistency(&[group.clone(), group.clone()], &[threshold]).unwrap() < 1e-30);
            let other = scores(&negative, &positive);
            let one = inconsistency(&[group.clone(), other.clone()], &[threshold]);
            prop_assert_eq!(one, inconsistency(&[other.clone(), group.clone()], &[threshold]));
            prop_assert!((group.auroc().unwrap() + other.auroc().unwrap() - 1.0).abs() < 1e-12);
        }
    }
}

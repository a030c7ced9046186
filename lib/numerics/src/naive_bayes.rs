//! Multinomial naive Bayes between a class and its contrary: examples are bags of features, which are numbers below a count.

/// What an example says for the class, feature by feature.
#[derive(Clone, Debug)]
pub struct NaiveBayes {
    prior: f64,
    /// Of a feature that only the other class has, below zero.
    weights: Vec<f64>,
}

/// Added to the count of every feature in every class.
const SMOOTHING: f64 = 1.0;

impl NaiveBayes {
    /// From examples and whether each is of the class; `None` where one side has no example.
    ///
    /// # Panics
    /// Where a feature is not below `feature_count`.
    pub fn fit<'e>(examples: impl IntoIterator<Item = (&'e [u32], bool)>, feature_count: usize) -> Option<NaiveBayes> {
        let (mut yes, mut no) = (Side::new(feature_count), Side::new(feature_count));
        for (features, is_of_it) in examples {
            if is_of_it { &mut yes } else { &mut no }.add(features);
        }
        if yes.example_count == 0.0 || no.example_count == 0.0 {
            return None;
        }
        let weight = |(yes, no): (f64, f64)| yes - no;
        Some(NaiveBayes {
            prior: libm::log(yes.example_count / no.example_count),
            weights: yes.log_shares().zip(no.log_shares()).map(weight).collect(),
        })
    }

    /// ln(P(class) / P(contrary)) of an example.
    pub fn log_odds(&self, features: &[u32]) -> f64 {
        let weights = features.iter().map(|feature| self.weights[*feature as usize]);
        self.prior + weights.sum::<f64>()
    }
}

/// Counts of one class.
struct Side {
    example_count: f64,
    counts: Vec<f64>,
}

impl Side {
    fn new(feature_count: usize) -> Side {
        Side {
            example_count: 0.0,
            counts: vec![0.0; feature_count],
        }
    }

    fn add(&mut self, features: &[u32]) {
        self.example_count += 1.0;
        for feature in features {
            self.counts[*feature as usize] += 1.0;
        }
    }

    fn log_shares(&self) -> impl Iterator<Item = f64> {
        let total = self.counts.iter().sum::<f64>() + SMOOTHING * self.counts.len() as f64;
        self.counts
            .iter()
            .map(move |count| libm::log((count + SMOOTHING) / total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// scikit-learn 1.9.1: `MultinomialNB().fit(X, y).predict_joint_log_proba(X)`, its second column less its first, where X counts the
    /// features of these examples.
    #[test]
    fn log_odds_are_those_of_scikit_learn() {
        let examples: [(&[u32], bool); 5] = [
            (&[0, 1, 1], true),
            (&[0, 2], true),
            (&[3, 2], false),
            (&[3, 3, 4], false),
            (&[4], false),
        ];
        let model = NaiveBayes::fit(examples, 5).unwrap();
        let wanted = [
            3.176302297309139,
            0.8837675401685949,
            -1.6011391096194059,
            -3.990735579603081,
            -1.4087672169719496,
        ];
        for ((features, _), wanted) in examples.iter().zip(wanted) {
            assert!((model.log_odds(features) - wanted).abs() < 1e-12);
        }
        assert!(NaiveBayes::fit([(&[0][..], true)], 1).is_none());
    }

    proptest! {
        #[test]
        fn the_contrary_has_the_contrary_odds(
            examples in prop::collection::vec((prop::collection::vec(0u32..6, 0..8), any::<bool>()), 2..20),
            asked in prop::collection::vec(0u32..6, 0..8),
        ) {
            let fit = |turned: bool| {
                NaiveBayes::fit(examples.iter().map(|(features, is_of_it)| (features.as_slice(), is_of_it ^ turned)), 6)
            };
            if let (Some(one), Some(other)) = (fit(false), fit(true)) {
                prop_assert!((one.log_odds(&asked) + other.log_odds(&asked)).abs() < 1e-9);
            }
        }
    }
}

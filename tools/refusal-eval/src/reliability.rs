//! Whether a judge is right as often as it says: its verdicts by the confidence they state.

use serde::Serialize;

/// Upper ends of the bins: narrow where most verdicts are.
const ENDS: [f64; 7] = [0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0];

/// Verdicts with a confidence, binned.
#[derive(Clone, Debug, Default)]
pub struct Reliability {
    bins: [Bin; ENDS.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: u64,
    right_count: u64,
    confidence_sum: f64,
}

/// A bin of the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Mean of what was stated.
    pub confidence: f64,
    /// Share of what was right.
    pub accuracy: f64,
    pub count: u64,
}

impl Reliability {
    pub fn add(&mut self, confidence: f64, is_right: bool) {
        let index = ENDS.iter().position(|end| confidence <= *end).unwrap_or(ENDS.len() - 1);
        let bin = &mut self.bins[index];
        bin.count += 1;
        bin.right_count += u64::from(is_right);
        bin.confidence_sum += confidence;
    }

    /// The bins that hold something, from low to high.
    pub fn levels(&self) -> Vec<Level> {
        let level = |bin: &Bin| Level {
            confidence: bin.confidence_sum / bin.count as f64,
            accuracy: bin.right_count as f64 / bin.count as f64,
            count: bin.count,
        };
        self.bins.iter().filter(|bin| bin.count > 0).map(level).collect()
    }

    /// Mean distance between what was stated and what was right, weighted by count; none without verdicts.
    pub fn error(&self) -> Option<f64> {
        let levels = self.levels();
        let count: u64 = levels.iter().map(|level| level.count).sum();
        let gap = |level: &Level| level.count as f64 * (level.confidence - level.accuracy).abs();
        (count > 0).then(|| levels.iter().map(gap).sum::<f64>() / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_holds_what_was_stated_beside_what_was_right() {
        let mut reliability = Reliability::default();
        for (confidence, is_right) in [(0.55, true), (0.59, false), (0.99, true), (1.0, true)] {
            reliability.add(confidence, is_right);
        }
        let levels = reliability.levels();
        assert_eq!(levels.len(), 2);
        assert!((levels[0].confidence - 0.57).abs() < 1e-12 && levels[0].accuracy == 0.5 && levels[0].count == 2);
        assert!((levels[1].confidence - 0.995).abs() < 1e-12 && levels[1].accuracy == 1.0);
        // (2 · 0.07 + 2 · 0.005) / 4
        assert!((reliability.error().unwrap() - 0.0375).abs() < 1e-12);
        assert_eq!(Reliability::default().error(), None);
    }
}

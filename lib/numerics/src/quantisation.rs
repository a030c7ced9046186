//! What is lost when numbers are stored as eight-bit integers with one scale.

use crate::exact::ExactSum;
use crate::keys::Number;
use crate::magnitudes::Magnitudes;
use products::wide;
use serde::{Deserialize, Serialize};

/// The largest code.
const CODE_MAX: f64 = 127.0;

/// One scale: magnitudes up to the limit have codes, those beyond are clipped to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    limit: f64,
    step: f64,
}

impl Scale {
    /// `None` for a limit of zero, or one that is not finite: there is no such scale.
    pub fn new(limit: f64) -> Option<Scale> {
        let step = limit / CODE_MAX;
        (step > 0.0 && limit.is_finite()).then_some(Scale { limit, step })
    }

    /// The magnitude with the last code.
    pub fn limit(self) -> f64 {
        self.limit
    }

    /// How far the magnitude that is read back lies from the one that was stored.
    #[inline(always)]
    fn error(self, magnitude: f64) -> f64 {
        let clipped = if magnitude > self.limit { self.limit } else { magnitude };
        ((clipped / self.step).round_ties_even().min(CODE_MAX) * self.step - magnitude).abs()
    }
}

/// Sums over numbers that were stored so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    count: u64,
    clipped_count: u64,
    error: ExactSum,
    square_error: ExactSum,
    magnitude: ExactSum,
    square: ExactSum,
}

/// Mean losses; a measure that divides by zero is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Mean |error|.
    pub mae: f64,
    pub rmse: f64,
    /// Over mean |x| and root mean square.
    pub relative_mae: Option<f64>,
    pub relative_rmse: Option<f64>,
    /// 10 log10(Σx²/Σerror²).
    pub sqnr_db: Option<f64>,
    pub clip_share: f64,
}

impl Losses {
    pub fn add<T: Number>(&mut self, row: &[T], scale: Scale) {
        let ([error, square_error, magnitude, square], clipped) = sums(row, scale);
        self.count += row.len() as u64;
        self.clipped_count += clipped;
        self.error.add(error);
        self.square_error.add(square_error);
        self.magnitude.add(magnitude);
        self.square.add(square);
    }

    /// Of all numbers counted; exact where the counts are complete.
    pub fn of(magnitudes: &Magnitudes, scale: Scale) -> Losses {
        let mut losses = Losses::default();
        for (magnitude, count) in magnitudes.values() {
            let error = scale.error(magnitude);
            losses.count += count;
            losses.clipped_count += if magnitude > scale.limit { count } else { 0 };
            losses.error.add(count as f64 * error);
            losses.square_error.add(count as f64 * error * error);
            losses.magnitude.add(count as f64 * magnitude);
            losses.square.add(count as f64 * magnitude * magnitude);
        }
        losses
    }

    pub fn merge(&mut self, other: &Losses) {
        self.count += other.count;
        self.clipped_count += other.clipped_count;
        self.error.merge(&other.error);
        self.square_error.merge(&other.square_error);
        self.magnitude.merge(&other.magnitude);
        self.square.merge(&other.square);
    }

    /// `None` for no numbers.
    pub fn mean(&self) -> Option<Loss> {
        let count = self.count as f64;
        let [error, square_error, magnitude, square] =
            [&self.error, &self.square_error, &self.magnitude, &self.square].map(ExactSum::value);
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        (self.count > 0).then(|| Loss {
            mae: error / count,
            rmse: libm::sqrt(square_error / count),
            relative_mae: ratio(error, magnitude),
            relative_rmse: ratio(square_error, square).map(libm::sqrt),
            sqnr_db: ratio(square, square_error).map(|ratio| 10.0 * libm::log10(ratio)),
            clip_share: self.clipped_count as f64 / count,
        })
    }
}

/// Σ|error|, Σerror², Σ|x| and Σx² of a row over lanes of a fixed order, and how many numbers are clipped.
fn sums<T: Number>(row: &[T], scale: Scale) -> ([f64; 4], u64) {
    const LANES: usize = 8;
    wide!({
        let mut lanes = [[0.0_f64; LANES]; 4];
        let mut clipped = [0_u64; LANES];
        let mut take = |lane: usize, x: T| {
            let magnitude = x.wide().abs();
            let error = scale.error(magnitude);
            lanes[0][lane] += error;
            lanes[1][lane] += error * error;
            lanes[2][lane] += magnitude;
            lanes[3][lane] += magnitude * magnitude;
            clipped[lane] = clipped[lane].wrapping_add(u64::from(magnitude > scale.limit));
        };
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in chunk.iter().enumerate() {
                take(lane, *x);
            }
        }
        for (lane, x) in rest.iter().enumerate() {
            take(lane, *x);
        }
        (lanes.map(|lane| lane.iter().sum()), clipped.iter().sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use proptest::prelude::*;

    #[test]
    fn codes_are_exact_and_what_is_beyond_is_clipped() {
        let mut losses = Losses::default();
        losses.add(&[127.0_f64, -3.0, 200.0, 0.5, 1.5], Scale::new(127.0).unwrap());
        let mean = losses.mean().unwrap();
        // 200 is clipped by 73; a half goes to the even code.
        assert_eq!((mean.mae, mean.clip_share), ((73.0 + 0.5 + 0.5) / 5.0, 0.2));
    }

    #[test]
    fn zeros_have_no_scale_and_no_ratio() {
        assert_eq!(Scale::new(0.0), None);
        let mut losses = Losses::default();
        losses.add(&[0.0_f32; 4], Scale::new(1.0).unwrap());
        let mean = losses.mean().unwrap();
        assert_eq!((mean.mae, mean.relative_mae, mean.sqnr_db), (0.0, None, None));
    }

    proptest! {
        #[test]
        fn counts_of_short_floats_say_the_same_as_the_numbers(
            values in proptest::collection::vec(-100.0_f32..100.0, 1..60), limit in 0.5_f64..120.0,
        ) {
            let short: Vec<f32> = values.iter().map(|x| f32::from_bits(x.to_bits() & !0xffff)).collect();
            let mut keys = Keys::default();
            keys.fill(&short);
            let mut magnitudes = Magnitudes::default();
            magnitudes.add(&keys);
            let scale = Scale::new(limit).unwrap();
            let mut losses = Losses::default();
            losses.add(&short, scale);
            let (seen, counted) = (losses.mean().unwrap(), Losses::of(&magnitudes, scale).mean().unwrap());
            prop_assert!((seen.mae - counted.mae).abs() <= 1e-12 * seen.mae.max(1e-300));
            prop_assert!((seen.rmse - counted.rmse).abs() <= 1e-12 * seen.rmse.max(1e-300));
            prop_assert_eq!(seen.clip_share, counted.clip_share);
        }
    }
}

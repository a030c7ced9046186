//! Sums without rounding, so that parts may be added in any order: however data are divided, the total has the same bits.

use serde::{Deserialize, Serialize};

/// Σ of f64s as an expansion: numbers of ascending size that do not overlap and whose sum is exact (Shewchuk 1997).
///
/// Sums beyond the range of f64 are not finite, and stay so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub struct ExactSum {
    parts: Vec<f64>,
}

impl ExactSum {
    pub fn add(&mut self, value: f64) {
        let mut carried = value;
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let (sum, error) = two_sum(carried, self.parts[at]);
            if error != 0.0 {
                self.parts[kept] = error;
                kept += 1;
            }
            carried = sum;
        }
        self.parts.truncate(kept);
        self.parts.push(carried);
    }

    pub fn merge(&mut self, other: &ExactSum) {
        other.parts.iter().for_each(|part| self.add(*part));
    }

    /// The sum, rounded once, ties to even.
    pub fn value(&self) -> f64 {
        let mut descending = self.parts.iter().rev().copied();
        let Some(mut sum) = descending.next() else { return 0.0 };
        let mut error = 0.0;
        for part in descending.by_ref() {
            (sum, error) = two_sum(sum, part);
            if error != 0.0 {
                break;
            }
        }
        // What is left lies below `error`; it decides where `error` is exactly half a unit of the sum.
        let below = descending.next().unwrap_or(0.0);
        if error * below > 0.0 {
            let doubled = 2.0 * error;
            let rounded = sum + doubled;
            if rounded - sum == doubled {
                return rounded;
            }
        }
        sum
    }
}

impl From<ExactSum> for Vec<f64> {
    fn from(sum: ExactSum) -> Self {
        sum.parts
    }
}

impl From<Vec<f64>> for ExactSum {
    fn from(values: Vec<f64>) -> Self {
        let mut sum = ExactSum::default();
        values.into_iter().for_each(|value| sum.add(value));
        sum
    }
}

/// The rounded sum of two numbers, and what rounding took from it.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let (large, small) = if a.abs() < b.abs() { (b, a) } else { (a, b) };
    let sum = large + small;
    (sum, small - (sum - large))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> f64 {
        let mut total = ExactSum::default();
        values.iter().for_each(|value| total.add(*value));
        total.value()
    }

    #[test]
    fn what_rounding_loses_is_kept() {
        assert_eq!(sum(&[]), 0.0);
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[1.0, f64::EPSILON / 2.0, f64::EPSILON / 2.0]), 1.0 + f64::EPSILON);
    }

    #[test]
    fn a_tie_is_broken_by_what_lies_below_it() {
        let half = f64::EPSILON / 2.0;
        assert_eq!(sum(&[1.0, half]), 1.0);
        assert_eq!(sum(&[1.0, half, 1e-40]), 1.0 + f64::EPSILON);
        assert_eq!(sum(&[1.0, half, -1e-40]), 1.0);
    }

    proptest! {
        #[test]
        fn order_and_division_change_no_bit(
            values in proptest::collection::vec((-1.0_f64..1.0, -60_i32..60), 1..60), cut in 0_usize..60, turn in 0_usize..60,
        ) {
            let mut values: Vec<f64> = values.into_iter().map(|(x, power)| x * 2_f64.powi(power)).collect();
            let whole = sum(&values);
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut parts = [ExactSum::default(), ExactSum::default()];
            for (part, values) in parts.iter_mut().zip([right, left]) {
                values.iter().for_each(|value| part.add(*value));
            }
            let [mut first, second] = parts;
            first.merge(&second);
            prop_assert_eq!(first.value(), whole);
            let turn = turn % values.len();
            values.rotate_left(turn);
            prop_assert_eq!(sum(&values), whole);
        }
    }
}

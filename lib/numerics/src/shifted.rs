//! Sums of rows about a shift near their mean: what a device has summed in f32 is gathered here in f64, and brought to any other centre.
//!
//! The shift keeps a large common mean out of the f32 products. [`crate::moments`] does better where it sees the rows themselves.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};

#[derive(Clone, Debug)]
pub struct Shifted {
    shift: Vec<f64>,
    count: usize,
    /// Σ(x − shift).
    sum: Vec<f64>,
    /// Σ(x − shift)(x − shift)ᵀ.
    second: Array2<f64>,
}

impl Shifted {
    pub fn new(shift: &[f32]) -> Self {
        Self {
            shift: shift.iter().map(|&x| f64::from(x)).collect(),
            count: 0,
            sum: vec![0.0; shift.len()],
            second: Array2::zeros((shift.len(), shift.len())),
        }
    }

    /// Adds what `count` rows less the shift sum up to: Σy and Σyyᵀ.
    pub fn add(&mut self, count: usize, sum: &[f32], second: ArrayView2<'_, f32>) {
        assert_eq!(sum.len(), self.sum.len(), "sums as wide as the shift");
        self.count += count;
        self.sum
            .iter_mut()
            .zip(sum)
            .for_each(|(into, &x)| *into += f64::from(x));
        Zip::from(&mut self.second)
            .and(&second)
            .for_each(|into, &x| *into += f64::from(x));
    }

    /// Goes on from sums that were taken apart.
    pub fn of_sums(shift: &[f32], count: usize, sum: Vec<f64>, second: Array2<f64>) -> Self {
        assert!(
            sum.len() == shift.len() && second.dim() == (sum.len(), sum.len()),
            "sums as wide as the shift"
        );
        Self {
            count,
            sum,
            second,
            ..Self::new(shift)
        }
    }

    /// Σ(x − shift) and Σ(x − shift)(x − shift)ᵀ.
    pub fn sums(&self) -> (&[f64], &Array2<f64>) {
        (&self.sum, &self.second)
    }

    /// Adds rows that were summed about another shift.
    pub fn merge(&mut self, other: &Self) {
        // with a from this shift to the other, x − s = (x − t) + a
        let count = other.count as f64;
        let apart: Vec<f64> = other.shift.iter().zip(&self.shift).map(|(t, s)| t - s).collect();
        Zip::indexed(&mut self.second)
            .and(&other.second)
            .for_each(|(i, j), into, second| {
                let crossed = apart[i] * other.sum[j] + other.sum[i] * apart[j];
                *into += second + (crossed + count * (apart[i] * apart[j]));
            });
        let sums = self.sum.iter_mut().zip(&other.sum).zip(&apart);
        sums.for_each(|((into, sum), apart)| *into += sum + count * apart);
        self.count += other.count;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn mean(&self) -> Vec<f64> {
        let count = self.count as f64;
        self.shift
            .iter()
            .zip(&self.sum)
            .map(|(shift, sum)| shift + sum / count)
            .collect()
    }

    /// Adds Σ(x − centre)(x − centre)ᵀ to `into`. `mean` is the rows' own: [`Self::mean`], or one that was found from the rows themselves.
    pub fn add_scatter(&self, mean: &[f64], centre: &[f64], mut into: ArrayViewMut2<'_, f64>) {
        let count = self.count as f64;
        // second − n·(m − s)(m − s)ᵀ + n·(m − c)(m − c)ᵀ, m the mean
        let less = |from: &[f64]| -> Vec<f64> { mean.iter().zip(from).map(|(m, x)| m - x).collect() };
        let (own, apart) = (less(&self.shift), less(centre));
        Zip::indexed(&mut into)
            .and(&self.second)
            .for_each(|(i, j), into, second| {
                *into += second + count * (apart[i] * apart[j] - own[i] * own[j]);
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    proptest! {
        /// Rows summed about two shifts and put together have the mean and scatter of all of them.
        #[test]
        fn sums_about_different_shifts_merge(left in 1_usize..9, right in 1_usize..9, width in 1_usize..6, seed: u64) {
            let rng = Rng::new(seed, "merge test");
            let rows = Array2::from_shape_fn((left + right, width), |(i, j)| 20.0 + rng.normal(i as u64, j as u64) as f32);
            let (first, second) = rows.view().split_at(ndarray::Axis(0), left);
            let summed = |part: ArrayView2<f32>, shift: f32| {
                let mut sums = Shifted::new(&vec![shift; width]);
                let shifted = part.mapv(|x| x - shift);
                sums.add(part.nrows(), &shifted.sum_axis(ndarray::Axis(0)).to_vec(), shifted.t().dot(&shifted).view());
                sums
            };
            let (mut sums, other) = (summed(first, 19.0), summed(second, 22.0));
            sums.merge(&other);
            let mean = rows.mapv(f64::from).mean_axis(ndarray::Axis(0)).unwrap();
            for (found, exact) in sums.mean().iter().zip(&mean) {
                prop_assert!((found - exact).abs() < 1e-4);
            }
            let mut scatter = Array2::zeros((width, width));
            sums.add_scatter(&sums.mean(), &sums.mean(), scatter.view_mut());
            let centred = rows.mapv(f64::from) - &mean;
            for (found, exact) in scatter.iter().zip(&centred.t().dot(&centred)) {
                prop_assert!((found - exact).abs() < 1e-3, "{} {}", found, exact);
            }
            let (sum, moments) = sums.sums();
            let again = Shifted::of_sums(&vec![19.0; width], sums.count(), sum.to_vec(), moments.clone());
            prop_assert_eq!(again.mean(), sums.mean());
        }

        /// However rows are cut into parts, and whatever the shift, mean and scatter are those of the definition.
        #[test]
        fn mean_and_scatter_are_those_of_the_rows(
            parts in prop::collection::vec(1_usize..9, 1..5), width in 1_usize..6, seed: u64, offset in -50.0_f32..50.0,
        ) {
            let rng = Rng::new(seed, "shifted test");
            let count: usize = parts.iter().sum();
            let rows = Array2::from_shape_fn((count, width), |(i, j)| offset + rng.normal(i as u64, j as u64) as f32);
            let mut sums = Shifted::new(&vec![offset; width]);
            let mut rest = rows.view();
            for part in parts {
                let (here, after) = rest.split_at(ndarray::Axis(0), part);
                let shifted = here.mapv(|x| x - offset);
                let sum = shifted.sum_axis(ndarray::Axis(0)).to_vec();
                sums.add(part, &sum, shifted.t().dot(&shifted).view());
                rest = after;
            }
            let rows = rows.mapv(f64::from);
            prop_assert_eq!(sums.count(), count);
            for (found, exact) in sums.mean().iter().zip(rows.mean_axis(ndarray::Axis(0)).unwrap()) {
                prop_assert!((found - exact).abs() < 1e-4);
            }
            let centre = vec![f64::from(offset) + 0.5; width];
            let mut scatter = Array2::ones((width, width));
            sums.add_scatter(&sums.mean(), &centre, scatter.view_mut());
            let centred = rows - &ndarray::Array1::from(centre);
            for (found, exact) in scatter.iter().zip(&centred.t().dot(&centred)) {
                prop_assert!((found - 1.0 - exact).abs() < 1e-3, "{} {}", found, exact);
            }
        }
    }
}

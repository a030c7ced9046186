//! What rows of activations are like, number by number: sums, extremes and where they stand, how far a row's largest magnitude lies
//! above its median, and counts of all magnitudes.
//!
//! Rows are seen once. Sums are exact, and everything else is a count or an extreme under a total order: however rows are divided and in
//! whatever order the parts are merged, the result has the same bits.

use crate::exact::ExactSum;
use crate::keys::{Key, Keys, Number};
use crate::magnitudes::Magnitudes;
use products::wide;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Which row. Earlier ones win ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub sample: u64,
    /// Within what the source holds.
    pub row: u64,
    pub source: u32,
}

/// One number and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extreme {
    pub value: f64,
    pub place: Place,
    pub dim: u32,
}

impl Extreme {
    /// Larger magnitudes first, then earlier places.
    fn rank(&self, other: &Extreme) -> Ordering {
        let place = |extreme: &Extreme| (extreme.place, extreme.dim);
        let magnitudes = other.value.abs().total_cmp(&self.value.abs());
        magnitudes.then_with(|| place(self).cmp(&place(other)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Extremes to keep, at least one.
    pub top_count: usize,
    /// A massive activation is larger than this …
    pub massive_magnitude: f64,
    /// … and than this many times the lower median magnitude of its row.
    pub massive_ratio: f64,
}

/// Σ and number of what was added.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mean {
    sum: ExactSum,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum.add(value);
        self.count += 1;
    }

    fn merge(&mut self, other: &Mean) {
        self.sum.merge(&other.sum);
        self.count += other.count;
    }

    /// `None` where nothing was added.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.value() / self.count as f64)
    }
}

/// Of a set of rows. Written down, it may be read and merged elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    settings: Settings,
    pub row_count: u64,
    pub count: u64,
    sum: ExactSum,
    magnitude_sum: ExactSum,
    square_sum: ExactSum,
    pub max: f64,
    pub min: f64,
    /// The largest magnitudes, descending.
    pub top: Vec<Extreme>,
    /// Of rows whose median magnitude is not zero.
    pub ratio: Mean,
    pub ratio_max: Option<f64>,
    /// Largest ratio of each sample.
    pub sample_ratio: Mean,
    /// Rows with a massive activation.
    pub massive_row_count: u64,
    /// How many massive activations each dimension has.
    pub massive_dims: BTreeMap<u32, u64>,
    pub magnitudes: Magnitudes,
    #[serde(skip)]
    sample: Sample,
}

/// The sample whose rows are being pushed.
#[derive(Clone, Debug, Default)]
struct Sample {
    magnitude: f64,
    ratio: Option<f64>,
}

impl Activity {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            row_count: 0,
            count: 0,
            sum: ExactSum::default(),
            magnitude_sum: ExactSum::default(),
            square_sum: ExactSum::default(),
            max: f64::NEG_INFINITY,
            min: f64::INFINITY,
            top: Vec::new(),
            ratio: Mean::default(),
            ratio_max: None,
            sample_ratio: Mean::default(),
            massive_row_count: 0,
            massive_dims: BTreeMap::new(),
            magnitudes: Magnitudes::default(),
            sample: Sample::default(),
        }
    }

    /// Adds a row of finite numbers, at least one. `keys` is only room to work in.
    pub fn push<T: Number>(&mut self, row: &[T], place: Place, keys: &mut Keys<T::Key>) {
        let sums = sums(row);
        self.row_count += 1;
        self.count += row.len() as u64;
        self.sum.add(sums.sum);
        self.magnitude_sum.add(sums.magnitude);
        self.square_sum.add(sums.square);
        self.max = self.max.max(sums.max);
        self.min = self.min.min(sums.min);
        let magnitude = sums.max.max(-sums.min);
        self.sample.magnitude = self.sample.magnitude.max(magnitude);
        self.keep_extremes(row, magnitude, place);
        keys.fill(row);
        self.compare_with_median(row, magnitude, keys.lower_median().magnitude());
        self.magnitudes.add(keys);
    }

    /// Ends a sample, and gives its largest magnitude.
    pub fn end_sample(&mut self) -> f64 {
        let sample = std::mem::take(&mut self.sample);
        if let Some(ratio) = sample.ratio {
            self.sample_ratio.add(ratio);
        }
        sample.magnitude
    }

    fn keep_extremes<T: Number>(&mut self, row: &[T], magnitude: f64, place: Place) {
        let is_full = self.top.len() >= self.settings.top_count;
        let least = self.top.last().filter(|_| is_full).map(|last| last.value.abs());
        if least.is_some_and(|least| magnitude < least) {
            return;
        }
        let large = (0_u32..)
            .zip(row)
            .filter(|(_, x)| least.is_none_or(|least| x.wide().abs() >= least));
        let found = large.map(|(dim, x)| Extreme {
            value: x.wide(),
            place,
            dim,
        });
        self.top.extend(found);
        self.keep_top();
    }

    fn keep_top(&mut self) {
        self.top.sort_unstable_by(Extreme::rank);
        self.top.truncate(self.settings.top_count);
    }

    fn compare_with_median<T: Number>(&mut self, row: &[T], magnitude: f64, median: f64) {
        let Settings {
            massive_magnitude,
            massive_ratio,
            ..
        } = self.settings;
        if median > 0.0 {
            let ratio = magnitude / median;
            self.ratio.add(ratio);
            self.ratio_max = larger(self.ratio_max, Some(ratio));
            self.sample.ratio = larger(self.sample.ratio, Some(ratio));
        }
        let is_massive = |magnitude: f64| magnitude > massive_magnitude && magnitude > massive_ratio * median;
        if is_massive(magnitude) {
            self.massive_row_count += 1;
            for (dim, _) in (0..).zip(row).filter(|(_, x)| is_massive(x.wide().abs())) {
                *self.massive_dims.entry(dim).or_default() += 1;
            }
        }
    }

    /// Adds the rows behind `other`, of other samples.
    pub fn merge(&mut self, other: &Activity) {
        self.row_count += other.row_count;
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.magnitude_sum.merge(&other.magnitude_sum);
        self.square_sum.merge(&other.square_sum);
        self.max = self.max.max(other.max);
        self.min = self.min.min(other.min);
        self.top.extend_from_slice(&other.top);
        self.keep_top();
        self.ratio.merge(&other.ratio);
        self.ratio_max = larger(self.ratio_max, other.ratio_max);
        self.sample_ratio.merge(&other.sample_ratio);
        self.massive_row_count += other.massive_row_count;
        for (dim, count) in &other.massive_dims {
            *self.massive_dims.entry(*dim).or_default() += count;
        }
        self.magnitudes.merge(&other.magnitudes);
    }

    /// Whether its parts can belong together, which what was read must show: there are rows, and as many magnitudes as numbers.
    pub fn is_sound(&self) -> bool {
        self.row_count > 0 && self.count > 0 && self.count == self.magnitudes.count() && !self.top.is_empty()
    }

    pub fn mean(&self) -> f64 {
        self.sum.value() / self.count as f64
    }

    pub fn mean_magnitude(&self) -> f64 {
        self.magnitude_sum.value() / self.count as f64
    }

    pub fn root_mean_square(&self) -> f64 {
        libm::sqrt(self.square_sum.value() / self.count as f64)
    }

    /// Of the whole population.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        libm::sqrt((self.square_sum.value() / self.count as f64 - mean * mean).max(0.0))
    }
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

/// Of one row.
struct Sums {
    sum: f64,
    magnitude: f64,
    square: f64,
    max: f64,
    min: f64,
}

/// Sums and extremes over lanes of a fixed order.
fn sums<T: Number>(row: &[T]) -> Sums {
    const LANES: usize = 16;
    let lanes = wide!({
        let mut lanes = Lanes::<T, LANES>::new(row[0]); // inside, so that it stays in registers
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in chunk.iter().enumerate() {
                lanes.take(lane, *x);
            }
        }
        for (lane, x) in rest.iter().enumerate() {
            lanes.take(lane, *x);
        }
        lanes
    });
    let extreme =
        |lanes: &[T], choose: fn(f64, f64) -> f64| lanes.iter().map(|x| x.wide()).reduce(choose).unwrap_or_default();
    Sums {
        sum: lanes.sum.iter().sum(),
        magnitude: lanes.magnitude.iter().sum(),
        square: lanes.square.iter().sum(),
        max: extreme(&lanes.max, f64::max),
        min: extreme(&lanes.min, f64::min),
    }
}

struct Lanes<T, const LANES: usize> {
    sum: [f64; LANES],
    magnitude: [f64; LANES],
    square: [f64; LANES],
    max: [T; LANES],
    min: [T; LANES],
}

impl<T: Number, const LANES: usize> Lanes<T, LANES> {
    fn new(any: T) -> Self {
        Self {
            sum: [0.0; LANES],
            magnitude: [0.0; LANES],
            square: [0.0; LANES],
            max: [any; LANES],
            min: [any; LANES],
        }
    }

    #[inline(always)]
    fn take(&mut self, lane: usize, x: T) {
        let wide = x.wide();
        self.sum[lane] += wide;
        self.magnitude[lane] += wide.abs();
        self.square[lane] += wide * wide;
        // Always assigned, so that no lane is stored by itself.
        self.max[lane] = if x > self.max[lane] { x } else { self.max[lane] };
        self.min[lane] = if x < self.min[lane] { x } else { self.min[lane] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings {
        top_count: 3,
        massive_magnitude: 100.0,
        massive_ratio: 300.0,
    };

    fn place(row: u64) -> Place {
        Place {
            sample: row / 2,
            row,
            source: 0,
        }
    }

    /// The rows of whole samples, two rows each.
    fn of<T: Number>(rows: &[(u64, Vec<T>)]) -> Activity {
        let mut activity = Activity::new(SETTINGS);
        for (row, values) in rows {
            activity.push(values, place(*row), &mut Keys::default());
            if row % 2 == 1 {
                activity.end_sample();
            }
        }
        activity
    }

    /// The tensor of the listing's golden numbers: sin(0.9·(i+1)(j+1) + 0.1·j), with one massive activation.
    fn golden() -> Vec<(u64, Vec<f64>)> {
        let number = |i: u64, j: u64| libm::sin(0.9 * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64);
        let mut rows: Vec<(u64, Vec<f64>)> = (0..8).map(|i| (i, (0..32).map(|j| number(i, j)).collect())).collect();
        rows[3].1[5] = 250.0;
        rows
    }

    #[test]
    fn a_massive_activation_is_found_with_its_place_and_ratio() {
        let found = of(&golden());
        assert_eq!(
            found.top[0],
            Extreme {
                value: 250.0,
                place: place(3),
                dim: 5
            }
        );
        assert!((found.ratio_max.unwrap() - 325.412930).abs() < 5e-7);
        assert_eq!(
            (found.massive_row_count, &found.massive_dims),
            (1, &BTreeMap::from([(5, 1)]))
        );
        assert_eq!((found.row_count, found.count, found.max), (8, 256, 250.0));
    }

    #[test]
    fn a_row_of_zeros_has_no_ratio() {
        let found = of(&[(0, vec![0.0_f32; 5]), (1, vec![0.0; 5])]);
        assert_eq!(
            (found.ratio.value(), found.ratio_max, found.massive_row_count),
            (None, None, 0)
        );
        assert_eq!((found.deviation(), found.magnitudes.zero_count()), (0.0, 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn parts_merge_to_the_bits_of_the_whole(
            rows in proptest::collection::vec(proptest::collection::vec(-300.0_f32..300.0, 19), 2..20), cut in 0_usize..10,
        ) {
            let rows: Vec<(u64, Vec<f32>)> = (0..).zip(rows).collect();
            let whole = of(&rows);
            let (left, right) = rows.split_at((2 * cut).min(rows.len() / 2 * 2));
            let mut merged = of(right);
            merged.merge(&of(left));
            let numbers = |a: &Activity| [a.mean(), a.mean_magnitude(), a.root_mean_square(), a.deviation(), a.max, a.min];
            prop_assert_eq!(numbers(&merged), numbers(&whole));
            prop_assert_eq!(&merged.top, &whole.top);
            prop_assert_eq!(merged.ratio.value(), whole.ratio.value());
            prop_assert_eq!(merged.sample_ratio.value(), whole.sample_ratio.value());
            prop_assert_eq!(&merged.massive_dims, &whole.massive_dims);
            prop_assert_eq!(merged.magnitudes.log_bins(), whole.magnitudes.log_bins());
        }

        #[test]
        fn sums_are_those_of_the_numbers(row in proptest::collection::vec(-10.0_f32..10.0, 1..70)) {
            let found = of(&[(0, row.clone())]);
            let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let count = wide.len() as f64;
            let mean = wide.iter().sum::<f64>() / count;
            let variance = wide.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
            prop_assert!((found.mean() - mean).abs() < 1e-12);
            prop_assert!((found.deviation() * found.deviation() - variance).abs() < 1e-10);
            prop_assert_eq!(found.max, wide.iter().copied().fold(f64::MIN, f64::max));
            prop_assert_eq!(found.min, wide.iter().copied().fold(f64::MAX, f64::min));
        }
    }
}

//! How large numbers are: counts of |x| in cells so narrow that quantiles, logarithmic histograms, entropy and the error of a
//! quantisation follow from them.
//!
//! A cell is what an f32 keeps of a magnitude in its sixteen leading bits (a bf16), and cut once more where an edge of the logarithmic
//! bins passes through. Of numbers that are bf16s the counts are complete; of others a cell is at most 1/128 of its magnitude wide.

use crate::keys::{Key, Number, Spread};
use products::wide;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Bins of the logarithmic histogram, over 1e-8 .. 1e8.
pub const LOG_BIN_COUNT: usize = 512;
const LOG_LOW: f64 = -8.0;
const LOG_HIGH: f64 = 8.0;

/// Two for each of 2^15 leading bits: below and from the edge that cuts it.
const CELL_COUNT: usize = 1 << 16;

/// By leading bits, the edge inside of what they leave open, or infinity.
static CUTS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut cuts = vec![f64::INFINITY; CELL_COUNT / 2];
    for edge in (0..=LOG_BIN_COUNT).map(log_edge) {
        let leading = edge.key().leading();
        if lower(leading) < edge {
            cuts[usize::from(leading)] = edge;
        }
    }
    cuts
});

/// Lower edge of a logarithmic bin.
pub fn log_edge(bin: usize) -> f64 {
    let share = bin as f64 / LOG_BIN_COUNT as f64;
    libm::pow(10.0, LOG_LOW + share * (LOG_HIGH - LOG_LOW))
}

/// The least magnitude with these leading bits.
fn lower(leading: u16) -> f64 {
    (u32::from(leading) << 16).magnitude()
}

/// Counts of magnitudes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Cells", into = "Cells")]
pub struct Magnitudes {
    counts: Vec<u64>,
    /// The first cell also holds what is too small for a bf16, so zeros are counted by themselves.
    zero_count: u64,
    /// All numbers so far were bf16s.
    is_complete: bool,
}

/// [`Magnitudes`] as they are written down: only cells in which there is something, by number.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cells {
    cells: Vec<(usize, u64)>,
    zero_count: u64,
    is_complete: bool,
}

impl From<Magnitudes> for Cells {
    fn from(magnitudes: Magnitudes) -> Self {
        let counted = magnitudes
            .counts
            .into_iter()
            .enumerate()
            .filter(|(_, count)| *count > 0);
        Self {
            cells: counted.collect(),
            zero_count: magnitudes.zero_count,
            is_complete: magnitudes.is_complete,
        }
    }
}

impl TryFrom<Cells> for Magnitudes {
    type Error = &'static str;

    fn try_from(written: Cells) -> Result<Self, &'static str> {
        let mut magnitudes = Self {
            zero_count: written.zero_count,
            is_complete: written.is_complete,
            ..Self::default()
        };
        let mut total = 0_u64;
        for (cell, count) in written.cells {
            let place = magnitudes.counts.get_mut(cell).ok_or("there is no such cell")?;
            *place = place.checked_add(count).ok_or("too many numbers")?;
            total = total.checked_add(count).ok_or("too many numbers")?;
        }
        match written.zero_count <= total {
            true => Ok(magnitudes),
            false => Err("more zeros than numbers"),
        }
    }
}

/// The logarithmic histogram: what lies below 1e-8 (zeros among it), the bins, and what lies above 1e8.
#[derive(Clone, Debug, PartialEq)]
pub struct LogBins {
    pub below: u64,
    pub bins: Vec<u64>,
    pub above: u64,
}

impl Default for Magnitudes {
    fn default() -> Self {
        Self {
            counts: vec![0; CELL_COUNT],
            zero_count: 0,
            is_complete: true,
        }
    }
}

impl Magnitudes {
    /// Counts the magnitudes with these keys.
    pub fn add<K: Key>(&mut self, keys: &[K], spread: Spread<K>) {
        let zeros = wide!({ keys.iter().map(|key| u32::from(*key == K::NONE)).sum::<u32>() });
        self.zero_count += u64::from(zeros);
        if spread.any.is_leading() {
            for key in keys {
                self.counts[2 * usize::from(key.leading() & 0x7fff)] += 1;
            }
            return;
        }
        self.is_complete = false;
        let cuts = &*CUTS;
        for key in keys {
            let leading = usize::from(key.leading() & 0x7fff);
            self.counts[2 * leading + usize::from(key.magnitude() >= cuts[leading])] += 1;
        }
    }

    pub fn merge(&mut self, other: &Magnitudes) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.zero_count += other.zero_count;
        self.is_complete &= other.is_complete;
    }

    /// Whether a cell stands for one number: then all that follows is exact.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn zero_count(&self) -> u64 {
        self.zero_count
    }

    /// The magnitudes there are, ascending, and how often each occurs; the middle of a cell where it stands for several.
    pub fn values(&self) -> impl Iterator<Item = (f64, u64)> {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(cell, count)| (self.representative(cell), *count))
    }

    fn representative(&self, cell: usize) -> f64 {
        let leading = (cell / 2) as u16;
        if self.is_complete {
            return lower(leading);
        }
        let (low, cut, high) = (lower(leading), CUTS[cell / 2], lower(leading + 1));
        match (cell % 2, high.is_finite()) {
            (0, _) => 0.5 * (low + cut.min(high)).min(f64::from(f32::MAX)),
            (_, true) => 0.5 * (cut + high),
            (_, false) => cut,
        }
    }

    /// The least magnitude that at least this share of the numbers does not exceed; `None` for no numbers.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        assert!((0.0..=1.0).contains(&share), "a quantile lies in 0..1");
        let wanted = libm::ceil(share * self.count() as f64).max(1.0) as u64;
        let mut passed = 0;
        self.values()
            .find(|(_, count)| {
                passed += count;
                passed >= wanted
            })
            .map(|(value, _)| value)
    }

    pub fn log_bins(&self) -> LogBins {
        let mut found = LogBins {
            below: 0,
            bins: vec![0; LOG_BIN_COUNT],
            above: 0,
        };
        let mut bin = 0;
        for (cell, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let low = match cell % 2 {
                0 => lower((cell / 2) as u16),
                _ => CUTS[cell / 2],
            };
            while bin <= LOG_BIN_COUNT && log_edge(bin) <= low {
                bin += 1;
            }
            match bin {
                0 => found.below += count,
                bin if bin > LOG_BIN_COUNT => found.above += count,
                bin => found.bins[bin - 1] += count,
            }
        }
        found
    }
}

impl LogBins {
    /// −Σ p ln p over the bins and the two sides; `None` for no numbers.
    pub fn entropy(&self) -> Option<f64> {
        let counts = || self.bins.iter().chain([&self.below, &self.above]);
        let total = counts().sum::<u64>() as f64;
        let shares = counts().filter(|count| **count > 0).map(|count| *count as f64 / total);
        (total > 0.0).then(|| -shares.map(|p| p * libm::log(p)).sum::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted<T: Number>(values: &[T]) -> Magnitudes {
        let keys: Vec<T::Key> = values.iter().map(|x| x.key()).collect();
        let mut magnitudes = Magnitudes::default();
        magnitudes.add(&keys, Spread::of(&keys));
        magnitudes
    }

    #[test]
    fn quantiles_of_short_floats_are_exact() {
        let magnitudes = counted(&[-1.0_f32, 0.5, 0.25, 2.0]);
        assert!(magnitudes.is_complete());
        assert_eq!(magnitudes.quantile(0.5), Some(0.5));
        assert_eq!(magnitudes.quantile(0.51), Some(1.0));
        assert_eq!(magnitudes.quantile(0.0), Some(0.25));
        assert_eq!(magnitudes.quantile(1.0), Some(2.0));
        assert_eq!(counted::<f32>(&[]).quantile(0.5), None);
    }

    #[test]
    fn powers_of_ten_stand_at_the_lower_edges_of_their_bins() {
        let bins = counted(&[1.0_f64, 0.1, 10.0, 0.0, 1e-9, 1e8, 9.99e7]).log_bins();
        let at = |bin: usize| bins.bins[bin];
        assert_eq!((at(256), at(224), at(288), at(511)), (1, 1, 1, 1));
        assert_eq!((bins.below, bins.above), (2, 1));
    }

    #[test]
    fn entropy_of_equal_shares_is_their_logarithm() {
        let entropy = counted(&[1.0_f32, 10.0, 100.0, 1000.0]).log_bins().entropy().unwrap();
        assert!((entropy - libm::log(4.0)).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn bins_are_those_of_comparing_with_their_edges(values in proptest::collection::vec((-1.0_f64..1.0, -30_i32..30), 1..80)) {
            let values: Vec<f32> = values.into_iter().map(|(x, power)| (x * 2_f64.powi(power)) as f32).collect();
            let mut expected = LogBins { below: 0, bins: vec![0; LOG_BIN_COUNT], above: 0 };
            for x in values.iter().map(|x| f64::from(x.abs())) {
                match (0..=LOG_BIN_COUNT).rev().find(|bin| log_edge(*bin) <= x) {
                    None => expected.below += 1,
                    Some(LOG_BIN_COUNT) => expected.above += 1,
                    Some(bin) => expected.bins[bin] += 1,
                }
            }
            prop_assert_eq!(counted(&values).log_bins(), expected);
        }

        #[test]
        fn quantiles_of_any_numbers_are_right_to_a_hundredth(
            mut values in proptest::collection::vec(1e-3_f64..1e3, 1..80), share in 0.0_f64..1.0,
        ) {
            let found = counted(&values).quantile(share).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
            prop_assert!((found / values[rank - 1] - 1.0).abs() < 0.01);
        }
    }
}

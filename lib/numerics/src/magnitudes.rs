//! How large numbers are: counts of |x| in cells so narrow that quantiles, logarithmic histograms, entropy and the error of a
//! quantisation follow from them.
//!
//! A cell is what an f32 keeps of a magnitude in its sixteen leading bits (a bf16), and cut once more where an edge of the logarithmic
//! bins passes through. Of numbers that are bf16s the counts are complete; of others a cell is at most 1/128 of its magnitude wide.

use crate::keys::{Key, Keys, Number};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Bins of the logarithmic histogram, over 1e-8 .. 1e8.
pub const LOG_BIN_COUNT: usize = 512;
const LOG_LOW: f64 = -8.0;
const LOG_HIGH: f64 = 8.0;

/// Each has two cells: below and from the edge that cuts it.
const LEADING_COUNT: usize = 1 << 15;

/// By leading bits, the edge inside of what they leave open, or infinity.
static CUTS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut cuts = vec![f64::INFINITY; LEADING_COUNT];
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
    /// By leading bits, of numbers below the edge that cuts the cell.
    below: Vec<u64>,
    /// The same of the others. Empty as long as all numbers were bf16s, which lie below.
    above: Vec<u64>,
    /// The first cell also holds what is too small for a bf16, so zeros are counted by themselves.
    zero_count: u64,
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
        Self {
            cells: magnitudes.cells().collect(),
            zero_count: magnitudes.zero_count,
            is_complete: magnitudes.is_complete(),
        }
    }
}

impl TryFrom<Cells> for Magnitudes {
    type Error = &'static str;

    fn try_from(written: Cells) -> Result<Self, &'static str> {
        let mut magnitudes = Self {
            zero_count: written.zero_count,
            ..Self::default()
        };
        if !written.is_complete {
            magnitudes.open_above();
        }
        let mut total = 0_u64;
        for (cell, count) in written.cells {
            let side = match cell % 2 {
                0 => &mut magnitudes.below,
                _ => &mut magnitudes.above,
            };
            let place = side.get_mut(cell / 2).ok_or("there is no such cell")?;
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
            below: vec![0; LEADING_COUNT],
            above: Vec::new(),
            zero_count: 0,
        }
    }
}

impl Magnitudes {
    /// Counts the magnitudes with these keys.
    pub fn add<K: Key>(&mut self, keys: &Keys<K>) {
        match keys.as_leading() {
            Some(row) => self.add_leading(row),
            None => self.add_any(keys.all()),
        }
    }

    fn add_leading(&mut self, row: &[u16]) {
        let zeros_before = self.below[0];
        let below = &mut self.below[..LEADING_COUNT];
        for leading in row {
            let count = &mut below[usize::from(leading & 0x7fff)];
            *count = count.wrapping_add(1); // there are not 2^64 numbers
        }
        self.zero_count += self.below[0] - zeros_before;
    }

    fn add_any<K: Key>(&mut self, keys: &[K]) {
        self.open_above();
        let cuts = &*CUTS;
        for key in keys {
            let leading = usize::from(key.leading() & 0x7fff);
            let side = match key.magnitude() < cuts[leading] {
                true => &mut self.below,
                false => &mut self.above,
            };
            side[leading] += 1;
            self.zero_count += u64::from(*key == K::NONE);
        }
    }

    fn open_above(&mut self) {
        self.above.resize(LEADING_COUNT, 0);
    }

    pub fn merge(&mut self, other: &Magnitudes) {
        if !other.is_complete() {
            self.open_above();
        }
        // Pages of zeros that nothing was counted in stay untouched.
        let sides = [(&mut self.below, &other.below), (&mut self.above, &other.above)];
        for (count, other) in sides.into_iter().flat_map(|(side, other)| side.iter_mut().zip(other)) {
            if *other > 0 {
                *count += other;
            }
        }
        self.zero_count += other.zero_count;
    }

    /// Whether a cell stands for one number: then all that follows is exact.
    pub fn is_complete(&self) -> bool {
        self.above.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.below.iter().chain(&self.above).sum()
    }

    pub fn zero_count(&self) -> u64 {
        self.zero_count
    }

    /// The cells in which there is something, ascending, by number: twice the leading bits, and one more from the edge on.
    fn cells(&self) -> impl Iterator<Item = (usize, u64)> {
        let pairs = self.below.iter().enumerate().flat_map(|(leading, below)| {
            let above = self.above.get(leading).copied().unwrap_or(0);
            [(2 * leading, *below), (2 * leading + 1, above)]
        });
        pairs.filter(|(_, count)| *count > 0)
    }

    /// The magnitudes there are, ascending, and how often each occurs; the middle of a cell where it stands for several.
    pub fn values(&self) -> impl Iterator<Item = (f64, u64)> {
        self.cells().map(|(cell, count)| (self.representative(cell), count))
    }

    fn representative(&self, cell: usize) -> f64 {
        let leading = (cell / 2) as u16;
        if self.is_complete() {
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
        for (cell, count) in self.cells() {
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
        let mut keys = Keys::default();
        keys.fill(values);
        let mut magnitudes = Magnitudes::default();
        magnitudes.add(&keys);
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

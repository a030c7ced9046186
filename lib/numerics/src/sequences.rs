//! What happens along the tokens of a text: how little changes from one to the next, and which dimensions carry them.

use crate::keys::Number;
use products::wide;
use serde::{Deserialize, Serialize};

/// The share of numbers that change by less than a threshold from one row of a sample to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    threshold: f64,
    compared: u64,
    small: u64,
    #[serde(skip)]
    previous: Vec<f64>,
}

impl Changes {
    pub fn new(threshold: f64) -> Self {
        Self {
            threshold,
            compared: 0,
            small: 0,
            previous: Vec::new(),
        }
    }

    pub fn push<T: Number>(&mut self, row: &[T]) {
        let threshold = self.threshold;
        let pairs = row.iter().zip(&self.previous);
        self.compared += pairs.len() as u64;
        self.small += u64::from(wide!({
            let small = pairs
                .clone()
                .map(|(x, before)| u32::from((x.wide() - *before).abs() < threshold));
            small.fold(0_u32, u32::wrapping_add) // BOUND: a row is at most 2^26 bytes long
        }));
        self.previous.clear();
        self.previous.extend(row.iter().map(|x| x.wide()));
    }

    pub fn end_sample(&mut self) {
        self.previous.clear();
    }

    pub fn merge(&mut self, other: &Changes) {
        self.compared += other.compared;
        self.small += other.small;
    }

    /// `None` where no sample has two rows.
    pub fn share(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.small as f64 / self.compared as f64)
    }
}

/// The smallest set of dimensions that carries a share of a row's Σ|x|, and for how many rows on end a dimension stays in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    mass: f64,
    /// Rows on end from which a dimension counts as shared.
    run: u32,
    row_count: u64,
    width: usize,
    active: u64,
    shared: u64,
    single: u64,
    /// How long each dimension has been in the set.
    #[serde(skip)]
    runs: Vec<u32>,
    #[serde(skip)]
    order: Vec<u32>,
}

/// Shares of a [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowShares {
    /// Mean size of the set.
    pub dims_mean: f64,
    /// … over the width.
    pub dims_share: f64,
    /// Of the memberships, those that belong to a run of the asked length or longer, and those that last one row.
    pub shared_share: f64,
    pub single_share: f64,
}

impl Flow {
    pub fn new(mass: f64, run: u32) -> Self {
        assert!(mass > 0.0 && mass <= 1.0 && run > 0, "a share of the mass and a length");
        Self {
            mass,
            run,
            row_count: 0,
            width: 0,
            active: 0,
            shared: 0,
            single: 0,
            runs: Vec::new(),
            order: Vec::new(),
        }
    }

    pub fn push<T: Number>(&mut self, row: &[T]) {
        self.width = row.len();
        self.row_count += 1;
        self.runs.resize(row.len(), 0);
        let count = self.carriers(row);
        self.active += count as u64;
        let (active, rest) = self.order.split_at(count);
        active.iter().for_each(|dim| self.runs[*dim as usize] += 1);
        for dim in rest {
            let length = std::mem::take(&mut self.runs[*dim as usize]);
            count_run(length, self.run, &mut self.shared, &mut self.single);
        }
    }

    /// Orders the dimensions by magnitude, earlier ones first where they are equal, and gives how many carry the mass.
    fn carriers<T: Number>(&mut self, row: &[T]) -> usize {
        self.order.clear();
        self.order.extend(0..row.len() as u32);
        let key = |dim: &u32| std::cmp::Reverse(row[*dim as usize].key());
        self.order.sort_unstable_by_key(|dim| (key(dim), *dim));
        let magnitudes = || self.order.iter().map(|dim| row[*dim as usize].wide().abs());
        let wanted = self.mass * magnitudes().sum::<f64>();
        let mut carried = 0.0;
        let short = magnitudes().take_while(|magnitude| {
            let is_short = carried < wanted;
            carried += magnitude;
            is_short
        });
        short.count()
    }

    pub fn end_sample(&mut self) {
        for length in self.runs.drain(..) {
            count_run(length, self.run, &mut self.shared, &mut self.single);
        }
    }

    pub fn merge(&mut self, other: &Flow) {
        self.width = self.width.max(other.width);
        self.row_count += other.row_count;
        self.active += other.active;
        self.shared += other.shared;
        self.single += other.single;
    }

    /// `None` where every row was zero, or there was none.
    pub fn shares(&self) -> Option<FlowShares> {
        let (active, rows) = (self.active as f64, self.row_count as f64);
        (self.active > 0).then(|| FlowShares {
            dims_mean: active / rows,
            dims_share: active / rows / self.width as f64,
            shared_share: self.shared as f64 / active,
            single_share: self.single as f64 / active,
        })
    }
}

fn count_run(length: u32, least: u32, shared: &mut u64, single: &mut u64) {
    if length >= least {
        *shared += u64::from(length);
    }
    if length == 1 {
        *single += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_sines_change_little() {
        let mut changes = Changes::new(0.1);
        for i in 0..64 {
            let number = |j: u32| libm::sin(0.02 * f64::from((i + 1) * (j + 1)) + 0.1 * f64::from(j));
            changes.push(&(0..16).map(number).collect::<Vec<f64>>());
        }
        assert_eq!(changes.share(), Some(0.5625));
    }

    #[test]
    fn nothing_is_compared_across_samples() {
        let mut changes = Changes::new(0.1);
        for _ in 0..3 {
            changes.push(&[1.0_f32, 2.0]);
            changes.end_sample();
        }
        assert_eq!(changes.share(), None);
    }

    #[test]
    fn the_smallest_set_carries_the_mass_and_its_runs_are_counted() {
        let mut flow = Flow::new(0.5, 3);
        for second in [4.0_f32, 0.0, -4.0] {
            // Dimension 0 always; dimension 1 in the first and the last row.
            flow.push(&[4.0, second, 1.0, 1.0]);
        }
        flow.end_sample();
        let shares = flow.shares().unwrap();
        // Half of ten is five: two dimensions; half of six is three: one.
        assert_eq!(shares.dims_mean, 5.0 / 3.0);
        assert_eq!(shares.dims_share, 5.0 / 12.0);
        assert_eq!((shares.shared_share, shares.single_share), (3.0 / 5.0, 2.0 / 5.0));
    }

    #[test]
    fn a_run_ends_with_its_sample() {
        let mut flow = Flow::new(0.5, 2);
        for _ in 0..2 {
            flow.push(&[9.0_f32, 1.0]);
            flow.end_sample();
        }
        let shares = flow.shares().unwrap();
        assert_eq!((shares.shared_share, shares.single_share), (0.0, 1.0));
        assert_eq!(Flow::new(0.5, 2).shares(), None);
    }
}

//! Streaming centred moments: count, mean, second moment about the mean, Σ‖x‖ and Σx/‖x‖ of rows that are seen once.
//!
//! Rows are gathered into blocks; each block is centred on its own mean before its product is formed, so nothing is lost when the mean
//! is large beside the spread, and blocks are combined in f64 by the update of Chan, Golub and LeVeque (1983).
//!
//! Two promises hold to the bit. However rows are cut into calls, and whatever the number of threads, the result is the same. And
//! moments over hash buckets are combined on one fixed binary tree ([`BucketTree`]), so 1, 2, 4, … 64 shards merge to the same numbers.

use crate::scatter::{PANEL, Panels};
use products::{Real, sum_of, wide};
use rayon::prelude::*;

/// Hash buckets a data set is divided into; a shard owns a range of them.
pub const BUCKET_COUNT: u8 = 64;

/// Rows between two visits of the second moment: long enough that its memory traffic is small beside the product.
const BLOCK_ROW_COUNT: usize = 1024;
/// Rows of one f32 product before it is added up in f64: rounding grows with the square root of this.
const SINGLE_ROW_COUNT: usize = 256;
/// Under [`Precision::Single`] these first rows are still multiplied in f64: short data are exact, in long data rounding averages out.
const DOUBLE_PREFIX_ROW_COUNT: u64 = 2048;

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum MomentsError {
    #[error("row {row_index} holds a number that is not finite")]
    NonFinite { row_index: u64 },
    #[error("{what} has {found} numbers, width {width} needs {expected}")]
    WrongLength {
        what: &'static str,
        width: usize,
        expected: usize,
        found: usize,
    },
    #[error("{what} holds a number that is not finite")]
    NonFinitePart { what: &'static str },
    #[error("widths differ: {left} and {right}")]
    WidthMismatch { left: usize, right: usize },
    #[error("buckets {start}..{end} come after bucket {after}: they must ascend without overlap")]
    BucketOrder { start: u8, end: u8, after: u8 },
}

type Result<T> = std::result::Result<T, MomentsError>;

/// How products of rows are formed. Sums are always f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Products of short f32 runs: less time (a covariance of 200,000 × 1,024 takes 0.6 of it), leading eigenvalues right to about 1e-7.
    Single,
    /// Products in f64.
    Double,
}

/// Numbers of a packed upper triangle of the given width.
pub const fn packed_len(width: usize) -> usize {
    width * (width + 1) / 2
}

/// Where row `row` of a packed upper triangle starts (its diagonal element).
pub const fn packed_row_start(width: usize, row: usize) -> usize {
    row * (2 * width + 1 - row) / 2
}

/// Moments of a set of rows. No rows: `count` 0 and all numbers zero; such a set is the identity of [`Moments::merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    width: usize,
    count: u64,
    mean: Vec<f64>,
    /// Σ(x−mean)(x−mean)ᵀ: upper triangle, row-major, packed. Empty while `count` is 0, so that empty groups cost nothing.
    m2: Vec<f64>,
    norm_sum: f64,
    unit_sum: Vec<f64>,
}

impl Moments {
    pub fn empty(width: usize) -> Self {
        Self {
            width,
            count: 0,
            mean: vec![0.0; width],
            m2: Vec::new(),
            norm_sum: 0.0,
            unit_sum: vec![0.0; width],
        }
    }

    /// Moments read from somewhere: lengths and finiteness are checked, so that what follows may rely on them.
    pub fn from_parts(
        width: usize,
        count: u64,
        mean: Vec<f64>,
        m2: Vec<f64>,
        norm_sum: f64,
        unit_sum: Vec<f64>,
    ) -> Result<Self> {
        for (what, numbers, expected) in [
            ("mean", &mean, width),
            ("m2", &m2, packed_len(width)),
            ("unit_sum", &unit_sum, width),
        ] {
            if numbers.len() != expected {
                return Err(MomentsError::WrongLength {
                    what,
                    width,
                    expected,
                    found: numbers.len(),
                });
            }
            if !numbers.iter().all(|x| x.is_finite()) {
                return Err(MomentsError::NonFinitePart { what });
            }
        }
        if !norm_sum.is_finite() {
            return Err(MomentsError::NonFinitePart { what: "norm_sum" });
        }
        if count == 0 {
            return Ok(Self::empty(width));
        }
        Ok(Self {
            width,
            count,
            mean,
            m2,
            norm_sum,
            unit_sum,
        })
    }

    /// Moments of `rows` (row-major, `width` numbers each).
    pub fn of_rows<T: Real>(width: usize, rows: &[T], precision: Precision) -> Result<Self> {
        let mut accumulator = Accumulator::new(width, precision);
        accumulator.push(rows)?;
        accumulator.finish()
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Σ(x−mean)(x−mean)ᵀ, upper triangle, row-major, packed; `None` when there are no rows (all zeros then).
    pub fn m2(&self) -> Option<&[f64]> {
        (self.count > 0).then_some(&self.m2)
    }

    /// Σ‖x‖.
    pub fn norm_sum(&self) -> f64 {
        self.norm_sum
    }

    /// Σx/‖x‖ over the rows that are not zero.
    pub fn unit_sum(&self) -> &[f64] {
        &self.unit_sum
    }

    /// Σ(x_i−mean_i)(x_j−mean_j).
    pub fn scatter(&self, i: usize, j: usize) -> f64 {
        let (row, column) = if i <= j { (i, j) } else { (j, i) };
        assert!(column < self.width, "a column beyond the width");
        if self.count == 0 {
            0.0
        } else {
            self.m2[packed_row_start(self.width, row) + column - row]
        }
    }

    /// Σ‖x−mean‖²: the trace of the second moment.
    pub fn total_scatter(&self) -> f64 {
        (0..self.width).map(|i| self.scatter(i, i)).sum()
    }

    /// Mean of x_j² for every column.
    pub fn mean_squares(&self) -> Vec<f64> {
        let count = (self.count as f64).max(1.0);
        (0..self.width)
            .map(|j| self.scatter(j, j) / count + self.mean[j] * self.mean[j])
            .collect()
    }

    /// The same rows with `offset` taken from each. Norms and directions do not survive a shift: they become zero.
    pub fn translated(mut self, offset: &[f64]) -> Moments {
        if self.count > 0 {
            for (mean, offset) in self.mean.iter_mut().zip(offset) {
                *mean -= offset;
            }
        }
        self.norm_sum = 0.0;
        self.unit_sum.fill(0.0);
        self
    }

    /// vᵀ Σ v of the covariance Σ: the variance of the rows along a unit vector.
    pub fn variance_along(&self, direction: &[f64]) -> f64 {
        assert_eq!(direction.len(), self.width, "a direction of the same space");
        let mut sum = 0.0;
        let mut at = 0;
        let row_count = if self.count == 0 { 0 } else { self.width };
        for row in 0..row_count {
            let strip = &self.m2[at..at + self.width - row];
            let beside: f64 = strip[1..].iter().zip(&direction[row + 1..]).map(|(x, v)| x * v).sum();
            sum += direction[row] * (strip[0] * direction[row] + 2.0 * beside);
            at += strip.len();
        }
        sum / (self.count as f64).max(1.0)
    }

    /// Adds the rows behind `right` after those behind `self`.
    pub fn merge(&mut self, right: &Moments) -> Result<()> {
        if self.width != right.width {
            return Err(MomentsError::WidthMismatch {
                left: self.width,
                right: right.width,
            });
        }
        if right.count == 0 {
            return Ok(());
        }
        if self.count == 0 {
            self.clone_from(right);
            return Ok(());
        }
        let (left_count, right_count) = (self.count as f64, right.count as f64);
        let total = left_count + right_count;
        let delta: Vec<f64> = right
            .mean
            .iter()
            .zip(&self.mean)
            .map(|(right, left)| right - left)
            .collect();
        let weight = left_count * right_count / total;
        let right_m2 = &right.m2;
        for_each_strip(self.width, &mut self.m2, |first_row, row_count, packed| {
            let mut offset = 0;
            let start = packed_row_start(delta.len(), first_row);
            for row in first_row..first_row + row_count {
                let len = delta.len() - row;
                let scaled = weight * delta[row];
                let target = &mut packed[offset..offset + len];
                let source = &right_m2[start + offset..start + offset + len];
                for ((target, source), delta) in target.iter_mut().zip(source).zip(&delta[row..]) {
                    *target += source + scaled * delta;
                }
                offset += len;
            }
        });
        let share = right_count / total;
        for (mean, delta) in self.mean.iter_mut().zip(&delta) {
            *mean += delta * share;
        }
        self.count += right.count;
        self.norm_sum += right.norm_sum;
        for (sum, right) in self.unit_sum.iter_mut().zip(&right.unit_sum) {
            *sum += right;
        }
        Ok(())
    }

    /// The same rows seen in the given columns only. Norms and directions are of whole rows, so they cannot be cut: they become zero.
    pub fn select(&self, columns: &[usize]) -> Moments {
        let width = columns.len();
        let mut m2 = Vec::new();
        if self.count > 0 {
            m2.reserve_exact(packed_len(width));
            for (at, &row) in columns.iter().enumerate() {
                m2.extend(columns[at..].iter().map(|&column| self.scatter(row, column)));
            }
        }
        Moments {
            width,
            count: self.count,
            mean: columns.iter().map(|&column| self.mean[column]).collect(),
            m2,
            norm_sum: 0.0,
            unit_sum: vec![0.0; width],
        }
    }
}

/// Splits a packed triangle into strips of [`PANEL`] rows and runs them in parallel: (first row, rows, their packed numbers).
fn for_each_strip(width: usize, packed: &mut [f64], work: impl Fn(usize, usize, &mut [f64]) + Sync) {
    let mut strips = Vec::with_capacity(width.div_ceil(PANEL));
    let mut rest = packed;
    let mut first_row = 0;
    while first_row < width {
        let row_count = PANEL.min(width - first_row);
        let len = packed_row_start(width, first_row + row_count) - packed_row_start(width, first_row);
        let (strip, tail) = rest.split_at_mut(len);
        strips.push((first_row, row_count, strip));
        rest = tail;
        first_row += row_count;
    }
    // Early strips are the longest: taken one by one they leave short ones for the end, which evens out the threads.
    strips
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(first_row, row_count, strip)| work(first_row, row_count, strip));
}

/// Collects rows one after another; holds one block of rows and one [`Moments`].
pub struct Accumulator<T = f32> {
    moments: Moments,
    precision: Precision,
    block: Vec<T>,
}

impl<T: Real> Accumulator<T> {
    pub fn new(width: usize, precision: Precision) -> Self {
        Self {
            moments: Moments::empty(width),
            precision,
            block: Vec::new(),
        }
    }

    /// Rows pushed so far.
    pub fn count(&self) -> u64 {
        self.moments.count + (self.block.len() / self.moments.width.max(1)) as u64
    }

    /// Adds whole rows. A row that is not finite is refused when its block is worked off, here or in [`Accumulator::finish`].
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn push(&mut self, mut rows: &[T]) -> Result<()> {
        let width = self.moments.width;
        assert!(
            width > 0 && rows.len().is_multiple_of(width),
            "a part of a row was pushed"
        );
        let block_len = BLOCK_ROW_COUNT * width;
        while !rows.is_empty() {
            if self.block.is_empty() && rows.len() >= block_len {
                // Whole blocks are used where they lie.
                let (block, rest) = rows.split_at(block_len);
                self.moments.add_block(block, self.precision)?;
                rows = rest;
                continue;
            }
            let taken = (block_len - self.block.len()).min(rows.len());
            self.block.extend_from_slice(&rows[..taken]);
            rows = &rows[taken..];
            if self.block.len() == block_len {
                self.moments.add_block(&self.block, self.precision)?;
                self.block.clear();
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Moments> {
        if !self.block.is_empty() {
            self.moments.add_block(&self.block, self.precision)?;
        }
        Ok(self.moments)
    }
}

impl Moments {
    fn add_block<T: Real>(&mut self, rows: &[T], precision: Precision) -> Result<()> {
        let width = self.width;
        let norms: Vec<f64> = rows.par_chunks(width).with_min_len(16).map(norm).collect();
        if let Some(row) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(MomentsError::NonFinite {
                row_index: self.count + row as u64,
            });
        }
        let inverse_norms: Vec<f64> = norms
            .iter()
            .map(|&norm| if norm > 0.0 { 1.0 / norm } else { 0.0 })
            .collect();

        let block = Block {
            rows,
            width,
            inverse_norms: &inverse_norms,
        };
        // Long data are multiplied in f32, the first rows of all in f64.
        if precision == Precision::Single && self.count >= DOUBLE_PREFIX_ROW_COUNT {
            self.add_centred(block.centred(|x| x as f32), SINGLE_ROW_COUNT);
        } else {
            self.add_centred(block.centred(|x| x), BLOCK_ROW_COUNT);
        }
        self.norm_sum += norms.iter().sum::<f64>();
        Ok(())
    }

    /// Chan's update by a block; products span `run` rows before they are added up in f64.
    fn add_centred<T: Real>(&mut self, block: Centred<T>, run: usize) {
        let (left_count, right_count) = (self.count as f64, block.row_count as f64);
        let total = left_count + right_count;
        let delta: Vec<f64> = if self.count == 0 {
            self.m2 = vec![0.0; packed_len(self.width)];
            vec![0.0; self.width]
        } else {
            block
                .mean
                .iter()
                .zip(&self.mean)
                .map(|(block, mean)| block - mean)
                .collect()
        };
        let weight = left_count * right_count / total;
        for_each_strip(self.width, &mut self.m2, |first_row, _, packed| {
            block.panels.add_scatter(first_row / PANEL, run, weight, &delta, packed);
        });
        if self.count == 0 {
            self.mean = block.mean;
        } else {
            let share = right_count / total;
            for (mean, delta) in self.mean.iter_mut().zip(&delta) {
                *mean += delta * share;
            }
        }
        self.count += block.row_count as u64;
        for (sum, block) in self.unit_sum.iter_mut().zip(&block.unit_sum) {
            *sum += block;
        }
    }
}

/// Rows that are worked off together.
struct Block<'a, T> {
    rows: &'a [T],
    width: usize,
    /// 1/‖x‖ of each row, zero for a row of zeros.
    inverse_norms: &'a [f64],
}

/// A block less its own mean, and what is lost by that.
struct Centred<T> {
    row_count: usize,
    mean: Vec<f64>,
    /// Σx/‖x‖.
    unit_sum: Vec<f64>,
    panels: Panels<T>,
}

impl<T: Real> Block<'_, T> {
    /// Panel by panel: a column is summed by one task in row order. Summing from the first row keeps a large common mean out. Rows lie so
    /// far apart that the cache may not hold their parts until they are read again: they are laid side by side.
    fn centred<U: Real>(&self, narrow: impl Fn(f64) -> U + Sync) -> Centred<U> {
        let row_count = self.inverse_norms.len();
        let (mut mean, mut unit_sum) = (vec![0.0; self.width], vec![0.0; self.width]);
        let mut panels = Panels::new(row_count, self.width);
        panels
            .par_iter_mut()
            .zip(mean.par_chunks_mut(PANEL))
            .zip(unit_sum.par_chunks_mut(PANEL))
            .enumerate()
            .for_each_init(Vec::new, |near, (panel, ((panel_rows, means), units))| {
                let columns = panel * PANEL..panel * PANEL + means.len();
                near.resize(row_count, [T::ZERO; PANEL]);
                wide!({
                    let rows = self.rows.chunks_exact(self.width);
                    for (near, row) in near.iter_mut().zip(rows) {
                        // Of one length, so that the loops have no ends to care for; the last panel may be narrower.
                        match row[columns.clone()].first_chunk::<PANEL>() {
                            Some(row) => near.iter_mut().zip(row).for_each(|(near, x)| *near = *x),
                            None => {
                                let (near, beyond) = near.split_at_mut(columns.len());
                                near.copy_from_slice(&row[columns.clone()]);
                                beyond.fill(T::ZERO);
                            }
                        }
                    }
                    let origin = near[0];
                    let (mut mean, mut unit) = ([0.0; PANEL], [0.0; PANEL]);
                    for (row, inverse_norm) in near.iter().zip(self.inverse_norms) {
                        for at in 0..PANEL {
                            mean[at] += row[at].to_f64() - origin[at].to_f64();
                            unit[at] += row[at].to_f64() * inverse_norm;
                        }
                    }
                    for (mean, origin) in mean.iter_mut().zip(&origin) {
                        *mean = origin.to_f64() + *mean / row_count as f64;
                    }
                    for (centred, row) in panel_rows.iter_mut().zip(near.iter()) {
                        for at in 0..PANEL {
                            centred[at] = narrow(row[at].to_f64() - mean[at]);
                        }
                    }
                    means.copy_from_slice(&mean[..means.len()]);
                    units.copy_from_slice(&unit[..units.len()]);
                });
            });
        Centred {
            row_count,
            mean,
            unit_sum,
            panels,
        }
    }
}

/// ‖x‖.
pub fn norm<T: Real>(row: &[T]) -> f64 {
    sum_of(row, row, |x, _| x.to_f64() * x.to_f64()).sqrt()
}

/// Combines moments of ascending bucket ranges on the one binary tree over [`BUCKET_COUNT`] buckets.
///
/// A range that is a node of the tree (64, 32, 16, … buckets at a multiple of its size) is merged with its sibling as soon as both are
/// there, so at most seven partial results live at a time, and power-of-two shards give the bits of one run. Other ranges are valid
/// too; what is left over at the end is merged from left to right.
#[derive(Debug)]
pub struct BucketTree {
    width: usize,
    /// Ascending, disjoint: (first bucket, end bucket, moments).
    partial: Vec<(u8, u8, Moments)>,
    end: u8,
}

impl BucketTree {
    pub fn new(width: usize) -> Self {
        Self {
            width,
            partial: Vec::new(),
            end: 0,
        }
    }

    /// Adds the moments of buckets `start..end`. Buckets that are skipped are empty.
    pub fn push(&mut self, start: u8, end: u8, moments: Moments) -> Result<()> {
        if start < self.end || end <= start || end > BUCKET_COUNT {
            return Err(MomentsError::BucketOrder {
                start,
                end,
                after: self.end,
            });
        }
        if moments.width() != self.width {
            return Err(MomentsError::WidthMismatch {
                left: self.width,
                right: moments.width(),
            });
        }
        self.fill_to(start)?;
        self.place(start, end, moments)
    }

    pub fn finish(mut self) -> Result<Moments> {
        self.fill_to(BUCKET_COUNT)?;
        let mut whole = Moments::empty(self.width);
        for (_, _, moments) in self.partial {
            whole.merge(&moments)?;
        }
        Ok(whole)
    }

    /// Covers the gap before `start` by empty nodes, each the largest that fits.
    fn fill_to(&mut self, start: u8) -> Result<()> {
        while self.end < start {
            let mut size = 1;
            while size < BUCKET_COUNT && self.end.is_multiple_of(2 * size) && self.end + 2 * size <= start {
                size *= 2;
            }
            self.place(self.end, self.end + size, Moments::empty(self.width))?;
        }
        Ok(())
    }

    fn place(&mut self, start: u8, end: u8, moments: Moments) -> Result<()> {
        self.partial.push((start, end, moments));
        self.end = end;
        while let [.., (left_start, left_end, _), (right_start, right_end, _)] = &self.partial[..] {
            let (left_size, right_size) = (left_end - left_start, right_end - right_start);
            let siblings =
                left_size == right_size && left_size.is_power_of_two() && left_start.is_multiple_of(2 * left_size);
            if !siblings {
                break;
            }
            let (Some((_, end, right)), Some(left)) = (self.partial.pop(), self.partial.last_mut()) else {
                break;
            };
            left.2.merge(&right)?;
            left.1 = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    fn rows(seed: u64, row_count: usize, width: usize, offset: f32, spread: f32) -> Vec<f32> {
        let rng = Rng::new(seed, "moments test");
        (0..row_count * width)
            .map(|i| offset + spread * rng.normal((i / width) as u64, (i % width) as u64) as f32)
            .collect()
    }

    fn two_pass(width: usize, rows: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let count = (rows.len() / width) as f64;
        let mean: Vec<f64> = (0..width)
            .map(|j| rows.chunks(width).map(|row| f64::from(row[j])).sum::<f64>() / count)
            .collect();
        let mut m2 = Vec::new();
        for i in 0..width {
            for j in i..width {
                m2.push(
                    rows.chunks(width)
                        .map(|row| (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]))
                        .sum::<f64>(),
                );
            }
        }
        (mean, m2)
    }

    #[test]
    fn moments_agree_with_two_passes_although_the_mean_is_ten_thousand_spreads() {
        let width = 9;
        let rows = rows(1, 3000, width, 1e4, 1.0);
        let (mean, m2) = two_pass(width, &rows);
        for (precision, tolerance) in [(Precision::Double, 1e-12), (Precision::Single, 1e-7)] {
            let found = Moments::of_rows(width, &rows, precision).unwrap();
            assert!(found.mean().iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-9));
            let scale = m2[0];
            assert!(
                found
                    .m2()
                    .unwrap()
                    .iter()
                    .zip(&m2)
                    .all(|(a, b)| (a - b).abs() < tolerance * scale)
            );
        }
    }

    #[test]
    fn bits_depend_neither_on_the_cut_into_calls_nor_on_the_threads() {
        let width = 300; // three strips, the last one short
        let rows = rows(2, 3300, width, 0.5, 2.0);
        for precision in [Precision::Single, Precision::Double] {
            let whole = Moments::of_rows(width, &rows, precision).unwrap();
            for cut in [1, 7, 1024, 1500] {
                let mut accumulator = Accumulator::new(width, precision);
                for piece in rows.chunks(cut * width) {
                    accumulator.push(piece).unwrap();
                }
                assert_eq!(accumulator.finish().unwrap(), whole, "{cut} rows per call");
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(
                pool.install(|| Moments::of_rows(width, &rows, precision).unwrap()),
                whole
            );
        }
    }

    #[test]
    fn one_to_sixty_four_shards_merge_to_the_bits_of_one_run() {
        let width = 5;
        let rows = rows(3, 400, width, 3.0, 1.0);
        // Buckets of uneven size, some of them empty.
        let bucket_of = |row: usize| ((row * row * 7 + row / 3) % 61) as u8;
        let leaf = |bucket: u8| {
            let mut accumulator = Accumulator::new(width, Precision::Double);
            for (index, row) in rows.chunks(width).enumerate() {
                if bucket_of(index) == bucket {
                    accumulator.push(row).unwrap();
                }
            }
            accumulator.finish().unwrap()
        };
        let run = |range: std::ops::Range<u8>| {
            let mut tree = BucketTree::new(width);
            for bucket in range {
                tree.push(bucket, bucket + 1, leaf(bucket)).unwrap();
                assert!(tree.partial.len() <= 7);
            }
            tree.finish().unwrap()
        };
        let whole = run(0..64);
        assert_eq!(whole.count(), 400);
        for shard_count in [1, 2, 4, 8, 16, 32, 64_u8] {
            let size = 64 / shard_count;
            let mut tree = BucketTree::new(width);
            for shard in 0..shard_count {
                tree.push(shard * size, (shard + 1) * size, run(shard * size..(shard + 1) * size))
                    .unwrap();
            }
            assert_eq!(tree.finish().unwrap(), whole, "{shard_count} shards");
        }
        // Three shards are no nodes of the tree: the same rows to rounding.
        let mut tree = BucketTree::new(width);
        for (start, end) in [(0, 22), (22, 43), (43, 64)] {
            tree.push(start, end, run(start..end)).unwrap();
        }
        let three = tree.finish().unwrap();
        assert_eq!(three.count(), whole.count());
        assert!(
            three
                .m2()
                .unwrap()
                .iter()
                .zip(whole.m2().unwrap())
                .all(|(a, b)| (a - b).abs() < 1e-9)
        );
    }

    #[test]
    fn buckets_out_of_order_are_refused() {
        let mut tree = BucketTree::new(2);
        tree.push(4, 8, Moments::empty(2)).unwrap();
        for (start, end) in [(7, 8), (8, 8), (63, 65)] {
            assert!(matches!(
                tree.push(start, end, Moments::empty(2)),
                Err(MomentsError::BucketOrder { .. })
            ));
        }
        assert!(matches!(
            tree.push(8, 9, Moments::empty(3)),
            Err(MomentsError::WidthMismatch { .. })
        ));
    }

    #[test]
    fn a_row_that_is_not_finite_is_named() {
        let mut rows = rows(4, 2000, 3, 0.0, 1.0);
        rows[1500 * 3 + 1] = f32::NAN;
        assert_eq!(
            Moments::of_rows(3, &rows, Precision::Single),
            Err(MomentsError::NonFinite { row_index: 1500 })
        );
    }

    #[test]
    fn norms_and_directions_are_summed_and_zero_rows_have_no_direction() {
        let moments = Moments::of_rows(2, &[3.0_f32, 4.0, 0.0, 0.0], Precision::Double).unwrap();
        assert_eq!(moments.norm_sum(), 5.0);
        assert!((moments.unit_sum()[0] - 0.6).abs() < 1e-15 && (moments.unit_sum()[1] - 0.8).abs() < 1e-15);
        assert_eq!(moments.total_scatter(), 12.5);
    }

    #[test]
    fn selected_columns_keep_their_scatter() {
        let rows = rows(5, 50, 6, 1.0, 1.0);
        let whole = Moments::of_rows(6, &rows, Precision::Double).unwrap();
        let part = whole.select(&[1, 4, 5]);
        assert_eq!(part.scatter(0, 2), whole.scatter(1, 5));
        assert_eq!(part.scatter(1, 1), whole.scatter(4, 4));
        assert_eq!(part.mean(), [whole.mean()[1], whole.mean()[4], whole.mean()[5]]);
    }

    #[test]
    fn a_shift_moves_the_mean_alone_and_the_variance_along_an_axis_is_its_scatter() {
        let rows = rows(6, 50, 3, 2.0, 1.0);
        let moments = Moments::of_rows(3, &rows, Precision::Double).unwrap();
        let moved = moments.clone().translated(&[1.0, 2.0, 3.0]);
        assert_eq!(moved.mean()[1], moments.mean()[1] - 2.0);
        assert_eq!(moved.m2(), moments.m2());
        assert_eq!(moments.variance_along(&[0.0, 1.0, 0.0]), moments.scatter(1, 1) / 50.0);
        let diagonal = 0.5_f64.sqrt();
        let expected = (moments.scatter(0, 0) + moments.scatter(2, 2) + 2.0 * moments.scatter(0, 2)) / 100.0;
        assert!((moments.variance_along(&[diagonal, 0.0, diagonal]) - expected).abs() < 1e-12);
        let squares: f64 = rows.chunks(3).map(|row| f64::from(row[2]).powi(2)).sum();
        assert!((moments.mean_squares()[2] - squares / 50.0).abs() < 1e-10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn merging_two_parts_gives_the_moments_of_the_whole(cut in 0_usize..60, seed in 0_u64..1000) {
            let rows = rows(seed, 60, 4, 5.0, 1.0);
            let whole = Moments::of_rows(4, &rows, Precision::Double).unwrap();
            let mut left = Moments::of_rows(4, &rows[..cut * 4], Precision::Double).unwrap();
            left.merge(&Moments::of_rows(4, &rows[cut * 4..], Precision::Double).unwrap()).unwrap();
            prop_assert_eq!(left.count(), 60);
            prop_assert!(left.m2().unwrap().iter().zip(whole.m2().unwrap()).all(|(a, b)| (a - b).abs() < 1e-10));
            prop_assert!(left.mean().iter().zip(whole.mean()).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }
}

//! Exact nearest neighbours of every row, by blocked products.
//!
//! Squared distances are first formed in f32 as ‖x‖² + ‖y‖² − 2⟨x,y⟩, at the speed of the product, and once for each pair of rows.
//! Their rounding error is bounded, so every row that could be among the nearest is kept as a candidate, and the candidates' distances
//! are then computed in f64 from differences of the rows as given. What comes out is exact to f64 rounding, ties and near-duplicates
//! included, and so does not depend on the order in which threads see the pairs.
//!
//! The floor is the product of all pairs, n²·d floating-point operations: 4.1e11 for 20,000 rows of 1,024. Looking through the products
//! (two comparisons a pair, sixteen pairs at a time) and refining some two dozen candidates a row are small beside it. On two AVX-512 cores
//! of 290 GFLOP/s each (blocks of this shape) that is 0.71 s; the search takes 1.1 s.

use crate::moments::norm;
use ndarray::ArrayView2;
use products::{Product, matrix, strided_mut, sum_of, wide};
use rayon::prelude::*;
use std::sync::Mutex;

/// Rows of a block; the products of two blocks stay in the second-level cache, where the kernel is fastest.
const BLOCK_ROW_COUNT: usize = 512;
/// Numbers that one task looks through.
const PART_LEN: usize = 1 << 16;
/// Products that are looked at together.
const LANE_COUNT: usize = 16;
/// BOUND: candidates that f32 cannot tell apart are measured when a row has this many. Rows that coincide would else hold each other all.
const UNSETTLED_COUNT_MAX: usize = 512;

/// Distances to the nearest other rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    neighbour_count: usize,
    /// (rows, neighbour_count), each row ascending.
    distances: Vec<f64>,
}

impl Neighbours {
    /// The ascending distances of each row.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.distances.chunks_exact(self.neighbour_count)
    }
}

/// The `neighbour_count` nearest other rows of each row; `None` with too few rows for that.
pub fn nearest(rows: ArrayView2<'_, f32>, neighbour_count: usize) -> Option<Neighbours> {
    let (row_count, width) = rows.dim();
    let rows = rows.as_slice().expect("row-major");
    if row_count <= neighbour_count || neighbour_count == 0 {
        return None;
    }
    let centred = centred(rows, width);
    let search = Search {
        rows,
        width,
        neighbour_count,
        tolerance: tolerance(width),
    };
    let blocks: Vec<Block> = centred
        .par_chunks(BLOCK_ROW_COUNT * width)
        .enumerate()
        .map(|(at, rows)| Block::new(at * BLOCK_ROW_COUNT, rows, width))
        .collect();
    let seen: Vec<Mutex<Seen>> = blocks
        .iter()
        .map(|block| Mutex::new(Seen::nothing(block, neighbour_count)))
        .collect();
    // Blocks beside each other first: rows meet some of all blocks early, and what they have seen then turns most later pairs away.
    let mut pairs: Vec<(usize, usize)> = (0..blocks.len())
        .flat_map(|left| (left..blocks.len()).map(move |right| (left, right)))
        .collect();
    pairs.sort_by_key(|(left, right)| right - left);
    pairs
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(Vec::new, |products: &mut Vec<f32>, (left, right)| {
            let (left_block, right_block) = (&blocks[left], &blocks[right]);
            let (left_count, right_count) = (left_block.norms.len(), right_block.padded_len);
            products.resize(left_count * right_count, 0.0);
            Product::of(
                matrix(left_block.rows, left_count, width),
                matrix(&right_block.columns, width, right_count),
            )
            .fill(strided_mut(products, left_count, right_count, right_count));
            // Always the lower block first, so that no two tasks wait for each other.
            let mut left_seen = lock(&seen[left]);
            if left == right {
                wide!({ search.within(left_block, &mut left_seen, products) });
            } else {
                let mut right_seen = lock(&seen[right]);
                wide!({ search.between((left_block, &mut left_seen), (right_block, &mut right_seen), products) });
            }
        });
    let distances: Vec<f64> = seen
        .into_par_iter()
        .zip(&blocks)
        .flat_map_iter(|(seen, block)| {
            let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            seen.candidates
                .into_iter()
                .enumerate()
                .flat_map(|(at, candidates)| search.refine(block.first_row + at, candidates))
        })
        .collect();
    Some(Neighbours {
        neighbour_count,
        distances,
    })
}

/// A panic elsewhere ends the whole search, so a poisoned lock's contents are never used.
fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Rows less their mean, times one power of two: distances stay in proportion, norms shrink, and with them the error bound; and no
/// square leaves the range of f32.
fn centred(rows: &[f32], width: usize) -> Vec<f32> {
    let row_count = rows.len() / width;
    let mut mean = vec![0.0_f64; width];
    mean.par_chunks_mut(64).enumerate().for_each(|(chunk, means)| {
        wide!({
            for row in rows.chunks_exact(width) {
                for (mean, x) in means.iter_mut().zip(&row[chunk * 64..]) {
                    *mean += f64::from(*x);
                }
            }
        });
        for mean in means {
            *mean /= row_count as f64;
        }
    });
    // Twice the largest number bounds every difference from a mean.
    let largest = rows.par_chunks(PART_LEN).map(magnitude).reduce(|| 0.0, f32::max);
    let scale = if largest > 0.0 {
        libm::exp2(-libm::ceil(libm::log2(2.0 * f64::from(largest))))
    } else {
        1.0
    };
    let mut centred = vec![0.0_f32; rows.len()];
    centred
        .par_chunks_mut(width)
        .zip(rows.par_chunks(width))
        .with_min_len(64)
        .for_each(|(centred, row)| {
            wide!({
                for ((centred, x), mean) in centred.iter_mut().zip(row).zip(&mean) {
                    *centred = ((f64::from(*x) - mean) * scale) as f32;
                }
            });
        });
    centred
}

/// The largest |x|.
fn magnitude(numbers: &[f32]) -> f32 {
    let (chunks, rest) = numbers.as_chunks::<LANE_COUNT>();
    let lanes = wide!({
        let mut lanes = [0.0_f32; LANE_COUNT];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = if x.abs() > *lane { x.abs() } else { *lane };
            }
        }
        lanes
    });
    lanes
        .into_iter()
        .chain(rest.iter().map(|x| x.abs()))
        .fold(0.0, f32::max)
}

/// What a squared distance formed in f32 may be wrong by, beside the sum of the two squared norms.
fn tolerance(width: usize) -> f32 {
    // Rounding of a product of n terms: the probabilistic bound 8·√n·u (Higham and Mary 2019) fails with a chance below e^-30. The
    // last terms cover rounding of the centred rows, of the sum of three and of the comparison.
    let unit = f32::EPSILON / 2.0;
    unit * (8.0 * (width as f32).sqrt() + 16.0)
}

/// Consecutive rows, in the two orders that the product's sides want.
struct Block<'a> {
    first_row: usize,
    /// (rows, width).
    rows: &'a [f32],
    /// (width, padded_len): the same transposed, filled up with zeros.
    columns: Vec<f32>,
    padded_len: usize,
    /// ‖x‖².
    norms: Vec<f32>,
}

impl<'a> Block<'a> {
    fn new(first_row: usize, rows: &'a [f32], width: usize) -> Self {
        let row_count = rows.len() / width;
        let padded_len = row_count.next_multiple_of(LANE_COUNT);
        let mut columns = vec![0.0; width * padded_len];
        for (at, rows) in rows.chunks(LANE_COUNT * width).enumerate() {
            for column in 0..width {
                let place = &mut columns[column * padded_len + at * LANE_COUNT..];
                for (place, row) in place.iter_mut().zip(rows.chunks_exact(width)) {
                    *place = row[column];
                }
            }
        }
        Self {
            first_row,
            rows,
            columns,
            padded_len,
            norms: rows
                .chunks_exact(width)
                .map(|row| (norm(row) * norm(row)) as f32)
                .collect(),
        }
    }
}

#[derive(Clone, Copy)]
struct Candidate {
    /// The squared distance less its error bound, and plus it.
    low: f32,
    high: f32,
    row: u32,
}

/// What the rows of one block have seen so far.
struct Seen {
    first_row: usize,
    /// Per row, those that may be among its nearest.
    candidates: Vec<Vec<Candidate>>,
    /// Per row, the upper bound of the k-th best so far: nothing whose lower bound lies above it can be among the nearest.
    limits: Vec<f32>,
    /// Per row, how many candidates make it worth while to look for a lower limit.
    due: Vec<usize>,
}

impl Seen {
    fn nothing(block: &Block<'_>, neighbour_count: usize) -> Self {
        let row_count = block.norms.len();
        Self {
            first_row: block.first_row,
            candidates: vec![Vec::new(); row_count],
            limits: vec![f32::INFINITY; row_count],
            due: vec![neighbour_count; row_count],
        }
    }

    /// Lowers the limit of a row to its k-th smallest upper bound, of at least k, and drops what lies above it.
    fn tighten(&mut self, at: usize, neighbour_count: usize) {
        let candidates = &mut self.candidates[at];
        candidates.select_nth_unstable_by(neighbour_count - 1, |a, b| a.high.total_cmp(&b.high));
        let limit = self.limits[at].min(candidates[neighbour_count - 1].high);
        candidates.retain(|candidate| candidate.low <= limit);
        self.limits[at] = limit;
        // In proportion, so that many rows as near as each other do not cost a look each.
        self.due[at] = candidates.len() + candidates.len() / 4 + 4;
    }
}

struct Search<'a> {
    /// (rows, width), as they were given.
    rows: &'a [f32],
    width: usize,
    neighbour_count: usize,
    tolerance: f32,
}

impl Search<'_> {
    /// The products of a block with itself, (rows, padded rows): each row looks at all others.
    #[inline(always)]
    fn within(&self, block: &Block<'_>, seen: &mut Seen, products: &[f32]) {
        let halves = self.halves(block);
        for (at, products) in products.chunks_exact(block.padded_len).enumerate() {
            for (chunk, (products, halves)) in chunks(products, &halves).enumerate() {
                let threshold = self.threshold(block.norms[at], seen.limits[at]);
                let mut hit = false;
                for lane in 0..LANE_COUNT {
                    hit |= products[lane] - halves[lane] >= threshold;
                }
                if hit {
                    for (lane, product) in products.iter().enumerate() {
                        let other = chunk * LANE_COUNT + lane;
                        if other != at && products[lane] - halves[lane] >= threshold {
                            self.offer(seen, at, block, other, block.norms[at], *product);
                        }
                    }
                }
            }
        }
    }

    /// The products of two blocks, (left rows, padded right rows): the rows of each look at those of the other.
    #[inline(always)]
    fn between(&self, left: (&Block<'_>, &mut Seen), right: (&Block<'_>, &mut Seen), products: &[f32]) {
        let ((left, left_seen), (right, right_seen)) = (left, right);
        let halves = self.halves(right);
        // Nothing is near padding.
        let mut thresholds = vec![f32::INFINITY; right.padded_len];
        for ((threshold, norm), limit) in thresholds.iter_mut().zip(&right.norms).zip(&right_seen.limits) {
            *threshold = self.threshold(*norm, *limit);
        }
        for (at, products) in products.chunks_exact(right.padded_len).enumerate() {
            let own = left.norms[at];
            let half = self.half(own);
            for (chunk, (products, halves)) in chunks(products, &halves).enumerate() {
                let threshold = self.threshold(own, left_seen.limits[at]);
                let others = chunk * LANE_COUNT;
                let right_thresholds = &thresholds.as_chunks::<LANE_COUNT>().0[chunk];
                let mut hit = false;
                for lane in 0..LANE_COUNT {
                    hit |= products[lane] - halves[lane] >= threshold;
                    hit |= products[lane] - half >= right_thresholds[lane];
                }
                if !hit {
                    continue;
                }
                for (lane, product) in products.iter().enumerate() {
                    let other = others + lane;
                    if *product - halves[lane] >= threshold {
                        self.offer(left_seen, at, right, other, own, *product);
                    }
                    if *product - half >= thresholds[other] {
                        self.offer(right_seen, other, left, at, right.norms[other], *product);
                        thresholds[other] = self.threshold(right.norms[other], right_seen.limits[other]);
                    }
                }
            }
        }
    }

    /// A pair can be near only if ⟨x,y⟩ − half(y) ≥ threshold(x): the bound (1 − tolerance)·(‖x‖² + ‖y‖²) − 2⟨x,y⟩ ≤ limit, sorted by row.
    fn half(&self, norm: f32) -> f32 {
        0.5 * (1.0 - self.tolerance) * norm
    }

    fn threshold(&self, norm: f32, limit: f32) -> f32 {
        self.half(norm) - 0.5 * limit
    }

    fn halves(&self, block: &Block<'_>) -> Vec<f32> {
        let mut halves: Vec<f32> = block.norms.iter().map(|norm| self.half(*norm)).collect();
        // Compares as near to nothing, not even where the limit is infinite.
        halves.resize(block.padded_len, f32::NAN);
        halves
    }

    /// Row `other` of `block` as a candidate of row `at`, whose squared norm is `own`.
    fn offer(&self, seen: &mut Seen, at: usize, block: &Block<'_>, other: usize, own: f32, product: f32) {
        let sum = own + block.norms[other];
        let error = self.tolerance * sum;
        let square = sum - 2.0 * product;
        if square - error > seen.limits[at] {
            return;
        }
        let candidates = &mut seen.candidates[at];
        candidates.push(Candidate {
            low: square - error,
            high: square + error,
            row: (block.first_row + other) as u32,
        });
        if candidates.len() >= seen.due[at] {
            seen.tighten(at, self.neighbour_count);
            if seen.candidates[at].len() >= UNSETTLED_COUNT_MAX + self.neighbour_count {
                self.settle(seen, at);
            }
        }
    }

    /// Keeps the nearest of a row's candidates by their distances in f64; where they all coincide with it, none is nearer.
    fn settle(&self, seen: &mut Seen, at: usize) {
        let query = seen.first_row + at;
        let measured = seen.candidates[at]
            .drain(..)
            .map(|candidate| (self.distance(query, candidate), candidate));
        let mut measured: Vec<(f64, Candidate)> = measured.collect();
        measured.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        measured.truncate(self.neighbour_count);
        if measured.last().is_some_and(|(farthest, _)| *farthest == 0.0) {
            seen.limits[at] = f32::NEG_INFINITY;
        }
        seen.candidates[at].extend(measured.into_iter().map(|(_, candidate)| candidate));
        seen.due[at] = UNSETTLED_COUNT_MAX;
    }

    fn distance(&self, query: usize, candidate: Candidate) -> f64 {
        let row = |index: usize| &self.rows[index * self.width..(index + 1) * self.width];
        distance(row(query), row(candidate.row as usize))
    }

    fn refine(&self, query: usize, mut candidates: Vec<Candidate>) -> Vec<f64> {
        let mut highs: Vec<f32> = candidates.iter().map(|candidate| candidate.high).collect();
        let (_, limit, _) = highs.select_nth_unstable_by(self.neighbour_count - 1, f32::total_cmp);
        candidates.retain(|candidate| candidate.low <= *limit);
        let mut distances: Vec<f64> = candidates
            .iter()
            .map(|candidate| self.distance(query, *candidate))
            .collect();
        distances.sort_unstable_by(f64::total_cmp);
        distances.truncate(self.neighbour_count);
        distances
    }
}

#[inline(always)]
fn chunks<'a>(
    products: &'a [f32],
    halves: &'a [f32],
) -> impl Iterator<Item = (&'a [f32; LANE_COUNT], &'a [f32; LANE_COUNT])> {
    let (products, _) = products.as_chunks::<LANE_COUNT>();
    let (halves, _) = halves.as_chunks::<LANE_COUNT>();
    products.iter().zip(halves)
}

/// ‖x − y‖ in f64.
fn distance(x: &[f32], y: &[f32]) -> f64 {
    let square = |x: f32, y: f32| (f64::from(x) - f64::from(y)) * (f64::from(x) - f64::from(y));
    sum_of(x, y, square).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn brute(rows: &[f32], width: usize, k: usize) -> Vec<f64> {
        let rows: Vec<&[f32]> = rows.chunks(width).collect();
        let mut all = Vec::new();
        for (i, x) in rows.iter().enumerate() {
            let mut distances: Vec<f64> = rows
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .map(|(_, y)| distance(x, y))
                .collect();
            distances.sort_by(f64::total_cmp);
            all.extend_from_slice(&distances[..k]);
        }
        all
    }

    fn cloud(seed: u64, row_count: usize, width: usize) -> Vec<f32> {
        let rng = Rng::new(seed, "neighbours test");
        (0..row_count * width)
            .map(|i| rng.normal((i / width) as u64, (i % width) as u64) as f32)
            .collect()
    }

    #[test]
    fn neighbours_are_those_of_all_pairs() {
        for (row_count, width, k) in [(700, 20, 5), (1300, 6, 20), (130, 3, 2), (3, 2, 2)] {
            let rows = cloud(1, row_count, width);
            assert_eq!(
                nearest(matrix(&rows, row_count, width), k).unwrap().distances,
                brute(&rows, width, k)
            );
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let rows = cloud(4, 1200, 24);
        let pool = |count| rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
        let one = pool(1).install(|| nearest(matrix(&rows, 1200, 24), 7));
        assert_eq!(pool(5).install(|| nearest(matrix(&rows, 1200, 24), 7)), one);
    }

    #[test]
    fn squares_beyond_the_range_of_f32_are_no_matter() {
        for scale in [1e-30, 1e30] {
            let rows: Vec<f32> = cloud(5, 600, 9).into_iter().map(|x| x * scale).collect();
            assert_eq!(
                nearest(matrix(&rows, rows.len() / 9, 9), 3).unwrap().distances,
                brute(&rows, 9, 3)
            );
        }
    }

    #[test]
    fn tight_pairs_far_from_each_other_and_duplicates_are_exact() {
        // Pairs 1e-5 apart in a cloud 1e3 wide: f32 products alone would see distance zero or worse.
        let (pair_count, width) = (120, 16);
        let centres = cloud(2, pair_count, width);
        let jitter = cloud(3, 2 * pair_count, width);
        let mut rows = Vec::new();
        for pair in 0..pair_count {
            for side in 0..2 {
                for j in 0..width {
                    let offset = if pair == 0 {
                        0.0
                    } else {
                        1e-5 * jitter[(2 * pair + side) * width + j]
                    };
                    rows.push(1e3 * centres[pair * width + j] + offset);
                }
            }
        }
        let found = nearest(matrix(&rows, 2 * pair_count, width), 2).unwrap();
        assert_eq!(found.distances, brute(&rows, width, 2));
        assert_eq!(found.rows().next().unwrap()[0], 0.0);
    }

    #[test]
    fn rows_that_f32_cannot_tell_apart_are_exact() {
        // One row far away: beside the norm it gives all others, their own distances are below the rounding of f32. Half of them coincide.
        let (row_count, width) = (1500, 3);
        let mut rows = cloud(6, row_count, width);
        rows[..row_count / 2 * width].fill(0.5);
        rows[0] = 1e9;
        assert_eq!(
            nearest(matrix(&rows, row_count, width), 4).unwrap().distances,
            brute(&rows, width, 4)
        );
    }

    #[test]
    fn too_few_rows_have_no_neighbours() {
        assert_eq!(nearest(matrix(&[1.0, 2.0], 2, 1), 2), None);
        assert_eq!(nearest(matrix(&[], 0, 3), 1), None);
    }
}

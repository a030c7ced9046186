//! Exact nearest neighbours of every row, by blocked products.
//!
//! Squared distances are first formed in f32 as ‖x‖² + ‖y‖² − 2⟨x,y⟩, at the speed of the product. Their rounding error is bounded, so
//! every row that could be among the nearest is kept as a candidate, and the candidates' distances are then computed in f64 from
//! differences of the rows as given. What comes out is exact to f64 rounding, ties and near-duplicates included.

use crate::moments::norm;
use crate::product::{self, View};
use rayon::prelude::*;

const QUERY_TILE: usize = 128;
const CANDIDATE_TILE: usize = 512;

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

/// The `neighbour_count` nearest other rows of each row (row-major, `width` numbers each); `None` with too few rows for that.
pub fn nearest(rows: &[f32], width: usize, neighbour_count: usize) -> Option<Neighbours> {
    let row_count = rows.len() / width.max(1);
    if row_count <= neighbour_count || neighbour_count == 0 {
        return None;
    }
    let centred = centred(rows, width);
    let squares: Vec<f32> = centred
        .par_chunks(width)
        .map(|row| (norm(row) * norm(row)) as f32)
        .collect();
    let distances: Vec<f64> = (0..row_count.div_ceil(QUERY_TILE))
        .into_par_iter()
        .with_max_len(1)
        .flat_map_iter(|tile| {
            let queries = tile * QUERY_TILE..((tile + 1) * QUERY_TILE).min(row_count);
            let candidates = Candidates::of_tile(&centred, &squares, width, queries.clone(), neighbour_count);
            queries
                .zip(candidates)
                .flat_map(|(query, candidates)| refine(rows, width, query, candidates, neighbour_count))
                .collect::<Vec<f64>>()
        })
        .collect();
    Some(Neighbours {
        neighbour_count,
        distances,
    })
}

/// Rows less their mean: distances stay, norms shrink, and with them the error bound.
fn centred(rows: &[f32], width: usize) -> Vec<f32> {
    let row_count = rows.len() / width;
    let mut mean = vec![0.0_f64; width];
    mean.par_chunks_mut(64).enumerate().for_each(|(chunk, means)| {
        for row in rows.chunks_exact(width) {
            for (mean, x) in means.iter_mut().zip(&row[chunk * 64..]) {
                *mean += f64::from(*x);
            }
        }
        for mean in means {
            *mean /= row_count as f64;
        }
    });
    let mut centred = vec![0.0_f32; rows.len()];
    centred
        .par_chunks_mut(width)
        .zip(rows.par_chunks(width))
        .with_min_len(64)
        .for_each(|(centred, row)| {
            for ((centred, x), mean) in centred.iter_mut().zip(row).zip(&mean) {
                *centred = (f64::from(*x) - mean) as f32;
            }
        });
    centred
}

/// The rows that may be among the nearest of one query.
struct Candidates {
    /// (squared distance less its error bound, squared distance plus it, row).
    kept: Vec<(f32, f32, u32)>,
    /// No row whose lower bound lies above this can be among the nearest: the upper bound of the k-th best so far.
    limit: f32,
}

impl Candidates {
    fn of_tile(
        rows: &[f32],
        squares: &[f32],
        width: usize,
        queries: std::ops::Range<usize>,
        neighbour_count: usize,
    ) -> Vec<Self> {
        // Rounding of a product of n terms: the probabilistic bound 8·√n·u (Higham and Mary 2019) fails with a chance below e^-30. The
        // last terms cover rounding of the centred rows and of the sum of three.
        let unit = f32::EPSILON / 2.0;
        let tolerance = unit * (8.0 * (width as f32).sqrt() + 8.0);
        let mut all: Vec<Self> = queries
            .clone()
            .map(|_| Self {
                kept: Vec::new(),
                limit: f32::INFINITY,
            })
            .collect();
        let mut products = vec![0.0_f32; queries.len() * CANDIDATE_TILE];
        let row_count = squares.len();
        for start in (0..row_count).step_by(CANDIDATE_TILE) {
            let tile = start..(start + CANDIDATE_TILE).min(row_count);
            product::multiply(
                View::new(&rows[queries.start * width..], queries.len(), width, width),
                View::new(&rows[tile.start * width..], tile.len(), width, width).transposed(),
                &mut products,
                CANDIDATE_TILE,
            );
            for ((query, candidates), products) in
                queries.clone().zip(&mut all).zip(products.chunks_exact(CANDIDATE_TILE))
            {
                candidates.take_tile(query, squares, tile.clone(), products, tolerance, neighbour_count);
            }
        }
        for candidates in &mut all {
            candidates.tighten(neighbour_count);
        }
        all
    }

    fn take_tile(
        &mut self,
        query: usize,
        squares: &[f32],
        tile: std::ops::Range<usize>,
        products: &[f32],
        tolerance: f32,
        neighbour_count: usize,
    ) {
        let own = squares[query];
        for (row, product) in tile.clone().zip(products) {
            let sum = own + squares[row];
            let error = tolerance * sum;
            let square = sum - 2.0 * product;
            if square - error <= self.limit && row != query {
                self.kept.push((square - error, square + error, row as u32));
                if self.kept.len() >= 4 * neighbour_count + 64 && self.kept.len().is_power_of_two() {
                    self.tighten(neighbour_count);
                }
            }
        }
        self.tighten(neighbour_count);
    }

    /// Lowers the limit to the k-th smallest upper bound and drops what lies above it.
    fn tighten(&mut self, neighbour_count: usize) {
        if self.kept.len() < neighbour_count {
            return;
        }
        self.kept
            .select_nth_unstable_by(neighbour_count - 1, |a, b| a.1.total_cmp(&b.1));
        self.limit = self.limit.min(self.kept[neighbour_count - 1].1);
        let limit = self.limit;
        self.kept.retain(|(low, _, _)| *low <= limit);
    }
}

fn refine(rows: &[f32], width: usize, query: usize, candidates: Candidates, neighbour_count: usize) -> Vec<f64> {
    let row = |index: usize| &rows[index * width..(index + 1) * width];
    let own = row(query);
    let mut distances: Vec<f64> = candidates
        .kept
        .iter()
        .map(|&(_, _, other)| distance(own, row(other as usize)))
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    distances.truncate(neighbour_count);
    distances
}

/// ‖x − y‖ in f64, over eight lanes in a fixed order.
fn distance(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (x_chunks, y_chunks) = (x.chunks_exact(8), y.chunks_exact(8));
    for ((lane, x), y) in lanes.iter_mut().zip(x_chunks.remainder()).zip(y_chunks.remainder()) {
        let difference = f64::from(*x) - f64::from(*y);
        *lane += difference * difference;
    }
    for (x, y) in x_chunks.zip(y_chunks) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            let difference = f64::from(*x) - f64::from(*y);
            *lane += difference * difference;
        }
    }
    lanes.iter().sum::<f64>().sqrt()
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
        for (row_count, width, k) in [(700, 20, 5), (130, 3, 2), (3, 2, 2)] {
            let rows = cloud(1, row_count, width);
            assert_eq!(nearest(&rows, width, k).unwrap().distances, brute(&rows, width, k));
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
        let found = nearest(&rows, width, 2).unwrap();
        assert_eq!(found.distances, brute(&rows, width, 2));
        assert_eq!(found.rows().next().unwrap()[0], 0.0);
    }

    #[test]
    fn too_few_rows_have_no_neighbours() {
        assert_eq!(nearest(&[1.0, 2.0], 1, 2), None);
        assert_eq!(nearest(&[], 3, 1), None);
    }
}

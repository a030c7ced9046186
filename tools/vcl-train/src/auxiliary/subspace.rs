//! The leading eigenvectors of a symmetric positive matrix, in f64, without LAPACK.
//!
//! Small matrices are diagonalised by Jacobi rotations. Larger ones get block iteration with Rayleigh–Ritz, started from the
//! subspace of the step before: a training step turns it little, so a few products are enough.

use numerics::rng::Rng;
use rayon::prelude::*;

/// Up to this order Jacobi is as quick as anything.
const JACOBI_ORDER_MAX: usize = 48;
/// Vectors iterated beside those wanted, so that convergence does not hang on the gap after the last wanted one.
const GUARD_COLUMNS: usize = 8;
const ITERATIONS_MAX: usize = 300;
/// Of the residual ‖Mv − θv‖, relative to the largest eigenvalue.
const TOLERANCE: f64 = 1e-9;

/// Eigenvalues descending, and as many unit vectors.
#[derive(Clone, Debug, Default)]
pub struct Leading {
    pub values: Vec<f64>,
    /// Vector j is `vectors[j]`.
    pub vectors: Vec<Vec<f64>>,
    /// All vectors that were iterated: the start for the next matrix.
    pub block: Vec<Vec<f64>>,
}

/// The `k` leading eigenpairs of the row-major symmetric `matrix`; `start` may hold a guess.
pub fn leading(matrix: &[f32], order: usize, k: usize, start: &[Vec<f64>]) -> Leading {
    let k = k.min(order);
    if order <= JACOBI_ORDER_MAX {
        let wide: Vec<f64> = matrix.iter().map(|&value| f64::from(value)).collect();
        let (values, vectors) = jacobi(wide, order);
        return Leading {
            values: values[..k].to_vec(),
            vectors: vectors[..k].to_vec(),
            block: Vec::new(),
        };
    }
    let width = (k + GUARD_COLUMNS).min(order);
    let rng = Rng::new(0, "subspace");
    let mut block: Vec<Vec<f64>> = start
        .iter()
        .filter(|vector| vector.len() == order)
        .take(width)
        .cloned()
        .collect();
    for index in block.len()..width {
        block.push((0..order).map(|at| rng.normal(index as u64, at as u64)).collect());
    }
    orthonormalise(&mut block);
    let mut found = Leading::default();
    for _ in 0..ITERATIONS_MAX {
        let image = multiply(matrix, order, &block);
        let mut projected = vec![0.0; width * width];
        for i in 0..width {
            for j in 0..width {
                projected[i * width + j] = 0.5 * (dot(&block[i], &image[j]) + dot(&block[j], &image[i]));
            }
        }
        let (values, turns) = jacobi(projected, width);
        let vectors = turned(&block, &turns);
        let images = turned(&image, &turns);
        let residual = (0..k)
            .map(|j| {
                let square: f64 = images[j]
                    .iter()
                    .zip(&vectors[j])
                    .map(|(y, v)| (y - values[j] * v).powi(2))
                    .sum();
                square.sqrt()
            })
            .fold(0.0, f64::max);
        found = Leading {
            values: values[..k].to_vec(),
            vectors: vectors[..k].to_vec(),
            block: vectors,
        };
        if residual <= TOLERANCE * values[0].abs() {
            break;
        }
        block = images;
        orthonormalise(&mut block);
    }
    found
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// matrix · each vector; rows in parallel, each summed in order.
fn multiply(matrix: &[f32], order: usize, block: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = block.len();
    // (order, width), so that one pass over a matrix row serves all vectors
    let mut columns = vec![0.0; order * width];
    for (j, vector) in block.iter().enumerate() {
        vector
            .iter()
            .enumerate()
            .for_each(|(i, &value)| columns[i * width + j] = value);
    }
    let rows: Vec<Vec<f64>> = matrix
        .par_chunks_exact(order)
        .map(|row| {
            let mut sums = vec![0.0; width];
            for (&weight, column) in row.iter().zip(columns.chunks_exact(width)) {
                let weight = f64::from(weight);
                sums.iter_mut()
                    .zip(column)
                    .for_each(|(sum, &value)| *sum += weight * value);
            }
            sums
        })
        .collect();
    (0..width).map(|j| rows.iter().map(|row| row[j]).collect()).collect()
}

/// Σ_i turns[j][i] · block[i], for every j.
fn turned(block: &[Vec<f64>], turns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    turns
        .par_iter()
        .map(|turn| {
            let mut sum = vec![0.0; block[0].len()];
            for (vector, &factor) in block.iter().zip(turn) {
                sum.iter_mut()
                    .zip(vector)
                    .for_each(|(sum, &value)| *sum += factor * value);
            }
            sum
        })
        .collect()
}

/// Gram–Schmidt, twice over for accuracy; a vector that vanishes is replaced by a random one.
pub fn orthonormalise(block: &mut [Vec<f64>]) {
    let rng = Rng::new(1, "subspace");
    for j in 0..block.len() {
        let (before, rest) = block.split_at_mut(j);
        let vector = &mut rest[0];
        for attempt in 0..3 {
            let length = dot(vector, vector).sqrt();
            for _ in 0..2 {
                for known in before.iter() {
                    let along = dot(known, vector);
                    vector
                        .iter_mut()
                        .zip(known)
                        .for_each(|(value, known)| *value -= along * known);
                }
            }
            let left = dot(vector, vector).sqrt();
            if left > 1e-10 * length && left > 0.0 {
                vector.iter_mut().for_each(|value| *value /= left);
                break;
            }
            let unit = (j * 3 + attempt) as u64;
            vector
                .iter_mut()
                .enumerate()
                .for_each(|(at, value)| *value = rng.normal(unit, at as u64));
        }
    }
}

/// All eigenpairs by cyclic Jacobi rotations, values descending.
fn jacobi(mut a: Vec<f64>, order: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut vectors: Vec<Vec<f64>> = (0..order)
        .map(|i| (0..order).map(|j| if i == j { 1.0 } else { 0.0 }).collect())
        .collect();
    let scale: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..60 {
        let off: f64 = (0..order)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i * order + j].powi(2))
            .sum();
        if off <= 1e-30 * scale {
            break;
        }
        for p in 0..order {
            for q in p + 1..order {
                let apq = a[p * order + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * order + q] - a[p * order + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for i in 0..order {
                    let (x, y) = (a[i * order + p], a[i * order + q]);
                    (a[i * order + p], a[i * order + q]) = (c * x - s * y, s * x + c * y);
                }
                for i in 0..order {
                    let (x, y) = (a[p * order + i], a[q * order + i]);
                    (a[p * order + i], a[q * order + i]) = (c * x - s * y, s * x + c * y);
                }
                let (first, second) = vectors.split_at_mut(q);
                for (x, y) in first[p].iter_mut().zip(&mut second[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = (0..order).map(|i| a[i * order + i]).zip(vectors).collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    pairs.into_iter().unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Σ λ_i v_i v_iᵀ with known orthonormal v.
    fn known(order: usize) -> (Vec<f32>, Vec<f64>, Vec<Vec<f64>>) {
        let rng = Rng::new(5, "known");
        let mut vectors: Vec<Vec<f64>> = (0..order)
            .map(|i| (0..order).map(|j| rng.normal(i as u64, j as u64)).collect())
            .collect();
        orthonormalise(&mut vectors);
        let values: Vec<f64> = (0..order).map(|i| 10.0 * 0.8f64.powi(i as i32) + 0.01).collect();
        let mut matrix = vec![0.0f32; order * order];
        for i in 0..order {
            for j in 0..order {
                matrix[i * order + j] = (0..order)
                    .map(|l| values[l] * vectors[l][i] * vectors[l][j])
                    .sum::<f64>() as f32;
            }
        }
        (matrix, values, vectors)
    }

    #[test]
    fn both_ways_find_known_eigenpairs() {
        for order in [12, 120] {
            let (matrix, values, vectors) = known(order);
            let found = leading(&matrix, order, 4, &[]);
            for j in 0..4 {
                assert!((found.values[j] - values[j]).abs() < 1e-5 * values[0]);
                assert!(dot(&found.vectors[j], &vectors[j]).abs() > 1.0 - 1e-8);
            }
            let again = leading(&matrix, order, 4, &found.block);
            assert!((again.values[0] - found.values[0]).abs() < 1e-9);
        }
    }

    #[test]
    fn a_matrix_of_low_rank_is_no_trouble() {
        let order = 60;
        let matrix: Vec<f32> = (0..order * order)
            .map(|at| ((at / order + 1) * (at % order + 1)) as f32)
            .collect();
        let found = leading(&matrix, order, 3, &[]);
        let square: f64 = (1..=order).map(|i| (i * i) as f64).sum();
        assert!((found.values[0] - square).abs() < 1e-6 * square && found.values[1].abs() < 1e-6 * square);
    }
}

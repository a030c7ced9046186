//! The few largest eigenvalues of a positive symmetric operator that is only known by what it does to a block of vectors.
//!
//! Block Lanczos with full reorthogonalisation from a seeded start: every application adds a block of directions to a Krylov space, on
//! which the small projected problem is solved exactly (Rayleigh–Ritz). It needs fewer passes over the data than subspace iteration
//! (randomized SVD with power iterations) for the same accuracy, because no direction seen is thrown away.

use crate::lapack::{self, LapackError};
use crate::rng::Rng;
use ndarray::{Array2, ArrayView2, Axis, s};
use products::{Product, matrix, sum_of, wide};

/// Directions sought beside those asked for, so that a gap lies where convergence needs one.
const EXTRA_COLUMN_COUNT: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Eigenpairs asked for.
    pub count: usize,
    /// Accepted ‖Av − θv‖ beside the largest eigenvalue.
    pub tolerance: f64,
    /// Applications of the operator.
    pub pass_count_max: usize,
}

#[derive(Clone, Debug)]
pub struct Leading {
    pub values: Vec<f64>,
    /// (values, order), unit rows.
    pub vectors: Array2<f64>,
    /// Whether every pair met the tolerance; a space that ran out of directions is exact.
    pub converged: bool,
    pub pass_count: usize,
}

/// Leading eigenpairs of the operator `apply`, which maps a block (rows of `order` numbers) to the operator's action on each row.
pub fn leading<E: From<LapackError>>(
    order: usize,
    goal: Goal,
    mut apply: impl FnMut(ArrayView2<'_, f64>) -> Result<Array2<f64>, E>,
) -> Result<Leading, E> {
    let count = goal.count.min(order);
    let rng = Rng::new(0, "krylov");
    let block_row_count = (count + EXTRA_COLUMN_COUNT).min(order);
    let mut start: Vec<f64> = (0..block_row_count * order)
        .map(|index| rng.normal((index / order) as u64, (index % order) as u64))
        .collect();
    let mut basis: Vec<f64> = Vec::new(); // (directions, order), orthonormal rows
    let mut image: Vec<f64> = Vec::new(); // the operator on each of them
    let mut projected = Array2::zeros((0, 0)); // basis · imageᵀ
    let mut pass_count = 0;
    loop {
        let known = basis.len() / order.max(1);
        let added = extend(&mut basis, &start, order);
        if added > 0 {
            let fresh = apply(matrix(&basis[known * order..], added, order))?;
            pass_count += 1;
            image.extend(&fresh);
        }
        let size = known + added;
        let (directions, images) = (matrix(&basis, size, order), matrix(&image, size, order));
        projected = grow(&projected, directions.view(), images.view());
        let exhausted = added == 0 || size == order;
        let last = exhausted || pass_count >= goal.pass_count_max;
        // The projected problem is solved on one thread: at every second pass.
        if last || pass_count % 2 == 0 {
            let found = ritz(&projected, directions, images, count, pass_count)?;
            let scale = found.values.first().copied().unwrap_or(0.0);
            let converged = exhausted || found.residual <= goal.tolerance * scale;
            if converged || last {
                return Ok(found.ended(converged));
            }
        }
        start = image[known * order..].to_vec();
    }
}

/// What the directions seen tell of the operator.
struct Ritz {
    /// Descending, as the projected problem has them.
    values: Vec<f64>,
    /// (values, order).
    vectors: Array2<f64>,
    /// The largest ‖Av − θv‖.
    residual: f64,
    pass_count: usize,
}

/// Solves the projected problem exactly for its `count` leading pairs.
fn ritz(
    projected: &Array2<f64>,
    directions: ArrayView2<'_, f64>,
    images: ArrayView2<'_, f64>,
    count: usize,
    pass_count: usize,
) -> Result<Ritz, LapackError> {
    let solved = lapack::eigen(projected.clone())?;
    let (rotation, _) = solved.vectors.view().split_at(Axis(0), count.min(projected.nrows()));
    let vectors = Product::of(rotation.view(), directions).to_array();
    let images = Product::of(rotation, images).to_array();
    let residuals = vectors.rows().into_iter().zip(images.rows()).zip(&solved.values);
    let residual = residuals
        .map(|((vector, image), value)| {
            let apart = vector.iter().zip(image).map(|(v, a)| (a - value * v) * (a - value * v));
            apart.sum::<f64>().sqrt()
        })
        .fold(0.0, f64::max);
    Ok(Ritz {
        values: solved.values,
        vectors,
        residual,
        pass_count,
    })
}

impl Ritz {
    fn ended(mut self, converged: bool) -> Leading {
        self.values.truncate(self.vectors.nrows());
        Leading {
            values: self.values.into_iter().map(|value| value.max(0.0)).collect(),
            vectors: self.vectors,
            converged,
            pass_count: self.pass_count,
        }
    }
}

/// Orthonormalises `block` against the basis and within itself, twice, and appends what is left; returns how many directions were new.
fn extend(basis: &mut Vec<f64>, block: &[f64], order: usize) -> usize {
    let known = basis.len() / order.max(1);
    let row_count = block.len() / order.max(1);
    let mut fresh = block.to_vec();
    let before: Vec<f64> = block.chunks_exact(order.max(1)).map(length).collect();
    if known > 0 {
        for _ in 0..2 {
            let old = matrix(basis, known, order);
            let weights = Product::of(matrix(&fresh, row_count, order), old.t()).to_array();
            let inside = Product::of(weights.view(), old).to_vec();
            for (fresh, inside) in fresh.iter_mut().zip(&inside) {
                *fresh -= inside;
            }
        }
    }
    let mut added = 0;
    for (row, before) in fresh.chunks_exact(order.max(1)).zip(before) {
        let mut row = row.to_vec();
        for _ in 0..2 {
            for other in basis[known * order..].chunks_exact(order) {
                let weight = dot(&row, other);
                wide!({
                    for (x, y) in row.iter_mut().zip(other) {
                        *x -= weight * y;
                    }
                });
            }
        }
        let length = length(&row);
        // What is left is rounding: the direction was there already.
        if length <= 1e-13 * before || length == 0.0 || known + added == order {
            continue;
        }
        basis.extend(row.iter().map(|x| x / length));
        added += 1;
    }
    added
}

fn length(row: &[f64]) -> f64 {
    dot(row, row).sqrt()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    sum_of(x, y, |x, y| x * y)
}

/// Adds the new rows and columns to the projected operator.
fn grow(old: &Array2<f64>, directions: ArrayView2<'_, f64>, images: ArrayView2<'_, f64>) -> Array2<f64> {
    let (known, size) = (old.nrows(), directions.nrows());
    let mut grown = Array2::zeros((size, size));
    grown.slice_mut(s![..known, ..known]).assign(old);
    let (_, fresh) = images.split_at(Axis(0), known);
    let strip = Product::of(fresh, directions.t()).to_array();
    for (at, strip) in (known..size).zip(strip.rows()) {
        grown.row_mut(at).assign(&strip);
        grown.column_mut(at).assign(&strip);
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Diagonal operator with the given eigenvalues: leading vectors are unit vectors.
    fn diagonal(values: &[f64], goal: Goal) -> Leading {
        leading::<LapackError>(values.len(), goal, |block| Ok(&block * &ndarray::aview1(values))).unwrap()
    }

    #[test]
    fn leading_pairs_of_a_decaying_spectrum_are_found_in_few_passes() {
        let values: Vec<f64> = (0..400).map(|i| 0.9_f64.powi(i)).collect();
        let found = diagonal(
            &values,
            Goal {
                count: 4,
                tolerance: 1e-11,
                pass_count_max: 30,
            },
        );
        assert!(found.converged && found.pass_count <= 12, "{} passes", found.pass_count);
        for (index, (value, vector)) in found.values.iter().zip(found.vectors.rows()).enumerate() {
            assert!((value - values[index]).abs() < 1e-12);
            assert!(vector[index].abs() > 1.0 - 1e-12);
        }
    }

    #[test]
    fn a_low_rank_operator_ends_exactly() {
        let mut values = vec![0.0; 50];
        values[7] = 3.0;
        values[9] = 2.0;
        let found = diagonal(
            &values,
            Goal {
                count: 5,
                tolerance: 1e-11,
                pass_count_max: 30,
            },
        );
        assert!(found.converged);
        assert!(
            (found.values[0] - 3.0).abs() < 1e-12 && (found.values[1] - 2.0).abs() < 1e-12 && found.values[2] < 1e-10
        );
    }

    #[test]
    fn a_flat_spectrum_that_does_not_converge_says_so() {
        let values: Vec<f64> = (0..300).map(|i| 1.0 - 1e-5 * f64::from(i)).collect();
        assert!(
            !diagonal(
                &values,
                Goal {
                    count: 3,
                    tolerance: 1e-12,
                    pass_count_max: 3
                }
            )
            .converged
        );
    }
}

//! The leading eigenpairs of a symmetric positive matrix, in f64, without LAPACK: for programs that link none.
//!
//! Small matrices are diagonalised by Jacobi rotations. Larger ones get block iteration with Rayleigh–Ritz from a guess: where a
//! matrix changes little from one call to the next, the block of the last call makes a few products enough. A matrix that is known
//! only by its action, and LAPACK for what is small, are `krylov`'s.

use crate::rng::Rng;
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

/// Up to this order Jacobi is as quick as anything.
const JACOBI_ORDER_MAX: usize = 48;
const JACOBI_SWEEP_COUNT_MAX: usize = 60;
/// Vectors iterated beside those wanted, so that convergence does not hang on the gap after the last wanted one.
const GUARD_COUNT: usize = 8;
const ITERATION_COUNT_MAX: usize = 300;
/// Of the residual ‖Mv − θv‖, relative to the largest eigenvalue.
const TOLERANCE: f64 = 1e-9;

#[derive(Clone, Debug)]
pub struct Leading {
    /// Descending.
    pub values: Vec<f64>,
    /// (values, order), unit rows.
    pub vectors: Array2<f64>,
    /// All vectors that were iterated, as rows: the start for the next matrix. None where there was nothing to iterate.
    pub block: Array2<f64>,
}

/// The `count` leading eigenpairs of a symmetric `matrix`; the rows of `start` are a guess, unless they are of another order.
pub fn leading(matrix: ArrayView2<'_, f32>, count: usize, start: ArrayView2<'_, f64>) -> Leading {
    let order = matrix.nrows();
    assert!(
        matrix.is_square() && matrix.is_standard_layout(),
        "a square row-major matrix"
    );
    let count = count.min(order);
    if order <= JACOBI_ORDER_MAX {
        let (values, vectors) = jacobi(matrix.mapv(f64::from));
        return Leading::of(&values, &vectors, count, Array2::zeros((0, order)));
    }
    let mut block = first_block(order, (count + GUARD_COUNT).min(order), start);
    let mut iteration = 1;
    loop {
        let image = times(matrix, &block);
        let (values, turns) = jacobi(projected(&block, &image));
        let (vectors, mut images) = (turned(&turns, &block), turned(&turns, &image));
        let converged = residual(&values, &vectors, &images, count) <= TOLERANCE * values[0].abs();
        if converged || iteration == ITERATION_COUNT_MAX {
            return Leading::of(&values, &vectors, count, vectors.clone());
        }
        orthonormalise(&mut images);
        block = images;
        iteration += 1;
    }
}

impl Leading {
    fn of(values: &[f64], vectors: &Array2<f64>, count: usize, block: Array2<f64>) -> Self {
        Self {
            values: values[..count].to_vec(),
            vectors: vectors.slice(s![..count, ..]).to_owned(),
            block,
        }
    }
}

/// The guess, filled up with random rows.
fn first_block(order: usize, width: usize, start: ArrayView2<'_, f64>) -> Array2<f64> {
    let known = if start.ncols() == order { start.nrows() } else { 0 };
    let rng = Rng::new(0, "subspace");
    let mut block = Array2::from_shape_fn((width, order), |(row, at)| {
        if row < known {
            start[[row, at]]
        } else {
            rng.normal(row as u64, at as u64)
        }
    });
    orthonormalise(&mut block);
    block
}

/// block · imageᵀ, made symmetric.
fn projected(block: &Array2<f64>, image: &Array2<f64>) -> Array2<f64> {
    let width = block.nrows();
    Array2::from_shape_fn((width, width), |(i, j)| {
        0.5 * (dot(row(block, i), row(image, j)) + dot(row(block, j), row(image, i)))
    })
}

/// The largest ‖Mv − θv‖ of the pairs wanted.
fn residual(values: &[f64], vectors: &Array2<f64>, images: &Array2<f64>, count: usize) -> f64 {
    let of_pair = |j: usize| {
        let apart = row(images, j).iter().zip(row(vectors, j));
        apart.map(|(y, v)| (y - values[j] * v).powi(2)).sum::<f64>().sqrt()
    };
    (0..count).map(of_pair).fold(0.0, f64::max)
}

fn row(rows: &Array2<f64>, index: usize) -> &[f64] {
    &rows.as_slice().expect("made row-major here")[index * rows.ncols()..][..rows.ncols()]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// into += factor · values.
fn add(into: &mut [f64], factor: f64, values: &[f64]) {
    into.iter_mut().zip(values).for_each(|(into, x)| *into += factor * x);
}

/// The symmetric matrix on each row of the block; its rows in parallel, each summed in order.
fn times(matrix: ArrayView2<'_, f32>, block: &Array2<f64>) -> Array2<f64> {
    let (width, order) = block.dim();
    // (order, width), so that one pass over a matrix row serves all vectors
    let columns = block.t();
    let columns = columns.as_standard_layout();
    let columns = columns.as_slice().expect("made row-major here");
    let rows: Vec<Vec<f64>> = (0..order)
        .into_par_iter()
        .map(|i| {
            let mut sums = vec![0.0; width];
            for (&weight, column) in matrix.row(i).iter().zip(columns.chunks_exact(width)) {
                add(&mut sums, f64::from(weight), column);
            }
            sums
        })
        .collect();
    Array2::from_shape_fn((width, order), |(j, i)| rows[i][j])
}

/// turns · block, each row summed in order.
fn turned(turns: &Array2<f64>, block: &Array2<f64>) -> Array2<f64> {
    let mut sums = Array2::<f64>::zeros(block.raw_dim());
    let places = sums.as_slice_mut().expect("made row-major here");
    places
        .par_chunks_exact_mut(block.ncols())
        .enumerate()
        .for_each(|(j, sum)| {
            for (i, &factor) in row(turns, j).iter().enumerate() {
                add(sum, factor, row(block, i));
            }
        });
    sums
}

/// The first principal component of rows, centred, by their Gram matrix: for few rows. `None` where the rows are all the same. Of its
/// two directions it is the one whose largest entry is positive.
pub fn principal(rows: &[Vec<f64>]) -> Option<Vec<f64>> {
    let count = rows.len() as f64;
    let width = rows.first()?.len();
    let mut centred = rows.to_vec();
    for at in 0..width {
        let mean = rows.iter().map(|row| row[at]).sum::<f64>() / count;
        centred.iter_mut().for_each(|row| row[at] -= mean);
    }
    let gram = Array2::from_shape_fn((rows.len(), rows.len()), |(i, j)| dot(&centred[i], &centred[j]));
    let scale: f64 = rows.iter().map(|row| dot(row, row)).sum();
    let (values, vectors) = jacobi(gram);
    if values[0] <= 1e-24 * scale {
        return None;
    }
    let mut component = vec![0.0; width];
    for (weight, row) in vectors.row(0).iter().zip(&centred) {
        add(&mut component, *weight, row);
    }
    let largest = component
        .iter()
        .copied()
        .fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
    let length = dot(&component, &component).sqrt().copysign(largest);
    Some(component.iter().map(|x| x / length).collect())
}

/// Gram–Schmidt on the rows, twice over for accuracy; a row that vanishes is replaced by a random one.
pub fn orthonormalise(rows: &mut Array2<f64>) {
    let rng = Rng::new(1, "subspace");
    let order = rows.ncols();
    let numbers = rows.as_slice_mut().expect("row-major");
    for j in 0..numbers.len() / order.max(1) {
        let (before, rest) = numbers.split_at_mut(j * order);
        let vector = &mut rest[..order];
        for attempt in 0..3 {
            let length = dot(vector, vector).sqrt();
            for _ in 0..2 {
                for known in before.chunks_exact(order) {
                    let along = dot(known, vector);
                    vector.iter_mut().zip(known).for_each(|(x, known)| *x -= along * known);
                }
            }
            let left = dot(vector, vector).sqrt();
            if left > 1e-10 * length && left > 0.0 {
                vector.iter_mut().for_each(|x| *x /= left);
                break;
            }
            let unit = (j * 3 + attempt) as u64;
            let random = (0..).map(|at| rng.normal(unit, at));
            vector.iter_mut().zip(random).for_each(|(x, random)| *x = random);
        }
    }
}

/// All eigenpairs by cyclic Jacobi rotations, values descending, vectors as rows.
fn jacobi(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let order = a.nrows();
    let mut vectors = Array2::eye(order);
    let scale: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..JACOBI_SWEEP_COUNT_MAX {
        let below = (0..order).flat_map(|i| (0..i).map(move |j| [i, j]));
        let off: f64 = below.map(|at| a[at].powi(2)).sum();
        if off <= 1e-30 * scale {
            break;
        }
        for p in 0..order {
            for q in p + 1..order {
                if a[[p, q]] != 0.0 {
                    let (c, s) = rotation(&a, p, q);
                    for i in 0..order {
                        rotate(&mut a, [i, p], [i, q], c, s);
                    }
                    for i in 0..order {
                        rotate(&mut a, [p, i], [q, i], c, s);
                    }
                    for i in 0..order {
                        rotate(&mut vectors, [p, i], [q, i], c, s);
                    }
                }
            }
        }
    }
    let mut descending: Vec<usize> = (0..order).collect();
    descending.sort_by(|&x, &y| a[[y, y]].total_cmp(&a[[x, x]]));
    let values = descending.iter().map(|&i| a[[i, i]]).collect();
    (
        values,
        Array2::from_shape_fn((order, order), |(i, j)| vectors[[descending[i], j]]),
    )
}

/// Cosine and sine of the rotation that makes (p, q) zero.
fn rotation(a: &Array2<f64>, p: usize, q: usize) -> (f64, f64) {
    let theta = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
    let t = match theta {
        0.0 => 1.0,
        _ => theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt()),
    };
    let c = 1.0 / (t * t + 1.0).sqrt();
    (c, t * c)
}

fn rotate(matrix: &mut Array2<f64>, first: [usize; 2], second: [usize; 2], c: f64, s: f64) {
    let (x, y) = (matrix[first], matrix[second]);
    (matrix[first], matrix[second]) = (c * x - s * y, s * x + c * y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_principal_component_of_a_line_is_its_direction() {
        let row = |t: f64| vec![1.0 + 3.0 * t, 2.0, -4.0 * t];
        let component = principal(&[row(-1.0), row(0.5), row(2.0)]).unwrap();
        for (found, wanted) in component.iter().zip([-0.6, 0.0, 0.8]) {
            assert!((found - wanted).abs() < 1e-12, "{component:?}");
        }
        assert_eq!(principal(&[row(1.0), row(1.0)]), None);
        assert_eq!(principal(&[]), None);
    }

    use crate::rng::Rng;
    use proptest::prelude::*;

    /// Σ λ_i v_i v_iᵀ with orthonormal v, and these.
    fn known(order: usize, seed: u64, value: impl Fn(usize) -> f64) -> (Array2<f32>, Vec<f64>, Array2<f64>) {
        let rng = Rng::new(seed, "known");
        let mut vectors = Array2::from_shape_fn((order, order), |(i, j)| rng.normal(i as u64, j as u64));
        orthonormalise(&mut vectors);
        let values: Vec<f64> = (0..order).map(value).collect();
        let matrix = Array2::from_shape_fn((order, order), |(i, j)| {
            let terms = values.iter().zip(vectors.rows()).map(|(value, v)| value * v[i] * v[j]);
            terms.sum::<f64>() as f32
        });
        (matrix, values, vectors)
    }

    fn none() -> Array2<f64> {
        Array2::zeros((0, 0))
    }

    #[test]
    fn both_ways_find_known_eigenpairs() {
        for order in [12, 120] {
            let (matrix, values, vectors) = known(order, 5, |i| 10.0 * 0.8f64.powi(i as i32) + 0.01);
            let found = leading(matrix.view(), 4, none().view());
            for j in 0..4 {
                assert!((found.values[j] - values[j]).abs() < 1e-5 * values[0]);
                assert!(dot(row(&found.vectors, j), row(&vectors, j)).abs() > 1.0 - 1e-8);
            }
            let again = leading(matrix.view(), 4, found.block.view());
            assert!((again.values[0] - found.values[0]).abs() < 1e-9);
        }
    }

    #[test]
    fn a_matrix_of_low_rank_is_no_trouble() {
        let order = 60;
        let matrix = Array2::from_shape_fn((order, order), |(i, j)| ((i + 1) * (j + 1)) as f32);
        let found = leading(matrix.view(), 3, none().view());
        let square: f64 = (1..=order).map(|i| (i * i) as f64).sum();
        assert!((found.values[0] - square).abs() < 1e-6 * square && found.values[1].abs() < 1e-6 * square);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the order (both ways), the spectrum and the guess: values descend, rows are orthonormal, and M·v = λ·v.
        #[test]
        fn pairs_satisfy_the_eigenvalue_equation(order in 1_usize..90, count in 1_usize..6, seed: u64, ratio in 0.3_f64..0.95) {
            let (matrix, ..) = known(order, seed, |i| ratio.powi(i as i32));
            let guess = known(order, seed ^ 1, |_| 1.0).2;
            let found = leading(matrix.view(), count, guess.slice(s![..count.min(order), ..]));
            prop_assert_eq!(found.vectors.dim(), (count.min(order), order));
            prop_assert!(found.values.windows(2).all(|pair| pair[0] >= pair[1]));
            let image = times(matrix.view(), &found.vectors);
            for (j, &value) in found.values.iter().enumerate() {
                for i in 0..=j {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    prop_assert!((dot(row(&found.vectors, i), row(&found.vectors, j)) - expected).abs() < 1e-9);
                }
                let apart = row(&image, j).iter().zip(row(&found.vectors, j)).map(|(y, v)| (y - value * v).abs());
                prop_assert!(apart.fold(0.0, f64::max) < 1e-6);
            }
        }
    }
}

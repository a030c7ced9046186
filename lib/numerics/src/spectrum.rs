//! The spectrum of centred rows: eigenvalues of their covariance Σ = (1/N) Σ(x−x̄)(x−x̄)ᵀ, and leading components.
//!
//! Rows are reduced to the smaller of two symmetric matrices, the scatter (width × width) or the Gram matrix (rows × rows), which
//! have the same eigenvalues. Everything from there on is f64.

use crate::band;
use crate::krylov::{self, Goal};
use crate::lapack::{self, LapackError};
use crate::moments::{Moments, packed_row_start};
use ndarray::{Array2, ArrayView2, Axis, s};
use products::{Product, strided_mut};
use rayon::prelude::*;

/// Up to this order one divide-and-conquer call gives everything at once; beyond it, the leading vectors come from the block method and
/// the eigenvalues from a band.
const DIRECT_ORDER_MAX: usize = 768;

/// Accepted residual of leading vectors, and applications of the matrix before LAPACK is asked instead.
const TOLERANCE: f64 = 1e-10;
const PASS_COUNT_MAX: usize = 24;

/// Rows of a product that one task computes.
const STRIP: usize = 128;

#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Dimensions of the space.
    pub width: usize,
    /// Eigenvalues of the covariance, descending; below rounding they are exactly zero. Those beyond min(rows, width) are zero and left
    /// out. Only the leading ones when the block method was asked for.
    pub values: Vec<f64>,
    /// Whether `values` holds them all.
    pub complete: bool,
    /// Σλ: the trace of the covariance.
    pub total: f64,
    /// (components, width): unit rows, the entry of largest magnitude positive. Components without variance are left out.
    pub components: Vec<f64>,
}

impl Spectrum {
    pub fn component(&self, index: usize) -> Option<&[f64]> {
        self.components.chunks_exact(self.width.max(1)).nth(index)
    }

    pub fn component_count(&self) -> usize {
        self.components.len() / self.width.max(1)
    }

    /// From moments: all eigenvalues, and up to `component_count` components.
    pub fn of_moments(moments: &Moments, component_count: usize) -> Result<Self, LapackError> {
        let width = moments.width();
        let Some(packed) = moments.m2() else {
            return Ok(Self::empty(width));
        };
        let scale = 1.0 / moments.count() as f64;
        let covariance = unpack(packed, width, scale);
        let total = covariance.diag().iter().sum();
        let (values, vectors) = symmetric(covariance, component_count)?;
        Ok(Self::finish(width, values, total, vectors))
    }

    /// From moments: the `component_count` leading pairs alone, by the block method.
    pub fn leading_of_moments(moments: &Moments, component_count: usize) -> Result<Self, LapackError> {
        let width = moments.width();
        let Some(packed) = moments.m2() else {
            return Ok(Self::empty(width));
        };
        let covariance = unpack(packed, width, 1.0 / moments.count() as f64);
        let total = covariance.diag().iter().sum();
        let found = leading_pairs(&covariance, component_count)?;
        let complete = component_count >= width;
        Ok(Self {
            complete,
            ..Self::finish(width, found.0, total, found.1)
        })
    }

    /// From rows less their mean, no more of them than dimensions: through the Gram matrix.
    pub fn of_centred_rows(centred: ArrayView2<'_, f64>, component_count: usize) -> Result<Self, LapackError> {
        let width = centred.ncols();
        if centred.nrows() == 0 {
            return Ok(Self::empty(width));
        }
        let (spectrum, weights) = Self::of_gram(gram(centred.view()), width, component_count)?;
        let mut components = Product::of(weights.view(), centred).to_vec();
        normalise(&mut components, width);
        Ok(Self { components, ..spectrum })
    }

    /// From a Gram matrix of centred rows in any space. Components are left empty: the weights returned, (components, rows), are what
    /// the rows must be combined with to give them, and times √(N·λ) they are the rows' projections.
    pub fn of_gram(
        mut gram: Array2<f64>,
        width: usize,
        component_count: usize,
    ) -> Result<(Self, Array2<f64>), LapackError> {
        let row_count = gram.nrows();
        gram.mapv_inplace(|x| x / row_count as f64);
        let total = gram.diag().iter().sum();
        let (values, vectors) = symmetric(gram, component_count)?;
        let mut spectrum = Self::finish(row_count, values, total, vectors);
        let weights = std::mem::take(&mut spectrum.components);
        let weights = Array2::from_shape_vec((weights.len() / row_count.max(1), row_count), weights);
        spectrum.width = width;
        spectrum.values.truncate(row_count.min(width));
        Ok((spectrum, weights.expect("whole rows")))
    }

    /// From an operator that applies the covariance to a block of vectors: leading pairs only. Returns the passes taken and whether the
    /// tolerance was met.
    pub fn of_operator<E: From<LapackError>>(
        width: usize,
        total: f64,
        goal: Goal,
        apply: impl FnMut(ArrayView2<'_, f64>) -> Result<Array2<f64>, E>,
    ) -> Result<(Self, usize, bool), E> {
        let found = krylov::leading(width, goal, apply)?;
        let complete = goal.count >= width;
        let spectrum = Self {
            complete,
            ..Self::finish(width, found.values, total, found.vectors)
        };
        Ok((spectrum, found.pass_count, found.converged))
    }

    fn empty(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
            complete: true,
            total: 0.0,
            components: Vec::new(),
        }
    }

    fn finish(width: usize, mut values: Vec<f64>, total: f64, vectors: Array2<f64>) -> Self {
        let floor = values.first().copied().unwrap_or(0.0).max(0.0) * width as f64 * f64::EPSILON;
        for value in &mut values {
            if *value <= floor {
                *value = 0.0;
            }
        }
        let with_variance = values.iter().filter(|&&value| value > 0.0).count();
        let mut components: Vec<f64> = vectors.into_iter().take(with_variance * width).collect();
        normalise(&mut components, width);
        Self {
            width,
            values,
            complete: true,
            total,
            components,
        }
    }
}

/// Makes every row a unit vector whose entry of largest magnitude (the first such) is positive.
pub fn normalise(rows: &mut [f64], width: usize) {
    for row in rows.chunks_exact_mut(width.max(1)) {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let largest = row
            .iter()
            .fold(0.0_f64, |best, x| if x.abs() > best.abs() { *x } else { best });
        if length > 0.0 {
            let scale = if largest < 0.0 { -1.0 / length } else { 1.0 / length };
            for x in row {
                *x *= scale;
            }
        }
    }
}

/// All eigenvalues and `vector_count` leading vectors of a full symmetric matrix.
fn symmetric(matrix: Array2<f64>, vector_count: usize) -> Result<(Vec<f64>, Array2<f64>), LapackError> {
    let vector_count = vector_count.min(matrix.nrows());
    if matrix.nrows() <= DIRECT_ORDER_MAX {
        let found = lapack::eigen(matrix)?;
        let vectors = found.vectors.slice_move(s![..vector_count, ..]);
        return Ok((found.values, vectors));
    }
    let vectors = leading_pairs(&matrix, vector_count)?.1;
    Ok((band::eigenvalues(matrix)?, vectors))
}

/// Leading eigenpairs of a full symmetric matrix by the block method; by LAPACK where that does not converge.
fn leading_pairs(matrix: &Array2<f64>, count: usize) -> Result<(Vec<f64>, Array2<f64>), LapackError> {
    let goal = Goal {
        count,
        tolerance: TOLERANCE,
        pass_count_max: PASS_COUNT_MAX,
    };
    let found = krylov::leading::<LapackError>(matrix.nrows(), goal, |block| {
        Ok(Product::of(block, matrix.view()).to_array_by_columns())
    })?;
    if found.converged {
        return Ok((found.values, found.vectors));
    }
    let found = lapack::leading(matrix.clone(), count.min(matrix.nrows()))?;
    Ok((found.values, found.vectors))
}

/// rows · rowsᵀ, full.
pub fn gram(rows: ArrayView2<'_, f64>) -> Array2<f64> {
    let row_count = rows.nrows();
    let mut gram = vec![0.0; row_count * row_count];
    gram.par_chunks_mut(STRIP * row_count.max(1))
        .zip(rows.axis_chunks_iter(Axis(0), STRIP).collect::<Vec<_>>())
        .for_each(|(out, strip)| {
            let place = strided_mut(out, strip.nrows(), row_count, row_count);
            Product::of(strip, rows.t()).fill(place);
        });
    let mut gram = Array2::from_shape_vec((row_count, row_count), gram).expect("a square");
    // The two halves come from different tiles: one is made the law.
    for i in 0..row_count {
        for j in 0..i {
            gram[[j, i]] = gram[[i, j]];
        }
    }
    gram
}

fn unpack(packed: &[f64], width: usize, scale: f64) -> Array2<f64> {
    let mut full = vec![0.0; width * width];
    full.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, out)| {
        for (column, x) in out.iter_mut().enumerate() {
            let (i, j) = if row <= column { (row, column) } else { (column, row) };
            *x = packed[packed_row_start(width, i) + j - i] * scale;
        }
    });
    Array2::from_shape_vec((width, width), full).expect("a square")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::{self, concentration};
    use crate::moments::Precision;
    use crate::rng::Rng;
    use products::matrix;

    /// Rows with the given standard deviations along the axes, then turned by reflections.
    fn planted(deviations: &[f64], row_count: usize, mean: f64) -> Vec<f64> {
        let width = deviations.len();
        let rng = Rng::new(3, "spectrum test");
        let mut rows: Vec<f64> = (0..row_count * width)
            .map(|i| deviations[i % width] * rng.normal((i / width) as u64, (i % width) as u64))
            .collect();
        turn(&mut rows, width, 1);
        for x in &mut rows {
            *x += mean;
        }
        rows
    }

    /// An orthogonal map: two Householder reflections.
    fn turn(rows: &mut [f64], width: usize, seed: u64) {
        let rng = Rng::new(seed, "turn");
        for unit in 0..2 {
            let axis: Vec<f64> = (0..width).map(|j| rng.normal(unit, j as u64)).collect();
            let square: f64 = axis.iter().map(|x| x * x).sum();
            for row in rows.chunks_exact_mut(width) {
                let along: f64 = row.iter().zip(&axis).map(|(x, a)| x * a).sum();
                for (x, a) in row.iter_mut().zip(&axis) {
                    *x -= 2.0 * along / square * a;
                }
            }
        }
    }

    fn spectrum(rows: &[f64], width: usize) -> Spectrum {
        Spectrum::of_moments(&Moments::of_rows(width, rows, Precision::Double).unwrap(), 4).unwrap()
    }

    fn centred(rows: &[f64], width: usize) -> Vec<f64> {
        let moments = Moments::of_rows(width, rows, Precision::Double).unwrap();
        rows.chunks(width)
            .flat_map(|row| row.iter().zip(moments.mean()).map(|(x, m)| x - m).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_planted_spectrum_is_recovered() {
        let deviations = [8.0, 4.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5];
        let found = spectrum(&planted(&deviations, 40_000, 3.0), 8);
        for (value, deviation) in found.values.iter().zip(deviations) {
            assert!(
                (value / (deviation * deviation) - 1.0).abs() < 0.03,
                "{value} for {}",
                deviation * deviation
            );
        }
        assert!((found.total - found.values.iter().sum::<f64>()).abs() < 1e-9);
    }

    #[test]
    fn translation_rotation_and_scale_change_no_measure() {
        let width = 12;
        let deviations: Vec<f64> = (0..width).map(|i| 3.0 * 0.7_f64.powi(i as i32)).collect();
        let rows = planted(&deviations, 300, 0.0);
        let base = spectrum(&rows, width);
        let mut moved: Vec<f64> = rows.iter().map(|x| 5.0 * x).collect();
        turn(&mut moved, width, 9);
        for row in moved.chunks_mut(width) {
            row[3] += 1000.0;
        }
        let moved = spectrum(&moved, width);
        for k in [1, 2, 4, 8] {
            let (a, b) = (
                concentration(&base.values, base.total, k),
                concentration(&moved.values, moved.total, k),
            );
            assert!((a.unwrap() - b.unwrap()).abs() < 1e-12);
        }
        for measure in [
            measures::participation_ratio,
            measures::effective_rank,
            measures::alpha_req,
            measures::matrix_entropy,
        ] {
            assert!((measure(&base.values).unwrap() - measure(&moved.values).unwrap()).abs() < 1e-9);
        }
    }

    #[test]
    fn concentration_is_one_when_rows_are_at_most_k_plus_one() {
        for k in [1, 2, 4, 8] {
            let width = 30;
            let rows = planted(&vec![1.0; width], k + 1, 2.0);
            let found =
                Spectrum::of_centred_rows(matrix(&centred(&rows, width), rows.len() / width, width), 4).unwrap();
            assert!((concentration(&found.values, found.total, k).unwrap() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gram_route_equals_the_scatter_route() {
        let (row_count, width) = (40, 64);
        let rows = planted(
            &(0..width).map(|i| 2.0 * 0.9_f64.powi(i as i32)).collect::<Vec<_>>(),
            row_count,
            10.0,
        );
        let scatter = spectrum(&rows, width);
        let gram = Spectrum::of_centred_rows(matrix(&centred(&rows, width), rows.len() / width, width), 4).unwrap();
        assert_eq!(gram.values.len(), row_count);
        for (a, b) in scatter.values.iter().zip(&gram.values).take(row_count - 1) {
            assert!((a - b).abs() < 1e-12 * scatter.values[0]);
        }
        for index in 0..4 {
            let (a, b) = (scatter.component(index).unwrap(), gram.component(index).unwrap());
            // Same sign too: it is fixed.
            assert!((a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() - 1.0).abs() < 1e-10);
        }
    }

    #[test]
    fn large_orders_agree_with_the_direct_route_and_repeat_to_the_bit_on_one_thread() {
        let width = DIRECT_ORDER_MAX + 40;
        let rows = planted(
            &(0..width).map(|i| 0.97_f64.powi(i as i32)).collect::<Vec<_>>(),
            900,
            1.0,
        );
        let moments = Moments::of_rows(width, &rows, Precision::Double).unwrap();
        let found = Spectrum::of_moments(&moments, 3).unwrap();
        let direct = lapack::eigen(unpack(moments.m2().unwrap(), width, 1.0 / 900.0)).unwrap();
        for (a, b) in found.values.iter().zip(&direct.values) {
            assert!((a - b).abs() < 1e-13 * direct.values[0].max(1.0) * 10.0);
        }
        for index in 0..3 {
            let b = direct.vectors.row(index);
            let cosine: f64 = found.component(index).unwrap().iter().zip(b).map(|(a, b)| a * b).sum();
            assert!((cosine.abs() - 1.0).abs() < 1e-12);
        }
        let leading = Spectrum::leading_of_moments(&moments, 3).unwrap();
        assert!(!leading.complete && leading.values.len() == 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| Spectrum::of_moments(&moments, 3).unwrap()), found);
    }

    #[test]
    fn one_row_and_constant_rows_have_no_variance() {
        let one = spectrum(&[1.0, 2.0, 3.0], 3);
        assert_eq!((one.total, one.component_count()), (0.0, 0));
        assert!(one.values.iter().all(|&value| value == 0.0));
        let same = spectrum(&[1e4, 7.0, 1e4, 7.0, 1e4, 7.0], 2);
        assert_eq!(same.total, 0.0);
    }
}

//! Leading pairs found by passes over the rows: nothing of the size of a covariance is formed.

use super::{Part, Summary};
use crate::rows::{Block, Rows};
use ndarray::{Array2, ArrayView2};
use numerics::krylov::Goal;
use numerics::lapack::LapackError;
use numerics::measures;
use numerics::moments::norm;
use numerics::spectrum::Spectrum;
use process::{Error, Result};
use products::{Product, matrix};
use rayon::prelude::*;

/// Residual of leading pairs that are found by passes over rows (an eigenvalue errs by its square over the gap), and passes before they
/// are taken as they are.
const ROWS_TOLERANCE: f64 = 1e-4;

const ROWS_PASS_COUNT_MAX: usize = 24;

/// Leading pairs of the rows of some layers together, by passes over them: nothing of the size of a covariance is formed.
pub(super) fn leading_by_passes(layers: &[Rows<'_>], count: usize) -> Result<Part> {
    let width = layers[0].width();
    let (summary, total) = summary_by_pass(layers)?;
    let row_count = summary.count as f64;
    let goal = Goal {
        count,
        tolerance: ROWS_TOLERANCE,
        pass_count_max: ROWS_PASS_COUNT_MAX,
    };
    let apply = |block: ArrayView2<'_, f64>| -> std::result::Result<Array2<f64>, PassError> {
        Ok(apply_covariance(layers, &summary.mean, block, row_count)?)
    };
    let (spectrum, _, _) =
        Spectrum::of_operator(width, total / row_count, goal, apply).map_err(|error| match error {
            PassError::Lapack(error) => Error::from_source(layers[0].source.name(), &error),
            PassError::Run(error) => error,
        })?;
    Ok(Part { summary, spectrum })
}

enum PassError {
    Lapack(LapackError),
    Run(Error),
}

impl From<LapackError> for PassError {
    fn from(error: LapackError) -> Self {
        Self::Lapack(error)
    }
}

impl From<Error> for PassError {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// Mean, norms and total scatter in one pass over blocks (Chan's update without the products).
fn summary_by_pass(layers: &[Rows<'_>]) -> Result<(Summary, f64)> {
    let width = layers[0].width();
    let mut count = 0_u64;
    let mut mean = vec![0.0; width];
    let mut scatter = vec![0.0; width];
    let mut unit_sum = vec![0.0; width];
    let mut norm_sum = 0.0;
    each_block(layers, |block| {
        let block_count = block.prompts.len() as f64;
        let norms: Vec<f64> = block.rows.par_chunks(width).with_min_len(16).map(norm).collect();
        if let Some(bad) = norms.iter().position(|norm| !norm.is_finite()) {
            let row = count as usize + bad;
            return Err(Error::input(
                layers[0].source.name(),
                format!("row {row} holds a number that is not finite"),
            ));
        }
        let total = count as f64 + block_count;
        let share = block_count / total;
        let weight = count as f64 * share;
        mean.par_chunks_mut(64)
            .zip(scatter.par_chunks_mut(64))
            .zip(unit_sum.par_chunks_mut(64))
            .enumerate()
            .for_each(|(chunk, ((mean, scatter), unit_sum))| {
                let columns = chunk * 64..chunk * 64 + mean.len();
                let origin: Vec<f64> = block.rows[columns.clone()].iter().map(|x| f64::from(*x)).collect();
                let (mut sums, mut squares) = (vec![0.0; mean.len()], vec![0.0; mean.len()]);
                for (row, norm) in block.rows.chunks_exact(width).zip(&norms) {
                    let inverse = if *norm > 0.0 { 1.0 / norm } else { 0.0 };
                    for (j, x) in row[columns.clone()].iter().enumerate() {
                        let x = f64::from(*x);
                        let shifted = x - origin[j];
                        sums[j] += shifted;
                        squares[j] += shifted * shifted;
                        unit_sum[j] += x * inverse;
                    }
                }
                for j in 0..mean.len() {
                    let delta = origin[j] + sums[j] / block_count - mean[j];
                    scatter[j] += squares[j] - sums[j] * sums[j] / block_count + delta * delta * weight;
                    mean[j] += delta * share;
                }
            });
        count += block.prompts.len() as u64;
        norm_sum += norms.iter().sum::<f64>();
        Ok(())
    })?;
    let total = scatter.iter().sum();
    let n = count as f64;
    let summary = Summary {
        count,
        root_mean_squares: mean
            .iter()
            .zip(&scatter)
            .map(|(mean, s)| (mean * mean + s / n).sqrt())
            .collect(),
        norm_mean: Some(norm_sum / n),
        anisotropy: measures::mean_pairwise_cosine(&unit_sum, count),
        mean,
        norm_sum,
        unit_sum,
    };
    Ok((summary, total))
}

/// (1/N) Σ (x − x̄)(x − x̄)ᵀ v for every row v of `vectors`: f32 products of short blocks, summed in f64.
fn apply_covariance(
    layers: &[Rows<'_>],
    mean: &[f64],
    vectors: ArrayView2<'_, f64>,
    row_count: f64,
) -> Result<Array2<f64>> {
    const PIECE: usize = 128;
    let width = layers[0].width();
    let single = vectors.mapv(|x| x as f32);
    let mut sums = vec![0.0; vectors.len()];
    each_block(layers, |block| {
        let pieces: Vec<Vec<f32>> = block
            .rows
            .par_chunks(PIECE * width)
            .map(|rows| {
                let n = rows.len() / width;
                let mut centred = vec![0.0_f32; rows.len()];
                for (centred, row) in centred.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
                    for ((centred, x), mean) in centred.iter_mut().zip(row).zip(mean) {
                        *centred = (f64::from(*x) - mean) as f32;
                    }
                }
                let rows = matrix(&centred, n, width);
                let along = Product::of(single.view(), rows.t()).to_array(); // (vectors, rows)
                Product::of(along.view(), rows).to_vec()
            })
            .collect();
        sums.par_chunks_mut(width).enumerate().for_each(|(vector, sums)| {
            for piece in &pieces {
                for (sum, x) in sums.iter_mut().zip(&piece[vector * width..]) {
                    *sum += f64::from(*x);
                }
            }
        });
        Ok(())
    })?;
    let sums = Array2::from_shape_vec(vectors.raw_dim(), sums).map_err(|error| Error::bug("passes", error))?;
    Ok(sums / row_count)
}

fn each_block(layers: &[Rows<'_>], mut visit: impl FnMut(Block<'_, f32>) -> Result<()> + Send) -> Result<()> {
    layers.iter().try_for_each(|rows| rows.for_each::<f32>(&mut visit))
}

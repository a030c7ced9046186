//! One matrix under one criterion: its weights, and the scores of its inputs.

use model::{Checkpoint, Point, Site};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use numerics::sparsity::{self, Loss, Reading};
use process::{Error, Result, ResultExt};

use crate::criterion::{Criterion, Factor};
use crate::dump::Dump;
use crate::level::{Cut, Rule};

/// Where everything comes from.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub checkpoint: &'a Checkpoint,
    pub dump: &'a Dump,
}

pub struct Matrix {
    weights: Array2<f64>, // (outputs, inputs)
    /// None where all are 1.
    pub factors: Option<Array1<f64>>,
    /// (rows, inputs), of f32's precision: a model computes them in it.
    pub scores: Array2<f64>,
}

impl Matrix {
    /// The matrix that reads `point`.
    pub fn open(origin: Origin<'_>, point: Point, criterion: Criterion) -> Result<Matrix> {
        let weights = weights(origin.checkpoint, point)?;
        let at = criterion.acts_at(point.site).unwrap_or(point.site);
        let factors = match criterion.factor(point.site) {
            Factor::One => None,
            Factor::ColumnNorm => Some(sparsity::column_norms(weights.view())),
            Factor::UpSize => {
                let up = origin.dump.rows(Point::new(Site::MlpUp, point.layer))?;
                let squares = up.mapv(|x| x * x).mean_axis(Axis(0));
                Some(squares.ok_or_else(|| Error::bug(point, "no rows"))?.mapv(f64::sqrt))
            }
        };
        let seen = origin.dump.rows(Point::new(at, point.layer))?;
        Ok(Matrix {
            scores: sparsity::scores(&seen, factors.as_ref()).mapv(|score| f64::from(score as f32)),
            weights,
            factors,
        })
    }

    /// What it makes of the rows that it reads.
    pub fn reading(&self, origin: Origin<'_>, point: Point) -> Result<Reading> {
        Ok(Reading::new(self.weights.view(), origin.dump.rows(point)?))
    }

    pub fn remainder(&self, rank: usize) -> Array2<f64> {
        sparsity::right_singular(self.weights.view(), rank)
    }

    pub fn loss(&self, reading: &Reading, cut: Cut, remainder: ArrayView2<'_, f64>) -> Loss {
        let kept = match cut.rule {
            Rule::Above(threshold) => sparsity::above(&self.scores, threshold),
            Rule::Largest(count) => sparsity::largest(&self.scores, count),
        };
        reading.loss(&kept, remainder)
    }
}

fn weights(checkpoint: &Checkpoint, point: Point) -> Result<Array2<f64>> {
    let tensor = checkpoint.reader(point).at("--model")?;
    let shape = tensor.dims2().at("--model")?;
    let numbers = model::taps::read(&tensor, |numbers| {
        numbers.iter().map(|w| f64::from(*w)).collect::<Vec<f64>>()
    });
    Array2::from_shape_vec(shape, numbers.at("--model")?).map_err(|cause| Error::bug(point, cause))
}

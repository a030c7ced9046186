//! One criterion over all matrices that it can thin out: from a level to cuts, and from cuts to losses and to a plan.

use model::{Point, Site};
use ndarray::{Array1, Array2, s};
use numerics::sparsity::{self, Loss};
use process::{Error, Result};
use rayon::prelude::*;
use serde_json::Value;
use steering::{Mode, Op, Operation};

use crate::cli::Allocation;
use crate::criterion::Criterion;
use crate::level::{Cut, Level, Rule};
use crate::matrix::{Matrix, Origin};

/// Shares at which a matrix's error is measured before a greedy allocation.
const CURVE_STEPS: usize = 20;

pub struct Study<'a> {
    origin: Origin<'a>,
    pub criterion: Criterion,
    /// What its matrices read.
    pub points: Vec<Point>,
    alpha: f64,
    /// (outputs, inputs) of each matrix.
    shapes: Vec<(usize, usize)>,
    /// Every score of each matrix, ascending; empty where inputs are counted.
    ascending: Vec<Vec<f32>>,
    /// What the scores of each matrix are made with.
    factors: Vec<Option<Array1<f64>>>,
    /// Leading right singular vectors, as many as any level asks for.
    remainders: Vec<Array2<f64>>,
    /// Errors of each matrix at CURVE_STEPS + 1 shares, for a greedy allocation.
    curves: Option<Vec<Vec<f64>>>,
}

impl<'a> Study<'a> {
    pub fn new(origin: Origin<'a>, criterion: Criterion, points: &[Point], alpha: f64) -> Result<Study<'a>> {
        let points: Vec<Point> = points
            .iter()
            .copied()
            .filter(|point| criterion.acts_at(point.site).is_some())
            .collect();
        let config = origin.checkpoint.config();
        let shapes: Vec<_> = points
            .iter()
            .map(|point| (config.hidden_size, point.site.width(config)))
            .collect();
        let mut study = Study {
            origin,
            criterion,
            points,
            alpha,
            shapes,
            ascending: Vec::new(),
            factors: Vec::new(),
            remainders: Vec::new(),
            curves: None,
        };
        let known = study.of_each(|at, matrix| {
            let rank = if criterion == Criterion::Rsparse {
                study.rank(at, 0.0)
            } else {
                0
            };
            let ascending = if criterion.counts() {
                Vec::new()
            } else {
                ascending(&matrix.scores)
            };
            Ok((ascending, matrix.factors.clone(), matrix.remainder(rank)))
        })?;
        for (ascending, factors, remainder) in known {
            study.ascending.push(ascending);
            study.factors.push(factors);
            study.remainders.push(remainder);
        }
        Ok(study)
    }

    /// Measures what a greedy allocation goes by.
    pub fn allocate(mut self, allocation: Allocation) -> Result<Self> {
        if allocation == Allocation::Uniform || self.criterion == Criterion::Zero {
            return Ok(self);
        }
        if self.criterion.is_pooled() {
            let cause = format!("{} has one threshold for all layers", self.criterion.name());
            return Err(Error::usage("--allocation", cause));
        }
        let shares = (0..=CURVE_STEPS).map(|step| step as f64 / CURVE_STEPS as f64);
        let grid: Vec<Vec<Cut>> = shares
            .map(|share| (0..self.points.len()).map(|at| self.cut(at, share)).collect())
            .collect();
        let losses = self.losses(&grid)?;
        let curve = |at: usize| {
            losses
                .iter()
                .map(|losses| losses[at].relative_error.unwrap_or(0.0))
                .collect()
        };
        self.curves = Some((0..self.points.len()).map(curve).collect());
        Ok(self)
    }

    /// A pass over the matrices, on all threads.
    fn of_each<T: Send>(&self, of: impl Fn(usize, &Matrix) -> Result<T> + Sync) -> Result<Vec<T>> {
        let points = self.points.par_iter().with_max_len(1).enumerate();
        points
            .map(|(at, point)| {
                process::signals::check()?;
                of(at, &Matrix::open(self.origin, *point, self.criterion)?)
            })
            .collect()
    }

    /// What each matrix reads at a level.
    pub fn cuts(&self, level: Level) -> Result<Vec<Cut>> {
        let count = self.points.len();
        match level {
            _ if self.criterion == Criterion::Zero => Ok(vec![Cut::above(0.0); count]),
            Level::Threshold(threshold) => Ok(vec![Cut::above(threshold); count]),
            Level::Cett(cett) => self.of_each(|at, matrix| {
                let reading = matrix.reading(self.origin, self.points[at])?;
                Ok(Cut::above(reading.threshold_of_cett(&matrix.scores, cett)))
            }),
            Level::Share(share) if self.criterion.is_pooled() => Ok(self.pooled(share)),
            Level::Share(share) => {
                let shares = match &self.curves {
                    None => vec![share; count],
                    Some(curves) => sparsity::allocate(curves, &self.weight_counts(), share),
                };
                Ok((0..count).map(|at| self.cut(at, shares[at])).collect())
            }
        }
    }

    /// A matrix at a share of its own.
    fn cut(&self, at: usize, share: f64) -> Cut {
        let inputs = self.shapes[at].1;
        if self.criterion.counts() {
            let left_out = (share * inputs as f64) as usize;
            let rule = Rule::Largest(inputs - left_out.min(inputs));
            return Cut { rule, rank: 0 };
        }
        if self.criterion == Criterion::Rsparse {
            let masked = 1.0 - (1.0 - share) * self.alpha;
            let rank = self.rank(at, share);
            return Cut {
                rank,
                ..Cut::above(quantile(&self.ascending[at], masked))
            };
        }
        Cut::above(quantile(&self.ascending[at], share))
    }

    fn rank(&self, at: usize, share: f64) -> usize {
        let (outputs, inputs) = self.shapes[at];
        let (outputs, inputs) = (outputs as f64, inputs as f64);
        (inputs * outputs * (1.0 - share) * (1.0 - self.alpha) / (inputs + outputs)) as usize
    }

    /// One threshold for all matrices that read the same site.
    fn pooled(&self, share: f64) -> Vec<Cut> {
        let of_site = |site: Site| {
            let tables = self.points.iter().zip(&self.ascending);
            let tables: Vec<&[f32]> = tables
                .filter(|(point, _)| point.site == site)
                .map(|(_, table)| table.as_slice())
                .collect();
            Cut::above(pooled_quantile(&tables, share))
        };
        self.points.iter().map(|point| of_site(point.site)).collect()
    }

    fn weight_counts(&self) -> Vec<f64> {
        self.shapes
            .iter()
            .map(|(outputs, inputs)| (outputs * inputs) as f64)
            .collect()
    }

    /// What each matrix loses under each of several lists of cuts.
    pub fn losses(&self, cuts: &[Vec<Cut>]) -> Result<Vec<Vec<Loss>>> {
        let by_matrix: Vec<Vec<Loss>> = self.of_each(|at, matrix| {
            let reading = matrix.reading(self.origin, self.points[at])?;
            let loss = |cuts: &Vec<Cut>| matrix.loss(&reading, cuts[at], self.remainder(at, cuts[at]).view());
            Ok(cuts.iter().map(loss).collect())
        })?;
        Ok((0..cuts.len())
            .map(|list| by_matrix.iter().map(|losses| losses[list]).collect())
            .collect())
    }

    fn remainder(&self, at: usize, cut: Cut) -> Array2<f64> {
        self.remainders[at].slice(s![..cut.rank, ..]).to_owned()
    }

    /// The share of all weights that is not read, over the rows looked at.
    pub fn sparsity(&self, cuts: &[Cut]) -> f64 {
        let left_out = |at: usize| match cuts[at].rule {
            Rule::Largest(count) => 1.0 - count as f64 / self.shapes[at].1 as f64,
            Rule::Above(threshold) => {
                let table = &self.ascending[at];
                table.partition_point(|score| f64::from(*score) <= threshold) as f64 / table.len() as f64
            }
        };
        let counts = self.weight_counts();
        let weighted: f64 = (0..cuts.len()).map(|at| counts[at] * left_out(at)).sum();
        weighted / counts.iter().sum::<f64>()
    }

    /// The operations of a plan.
    pub fn operations(&self, cuts: &[Cut]) -> Vec<Operation> {
        (0..cuts.len()).map(|at| self.operation(at, cuts[at])).collect()
    }

    fn operation(&self, at: usize, cut: Cut) -> Operation {
        let point = self.points[at];
        let site = self.criterion.acts_at(point.site).unwrap_or(point.site);
        let remainder = self.remainder(at, cut);
        let factors = self.factors[at].iter().map(|factors| factors.to_vec());
        let vectors = factors.chain(remainder.rows().into_iter().map(|row| row.to_vec()));
        let mut operation = Operation::new(Op::Sparsify, site, vec![point.layer], vectors.collect());
        (operation.mode, operation.threshold, operation.keep) = match cut.rule {
            Rule::Above(threshold) => (Some(Mode::Threshold), Some(threshold), None),
            Rule::Largest(count) => (Some(Mode::Largest), None, Some(count)),
        };
        let criterion = Value::from(self.criterion.name());
        operation.source.insert("criterion".into(), criterion);
        operation
    }
}

fn ascending(scores: &Array2<f64>) -> Vec<f32> {
    let mut ascending: Vec<f32> = scores.iter().map(|score| *score as f32).collect();
    ascending.sort_unstable_by(f32::total_cmp);
    ascending
}

/// The largest of the share of smallest scores; 0 where that is none.
fn quantile(ascending: &[f32], share: f64) -> f64 {
    let count = ((share * ascending.len() as f64) as usize).min(ascending.len());
    count.checked_sub(1).map_or(0.0, |last| f64::from(ascending[last]))
}

/// The same of several ascending lists together: the bits of positive numbers stand in their order.
fn pooled_quantile(tables: &[&[f32]], share: f64) -> f64 {
    let total: usize = tables.iter().map(|table| table.len()).sum();
    let wanted = ((share * total as f64) as usize).min(total);
    if wanted == 0 {
        return 0.0;
    }
    let up_to = |bits: u32| -> usize {
        let of = |table: &&[f32]| table.partition_point(|score| score.to_bits() <= bits);
        tables.iter().map(of).sum()
    };
    let (mut low, mut high) = (0, f32::MAX.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        match up_to(middle) >= wanted {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    f64::from(f32::from_bits(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_together_have_the_quantile_of_one_list() {
        let (a, b) = ([0.0f32, 0.25, 0.5, 3.0], [0.125f32, 0.25, 8.0]);
        let mut all = [a.as_slice(), b.as_slice()].concat();
        all.sort_unstable_by(f32::total_cmp);
        for step in 0..=14 {
            let share = f64::from(step) / 14.0;
            assert_eq!(pooled_quantile(&[&a, &b], share), quantile(&all, share), "{share}");
        }
        assert_eq!(quantile(&all, 0.0), 0.0);
        assert_eq!(quantile(&all, 1.0), 8.0);
    }
}

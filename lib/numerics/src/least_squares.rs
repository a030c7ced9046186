//! Least squares with few unknowns: by orthogonal columns where they enter linearly, by Levenberg's and Marquardt's steps where not.

/// Below this share of its own length a column is a combination of those before it.
const DEPENDENT: f64 = 1e-11;

/// What `columns · unknowns` fits best, and how sure it is.
#[derive(Clone, Debug)]
pub struct Solution {
    pub unknowns: Vec<f64>,
    pub residual_square: f64,
    /// The inverse of the triangular factor: its product with its transpose, times the variance of a residual, is the covariance.
    inverse: Vec<Vec<f64>>,
}

/// `None` where the columns depend on each other, or there are more of them than numbers.
pub fn solve(mut columns: Vec<Vec<f64>>, mut target: Vec<f64>) -> Option<Solution> {
    let count = columns.len();
    if target.len() < count {
        return None;
    }
    let lengths: Vec<f64> = columns.iter().map(|column| length(column)).collect();
    let mut triangle = vec![vec![0.0; count]; count];
    let mut projected = vec![0.0; count];
    for at in 0..count {
        let (done, rest) = columns.split_at_mut(at + 1);
        let column = &mut done[at];
        triangle[at][at] = length(column);
        if triangle[at][at].is_nan() || triangle[at][at] <= DEPENDENT * lengths[at] {
            return None;
        }
        column.iter_mut().for_each(|x| *x /= triangle[at][at]);
        for (offset, other) in rest.iter_mut().enumerate() {
            triangle[at][at + 1 + offset] = take_off(column, other);
        }
        projected[at] = take_off(column, &mut target);
    }
    let inverse = inverse_of(&triangle);
    let unknowns = inverse
        .iter()
        .map(|row| row.iter().zip(&projected).map(|(a, b)| a * b).sum())
        .collect();
    Some(Solution {
        unknowns,
        residual_square: target.iter().map(|x| x * x).sum(),
        inverse,
    })
}

impl Solution {
    /// Standard errors of functions of the unknowns, from the functions' gradients, for residuals of this variance.
    pub fn standard_errors(&self, gradients: &[Vec<f64>], variance: f64) -> Vec<f64> {
        let of = |gradient: &Vec<f64>| {
            let along = (0..self.inverse.len()).map(|at| -> f64 {
                let column = self.inverse.iter().map(|row| row[at]);
                gradient.iter().zip(column).map(|(a, b)| a * b).sum()
            });
            libm::sqrt(variance * along.map(|x| x * x).sum::<f64>())
        };
        gradients.iter().map(of).collect()
    }
}

/// A model of some numbers: its values under the unknowns, and a column of derivatives for each unknown.
pub trait Model {
    fn evaluate(&self, unknowns: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>);
}

/// The unknowns near `start` whose values are closest to `target`, and their Σ of squared residuals; `None` where nothing is finite.
pub fn descend(model: &impl Model, target: &[f64], start: Vec<f64>) -> Option<(Vec<f64>, f64)> {
    const STEP_COUNT_MAX: usize = 400;
    let (mut unknowns, mut damping) = (start, 1e-3);
    let (mut residuals, mut columns) = linearised(model, target, &unknowns);
    let mut square = square_of(&residuals);
    if !square.is_finite() {
        return None;
    }
    for _ in 0..STEP_COUNT_MAX {
        let Some(step) = damped_step(&columns, &residuals, damping) else {
            break;
        };
        let tried: Vec<f64> = unknowns.iter().zip(&step).map(|(x, step)| x + step).collect();
        let (tried_residuals, tried_columns) = linearised(model, target, &tried);
        let tried_square = square_of(&tried_residuals);
        if tried_square.is_finite() && tried_square <= square {
            let gain = square - tried_square;
            (unknowns, residuals, columns, square) = (tried, tried_residuals, tried_columns, tried_square);
            damping = (damping * 0.2).max(1e-15);
            if gain <= 1e-15 * square {
                break;
            }
        } else {
            damping *= 5.0;
            if damping > 1e15 {
                break;
            }
        }
    }
    Some((unknowns, square))
}

fn linearised(model: &impl Model, target: &[f64], unknowns: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (values, columns) = model.evaluate(unknowns);
    let residuals = target.iter().zip(&values).map(|(y, value)| y - value).collect();
    (residuals, columns)
}

/// Marquardt's step: the columns are lengthened by the damping, each in proportion to itself.
fn damped_step(columns: &[Vec<f64>], residuals: &[f64], damping: f64) -> Option<Vec<f64>> {
    let count = columns.len();
    let lengthened = columns.iter().enumerate().map(|(at, column)| {
        let mut below = vec![0.0; count];
        below[at] = libm::sqrt(damping) * length(column).max(f64::MIN_POSITIVE);
        column.iter().copied().chain(below).collect()
    });
    let target = residuals.iter().copied().chain(std::iter::repeat_n(0.0, count));
    let step = solve(lengthened.collect(), target.collect())?.unknowns;
    step.iter().all(|x| x.is_finite()).then_some(step)
}

fn square_of(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum()
}

fn length(numbers: &[f64]) -> f64 {
    libm::sqrt(square_of(numbers))
}

/// Takes from `other` its part along a unit column, and gives how long that was.
fn take_off(unit: &[f64], other: &mut [f64]) -> f64 {
    let along: f64 = unit.iter().zip(&*other).map(|(a, b)| a * b).sum();
    other.iter_mut().zip(unit).for_each(|(x, unit)| *x -= along * unit);
    along
}

/// Of an upper triangle with a diagonal that is not zero.
fn inverse_of(triangle: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let count = triangle.len();
    let mut inverse = vec![vec![0.0; count]; count];
    for column in 0..count {
        inverse[column][column] = 1.0 / triangle[column][column];
        for row in (0..column).rev() {
            let sum: f64 = (row + 1..=column).map(|k| triangle[row][k] * inverse[k][column]).sum();
            inverse[row][column] = -sum / triangle[row][row];
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_and_its_standard_errors() {
        // numpy: polyfit([1,2,3,4], [1,2,2,4], 1, cov="unscaled") gives slope 0.9, intercept 0, and with 2 degrees of freedom
        // standard errors 0.26457513 and 0.72456884.
        let columns = vec![vec![1.0; 4], vec![1.0, 2.0, 3.0, 4.0]];
        let solution = solve(columns, vec![1.0, 2.0, 2.0, 4.0]).unwrap();
        assert!((solution.unknowns[0] - 0.0).abs() < 1e-14 && (solution.unknowns[1] - 0.9).abs() < 1e-14);
        let errors = solution.standard_errors(&[vec![1.0, 0.0], vec![0.0, 1.0]], solution.residual_square / 2.0);
        assert!((errors[0] - 0.724_568_84).abs() < 1e-7 && (errors[1] - 0.264_575_13).abs() < 1e-7);
    }

    #[test]
    fn columns_that_depend_on_each_other_determine_nothing() {
        assert!(solve(vec![vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0]], vec![1.0, 0.0, 0.0]).is_none());
        assert!(solve(vec![vec![0.0; 3]], vec![1.0; 3]).is_none());
        assert!(solve(vec![vec![1.0], vec![2.0]], vec![1.0]).is_none());
    }

    struct Decay(Vec<f64>);

    impl Model for Decay {
        fn evaluate(&self, unknowns: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
            let (scale, rate) = (unknowns[0], unknowns[1]);
            let decays: Vec<f64> = self.0.iter().map(|x| libm::exp(-rate * x)).collect();
            let by_rate = self
                .0
                .iter()
                .zip(&decays)
                .map(|(x, decay)| -scale * x * decay)
                .collect();
            (
                decays.iter().map(|decay| scale * decay).collect(),
                vec![decays, by_rate],
            )
        }
    }

    proptest! {
        #[test]
        fn a_decay_is_recovered_from_afar(scale in 0.5_f64..20.0, rate in 0.1_f64..2.0) {
            let model = Decay((0..12).map(f64::from).collect());
            let target = model.evaluate(&[scale, rate]).0;
            let (found, square) = descend(&model, &target, vec![1.0, 0.5]).unwrap();
            prop_assert!(square < 1e-16 * scale * scale);
            prop_assert!((found[0] / scale - 1.0).abs() < 1e-6 && (found[1] / rate - 1.0).abs() < 1e-6);
        }

        #[test]
        fn residuals_stand_at_right_angles_to_the_columns(
            one in proptest::collection::vec(-1.0_f64..1.0, 8), other in proptest::collection::vec(-1.0_f64..1.0, 8),
            target in proptest::collection::vec(-1.0_f64..1.0, 8),
        ) {
            let columns = vec![one, other];
            let Some(solution) = solve(columns.clone(), target.clone()) else { return Ok(()) };
            let left: Vec<f64> = (0..8)
                .map(|at| target[at] - columns.iter().zip(&solution.unknowns).map(|(c, x)| c[at] * x).sum::<f64>())
                .collect();
            for column in &columns {
                prop_assert!(column.iter().zip(&left).map(|(a, b)| a * b).sum::<f64>().abs() < 1e-9);
            }
        }
    }
}

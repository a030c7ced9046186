//! The space of states: their mean and their leading components.

use ndarray::Array2;
use numerics::leading;

/// Components that carry the heads.
pub const COMPONENT_COUNT: usize = 4;

/// Where a state lies among the anchors'.
pub type Place = [f64; COMPONENT_COUNT];

pub struct Space {
    mean: Vec<f64>,
    /// Unit vectors, orthogonal.
    components: Vec<Vec<f64>>,
    /// Of the variance.
    pub shares: Vec<f64>,
}

impl Space {
    /// Of states that lie in no fewer dimensions than there are components; None otherwise.
    pub fn of(states: &[Vec<f64>]) -> Option<Space> {
        let width = states.first()?.len();
        let mean: Vec<f64> = (0..width)
            .map(|at| states.iter().map(|state| state[at]).sum::<f64>() / states.len() as f64)
            .collect();
        let centred = Array2::from_shape_fn((states.len(), width), |(row, at)| states[row][at] - mean[at]);
        let covariance = centred.t().dot(&centred) / states.len() as f64;
        let total = covariance.diag().sum();
        let covariance = covariance.mapv(|x| x as f32).as_standard_layout().into_owned();
        let found = leading::leading(covariance.view(), COMPONENT_COUNT, Array2::zeros((0, 0)).view());
        let shares: Vec<f64> = found.values.iter().map(|value| value / total).collect();
        // beneath the rounding of the covariance there is no direction
        let is_flat = shares.len() < COMPONENT_COUNT || shares.iter().any(|share| share.is_nan() || *share < 1e-6);
        let components = found.vectors.rows().into_iter().map(|row| fixed_sign(row.to_vec()));
        (!is_flat).then(|| Space {
            mean,
            components: components.collect(),
            shares,
        })
    }

    #[cfg(test)]
    pub fn given(mean: Vec<f64>, components: Vec<Vec<f64>>) -> Space {
        Space {
            mean,
            components,
            shares: Vec::new(),
        }
    }

    pub fn place(&self, state: &[f64]) -> Place {
        let moved: Vec<f64> = state.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        self.along(&moved)
    }

    /// What a difference of states is along each component.
    pub fn along(&self, difference: &[f64]) -> Place {
        std::array::from_fn(|at| {
            let pairs = self.components[at].iter().zip(difference);
            pairs.map(|(a, b)| a * b).sum()
        })
    }

    /// The vector that has these coordinates.
    pub fn vector(&self, place: &Place) -> Vec<f64> {
        let at = |index: usize| {
            place
                .iter()
                .zip(&self.components)
                .map(|(x, component)| x * component[index])
                .sum()
        };
        (0..self.mean.len()).map(at).collect()
    }
}

/// The entry that is largest in magnitude is positive.
fn fixed_sign(vector: Vec<f64>) -> Vec<f64> {
    let largest = vector
        .iter()
        .copied()
        .fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
    vector.into_iter().map(|x| x * largest.signum()).collect()
}

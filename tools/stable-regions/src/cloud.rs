//! What the whole run's activations after one block say: their mean, and draws of the same mean and covariance.

use crate::engine::Engine;
use crate::pairs::Pair;
use crate::plan::{Model, Plan};
use crate::ready::spell;
use numerics::regions;
use numerics::rng::Rng;
use process::{Result, ResultExt};

pub struct Cloud {
    pub mean: Vec<f64>,
    points: Vec<Vec<f32>>,
}

impl Cloud {
    /// One cloud for each of `layers`, from all pairs of the run, also those of other shards: what is drawn from them is the same in
    /// every shard.
    pub fn all(plan: &Plan, model: &Model, engine: &Engine, layers: &[usize], pairs: &[Pair]) -> Result<Vec<Self>> {
        let spelled = pairs.iter().filter_map(|pair| spell(model, pair).ok());
        let prompts: Vec<Vec<u32>> = spelled.flatten().collect();
        let mut points: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
        for batch in prompts.chunks(plan.batch_rows.div_ceil(16)) {
            process::signals::check()?;
            let batch: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
            for (points, &layer) in points.iter_mut().zip(layers) {
                points.extend(engine.clean(&batch, layer).at(&model.name)?);
            }
        }
        let hidden_size = model.checkpoint.config().hidden_size;
        Ok(points.into_iter().map(|points| Self::of(points, hidden_size)).collect())
    }

    fn of(points: Vec<Vec<f32>>, width: usize) -> Self {
        let mut mean = vec![0.0; width];
        for point in &points {
            for (m, &x) in mean.iter_mut().zip(point) {
                *m += f64::from(x) / points.len() as f64;
            }
        }
        Self { mean, points }
    }

    /// From A in a random direction, as far away as B is.
    pub fn random_end(&self, rng: &Rng, unit: u64, a: &[f32], b: &[f32]) -> Vec<f32> {
        let drawn = self.draw(rng, unit);
        let stretch = regions::distance(a, b) / regions::distance(a, &drawn);
        a.iter()
            .zip(&drawn)
            .map(|(&a, &x)| (f64::from(a) + stretch * (f64::from(x) - f64::from(a))) as f32)
            .collect()
    }

    /// A draw from the Gaussian with the mean and the covariance of the points: `m + Σ z_i (x_i − m) / √(n − 1)`.
    fn draw(&self, rng: &Rng, unit: u64) -> Vec<f32> {
        let scale = 1.0 / ((self.points.len() - 1) as f64).sqrt();
        let mut drawn = self.mean.clone();
        for (index, point) in self.points.iter().enumerate() {
            let z = rng.normal(unit, index as u64) * scale;
            for (drawn, (&x, m)) in drawn.iter_mut().zip(point.iter().zip(&self.mean)) {
                *drawn += z * (f64::from(x) - m);
            }
        }
        drawn.into_iter().map(|x| x as f32).collect()
    }
}

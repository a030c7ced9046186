//! Plain decorrelation: γ times the mean squared correlation between different dimensions of a layer's rows, averaged over layers. A rival
//! of the Variance Concentration Loss that looks at no direction.
//!
//! With z the rows of a layer less their mean and divided by their deviation, n of them, R = zᵀz/n and O = R without its diagonal,
//! the loss of a layer is ‖O‖²/(d(d−1)), and its gradient by the rows 4/(n·d(d−1))·(zO − z∘q)/deviation, where q_j = Σ_i O_ij².
//! A dimension that does not vary has no correlation.

use std::collections::BTreeMap;

use candle_core::{Device, Error, Result};
use model::Tensor;
use ndarray::Array2;
use process::Layers;
use serde_json::{Value, json};

use super::folded::Folded;
use super::seen::{Observed, Seen};
use super::{Auxiliary, Doubt, Options};
use crate::micro::{Micro, Rows};

pub const NAME: &str = "decorrelate";

pub fn make(options: &mut Options, layer_count: usize) -> std::result::Result<Box<dyn Auxiliary>, String> {
    let window = options.layers("window")?.unwrap_or(Layers::Depth(0.3, 0.5));
    Ok(Box::new(Decorrelate {
        gamma: options.number("gamma", 0.0..=1e9)?.unwrap_or(0.0),
        layers: window.of(layer_count).map_err(|cause| format!("window: {cause}"))?,
        rows: options.word("rows")?.unwrap_or(Rows::Completion),
        window: window.to_string(),
        seen: Observed::new(),
        settled: BTreeMap::new(),
    }))
}

struct Decorrelate {
    /// 0 only observes.
    gamma: f64,
    window: String,
    layers: Vec<usize>,
    rows: Rows,
    seen: Observed,
    settled: BTreeMap<usize, Settled>,
}

/// What is constant for a step, of one layer.
struct Settled {
    mean: Tensor,    // (1, d)
    inverse: Tensor, // (1, d), one over the deviation
    apart: Tensor,   // (d, d), O
    along: Tensor,   // (1, d), q
    row_count: usize,
    /// ‖O‖²/(d(d−1)).
    correlation: f64,
}

impl Settled {
    fn new(folded: &Folded) -> Result<Self> {
        let (mean, row_count) = (folded.sums.mean(), folded.sums.count());
        let d = mean.len();
        let mut scatter = Array2::zeros((d, d));
        folded.sums.add_scatter(&mean, &mean, scatter.view_mut());
        let inverse: Vec<f64> = scatter
            .diag()
            .iter()
            .map(|&sum: &f64| inverse(sum / row_count as f64))
            .collect();
        let apart = Array2::from_shape_fn((d, d), |(i, j)| match i == j {
            true => 0.0,
            false => scatter[(i, j)] / row_count as f64 * inverse[i] * inverse[j],
        });
        let along: Vec<f64> = apart.columns().into_iter().map(|column| column.dot(&column)).collect();
        let device = folded.shift.device();
        Ok(Self {
            mean: row(&mean, device)?,
            inverse: row(&inverse, device)?,
            correlation: along.iter().sum::<f64>() / pair_count(d),
            along: row(&along, device)?,
            apart: Tensor::from_vec(apart.iter().map(|&x| x as f32).collect::<Vec<_>>(), (d, d), device)?,
            row_count,
        })
    }
}

fn inverse(variance: f64) -> f64 {
    if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 }
}

fn pair_count(d: usize) -> f64 {
    (d * d.saturating_sub(1)).max(1) as f64
}

fn row(values: &[f64], device: &Device) -> Result<Tensor> {
    let narrow: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    Tensor::from_vec(narrow, (1, values.len()), device)
}

impl Decorrelate {
    fn correlation(&self) -> f64 {
        self.settled.values().map(|own| own.correlation).sum::<f64>() / self.settled.len().max(1) as f64
    }

    fn row_count(&self) -> usize {
        self.settled.values().map(|own| own.row_count).min().unwrap_or(0)
    }
}

impl Auxiliary for Decorrelate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Value {
        json!({"gamma": self.gamma, "window": self.window, "rows": self.rows})
    }

    fn layers(&self) -> &[usize] {
        &self.layers
    }

    fn rows(&self) -> Rows {
        self.rows
    }

    fn begin(&mut self, _: u64) {
        self.seen.clear();
        self.settled.clear();
    }

    fn observe(&mut self, layer: usize, rows: &Tensor, _: &Micro) -> Result<()> {
        self.seen.entry(layer).or_insert_with(Seen::folding).add(rows)
    }

    fn seen(&mut self) -> &mut Observed {
        &mut self.seen
    }

    fn unseen(&self) -> Seen {
        Seen::folding()
    }

    fn settle(&mut self) -> Result<f64> {
        for (layer, seen) in std::mem::take(&mut self.seen) {
            if let Some(folded) = &seen.folded {
                self.settled.insert(layer, Settled::new(folded)?);
            }
        }
        if self.settled.is_empty() {
            return Err(Error::Msg(format!("{NAME} saw no row")));
        }
        Ok(self.gamma * self.correlation())
    }

    fn is_active(&self) -> bool {
        self.gamma != 0.0
    }

    fn gradient(&self, layer: usize, rows: &Tensor, _: &Micro) -> Result<Option<Tensor>> {
        let Some(own) = self.settled.get(&layer).filter(|_| self.is_active()) else {
            return Ok(None);
        };
        let z = rows.broadcast_sub(&own.mean)?.broadcast_mul(&own.inverse)?; // (n, d)
        let by_z = (z.matmul(&own.apart)? - z.broadcast_mul(&own.along)?)?;
        let weight = 4.0 * self.gamma / (self.layers.len() * own.row_count) as f64 / pair_count(rows.dim(1)?);
        Ok(Some((by_z.broadcast_mul(&own.inverse)? * weight)?))
    }

    fn report(&self) -> Value {
        json!({"gamma": self.gamma, "correlation": self.correlation(), "row_count": self.row_count()})
    }

    fn doubt(&self) -> Option<Doubt> {
        let rows = self.row_count();
        (rows < 32).then(|| Doubt {
            cause: format!("correlations over {rows} rows say little, 32 are wanted"),
            is_fatal: rows < 2 && self.is_active(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(options: &str) -> Box<dyn Auxiliary> {
        make(&mut Options::parse(options).unwrap(), 2).unwrap()
    }

    fn tensor(rows: &[[f32; 3]]) -> Tensor {
        Tensor::from_vec(rows.concat(), (rows.len(), 3), &Device::Cpu).unwrap()
    }

    /// The loss of two micro-batches in each of two layers.
    fn loss(auxiliary: &mut dyn Auxiliary, parts: &[[Tensor; 2]; 2]) -> f64 {
        let micro = Micro::pack(Vec::new());
        auxiliary.begin(1);
        for part in parts {
            for (layer, rows) in part.iter().enumerate() {
                auxiliary.observe(layer, rows, &micro).unwrap();
            }
        }
        auxiliary.settle().unwrap()
    }

    #[test]
    fn two_columns_that_go_together_are_one_pair_of_three_and_a_constant_one_counts_as_none() {
        let rows = tensor(&[[1.0, 2.0, 5.0], [2.0, 4.0, 5.0], [4.0, 8.0, 5.0]]);
        let mut auxiliary = made("gamma=3,window=0");
        let micro = Micro::pack(Vec::new());
        auxiliary.begin(1);
        auxiliary.observe(0, &rows, &micro).unwrap();
        // of six ordered pairs two are fully correlated
        assert!((auxiliary.settle().unwrap() - 3.0 * 2.0 / 6.0).abs() < 1e-6);
        let gradient = auxiliary.gradient(0, &rows, &micro).unwrap().unwrap();
        assert!(
            gradient
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .all(|x| x.is_finite())
        );
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences_over_micro_batches_and_layers() {
        let base = [
            [[0.4, -1.0, 2.0], [1.3, 0.2, 0.1], [-0.7, 0.9, 1.1]],
            [[2.0, 1.0, -1.0], [0.3, 0.8, -0.6], [-1.5, -0.4, 0.5]],
        ];
        let parts = |nudge: f32| {
            let mut moved = base;
            moved[1][0][2] += nudge;
            let halves = |at: usize| [tensor(&moved[at][..2]), tensor(&moved[at][1..])];
            [halves(0), halves(1)]
        };
        let mut auxiliary = made("gamma=2,window=all");
        let h = 1e-2;
        let slope = (loss(&mut *auxiliary, &parts(h)) - loss(&mut *auxiliary, &parts(-h))) / f64::from(2.0 * h);
        loss(&mut *auxiliary, &parts(0.0));
        let gradient = auxiliary
            .gradient(0, &parts(0.0)[1][0], &Micro::pack(Vec::new()))
            .unwrap()
            .unwrap();
        let found = f64::from(gradient.to_vec2::<f32>().unwrap()[0][2]);
        assert!(
            (found - slope).abs() < 1e-3 * slope.abs().max(0.1),
            "{found} against {slope}"
        );
    }
}

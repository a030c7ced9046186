//! The Variance Concentration Loss: γ·s·C_k with `C_k = ‖R V_k‖² / ‖R‖²`, R the centred residual rows of a window of layers and V_k
//! their k leading right singular vectors.
//!
//! Its gradient is closed, `∂C_k/∂R = (2/‖R‖²)(R V_k V_kᵀ − C_k R)`, and holds with V_k constant, so nothing is differentiated
//! through a decomposition. Centring is part of it: the rows of the gradient sum to zero.
//!
//! **Estimator under accumulation.** R is the rows of *all* micro-batches of a step, centred by their common mean. A first pass
//! sees every micro-batch and fixes the mean, ‖R‖², V_k and C_k; each micro-batch's gradient then needs its own rows only, and the
//! sum over micro-batches is the whole batch's gradient, up to rounding.
//!
//! While a layer's rows are fewer than their dimensions they are kept, and V_k comes from their Gram matrix; from there on they
//! are folded into second moments, and V_k comes from the covariance: whichever is smaller.
//! The rows of several slots and ranks are those of the whole batch too ([`super::seen`]).

use std::collections::BTreeMap;

use candle_core::{Device, Error, Result};
use clap::ValueEnum;
use model::Tensor;
use ndarray::Array2;
use numerics::leading::{leading, orthonormalise};
use process::Layers;
use serde::Serialize;
use serde_json::{Value, json};

use super::folded::matrix;
use super::seen::{Observed, Seen};
use super::{Auxiliary, Doubt, Options};
use crate::micro::{Micro, Rows};

pub const NAME: &str = "vcl";

pub fn make(options: &mut Options, layer_count: usize) -> std::result::Result<Box<dyn Auxiliary>, String> {
    Ok(Box::new(Vcl::new(Settings::read(options)?, layer_count)?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Sign {
    /// Penalises concentration.
    Spread,
    /// Rewards it.
    Concentrate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Pool {
    /// One matrix R of all layers' rows, one mean.
    Window,
    /// The mean of the layers' own C_k.
    Layer,
}

#[derive(Clone, Debug, PartialEq)]
struct Settings {
    k: usize,
    /// 0 only observes.
    gamma: f64,
    window: Layers,
    sign: Sign,
    rows: Rows,
    pool: Pool,
    /// Only what lies beyond this C_k counts.
    hinge: Option<f64>,
    /// γ rises linearly over this many steps.
    warmup: u64,
}

impl Settings {
    fn read(options: &mut Options) -> std::result::Result<Self, String> {
        Ok(Self {
            k: options.number("k", 1..=1024)?.unwrap_or(4),
            gamma: options.number("gamma", 0.0..=1e9)?.unwrap_or(0.0),
            window: options.layers("window")?.unwrap_or(Layers::Depth(0.3, 0.5)),
            sign: options.word("sign")?.unwrap_or(Sign::Spread),
            rows: options.word("rows")?.unwrap_or(Rows::Completion),
            pool: options.word("pool")?.unwrap_or(Pool::Window),
            hinge: options.number("hinge", 0.0..=1.0)?,
            warmup: options.number("warmup", 0..=u64::MAX)?.unwrap_or(0),
        })
    }
}

/// What is constant for a step: of one layer, or of the window.
struct Settled {
    c_k: f64,
    mean: Tensor,  // (1, d)
    basis: Tensor, // (k, d), orthonormal rows
    energy: f64,
    row_count: usize,
}

/// The k leading directions of centred rows, how much of their energy lies along each, and all of it.
struct Spectrum {
    values: Vec<f64>,
    vectors: Array2<f64>, // (k, d)
    energy: f64,
}

/// Settles the pooled rows of some layers; `start` is the subspace of the step before, and becomes this one's.
fn settle(parts: &mut [&mut Seen], k: usize, start: &mut Array2<f64>, device: &Device) -> Result<Settled> {
    let row_count: usize = parts.iter().map(|part| part.count).sum();
    let means = parts.iter().map(|part| part.mean()).collect::<Result<Vec<_>>>()?;
    let mut mean = vec![0.0; means[0].len()];
    for (part, own) in parts.iter().zip(&means) {
        let share = part.count as f64 / row_count as f64;
        mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += share * own);
    }
    let d = mean.len();
    let narrow: Vec<f32> = mean.iter().map(|&value| value as f32).collect();
    let mean_row = Tensor::from_vec(narrow, (1, d), device)?;
    let has_all_rows = parts.iter().all(|part| part.folded.is_none());
    let found = match row_count <= d && has_all_rows {
        true => from_rows(parts, &mean_row, k, start)?,
        false => from_moments(parts, &means, &mean, k, start)?,
    };
    let c_k = match found.energy > 0.0 {
        true => (found.values.iter().sum::<f64>() / found.energy).clamp(0.0, 1.0),
        false => 1.0,
    };
    let basis: Vec<f32> = found.vectors.iter().map(|&value| value as f32).collect();
    Ok(Settled {
        c_k,
        mean: mean_row,
        basis: Tensor::from_vec(basis, found.vectors.dim(), device)?,
        energy: found.energy,
        row_count,
    })
}

/// From the Gram matrix of the rows.
fn from_rows(parts: &[&mut Seen], mean: &Tensor, k: usize, start: &mut Array2<f64>) -> Result<Spectrum> {
    let rows: Vec<&Tensor> = parts.iter().flat_map(|part| &part.held).collect();
    let centred = Tensor::cat(&rows, 0)?.broadcast_sub(mean)?;
    let gram = matrix(&centred.matmul(&centred.t()?)?)?; // (rows, rows)
    let centred = matrix(&centred)?;
    // rows differ from step to step: their subspace is met through that of the dimensions
    let along = |j: usize, row: usize| {
        let pairs = centred.row(row).into_iter().zip(start.row(j));
        pairs.map(|(&x, v)| f64::from(x) * v).sum::<f64>()
    };
    let guess = Array2::from_shape_fn((start.nrows(), centred.nrows()), |(j, row)| along(j, row));
    let left = leading(gram.view(), k, guess.view());
    let mut vectors = Array2::zeros((left.values.len(), centred.ncols()));
    for (mut right, left) in vectors.rows_mut().into_iter().zip(left.vectors.rows()) {
        for (row, &weight) in centred.rows().into_iter().zip(left) {
            right.zip_mut_with(&row, |right, &x| *right += weight * f64::from(x));
        }
    }
    orthonormalise(&mut vectors);
    start.clone_from(&vectors);
    Ok(Spectrum {
        values: left.values,
        vectors,
        energy: gram.diag().iter().map(|&x| f64::from(x)).sum(),
    })
}

/// From the moments, about the common mean.
fn from_moments(
    parts: &mut [&mut Seen],
    means: &[Vec<f64>],
    mean: &[f64],
    k: usize,
    start: &mut Array2<f64>,
) -> Result<Spectrum> {
    let mut scatter = Array2::zeros((mean.len(), mean.len()));
    for (part, own) in parts.iter_mut().zip(means) {
        part.fold()?;
        if let Some(folded) = &part.folded {
            folded.sums.add_scatter(own, mean, scatter.view_mut());
        }
    }
    let found = leading(scatter.mapv(|value| value as f32).view(), k, start.view());
    *start = found.block;
    Ok(Spectrum {
        values: found.values,
        vectors: found.vectors,
        energy: scatter.diag().iter().sum(),
    })
}

/// The loss over a run.
pub struct Vcl {
    settings: Settings,
    layers: Vec<usize>,
    step: u64,
    seen: Observed,
    window: Option<Settled>,
    own: BTreeMap<usize, Settled>,
    /// The subspaces of the step before: the window's, then each layer's.
    starts: Vec<Array2<f64>>,
}

impl Vcl {
    fn new(settings: Settings, layer_count: usize) -> std::result::Result<Self, String> {
        let layers = settings.window.of(layer_count);
        let layers = layers.map_err(|cause| format!("window: {cause}"))?;
        let starts = vec![Array2::default((0, 0)); layers.len() + 1];
        Ok(Self {
            settings,
            layers,
            step: 0,
            seen: BTreeMap::new(),
            window: None,
            own: BTreeMap::new(),
            starts,
        })
    }

    fn c_k(&self) -> f64 {
        match (self.settings.pool, &self.window) {
            (Pool::Window, Some(window)) => window.c_k,
            _ => self.own.values().map(|own| own.c_k).sum::<f64>() / self.own.len().max(1) as f64,
        }
    }

    fn sign(&self) -> f64 {
        match self.settings.sign {
            Sign::Spread => 1.0,
            Sign::Concentrate => -1.0,
        }
    }

    /// γ·s of this step; 0 inside the hinge.
    fn strength(&self) -> f64 {
        let hinge = self.settings.hinge;
        let inside = hinge.is_some_and(|hinge| self.sign() * (self.c_k() - hinge) <= 0.0);
        if inside { 0.0 } else { self.ramped() * self.sign() }
    }

    fn ramped(&self) -> f64 {
        match self.settings.warmup {
            0 => self.settings.gamma,
            warmup => self.settings.gamma * (self.step as f64 / warmup as f64).min(1.0),
        }
    }

    fn row_count(&self) -> usize {
        match (self.settings.pool, &self.window) {
            (Pool::Window, Some(window)) => window.row_count,
            _ => self.own.values().map(|own| own.row_count).min().unwrap_or(0),
        }
    }
}

impl Auxiliary for Vcl {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Value {
        let settings = &self.settings;
        json!({
            "k": settings.k,
            "gamma": settings.gamma,
            "window": settings.window.to_string(),
            "sign": settings.sign,
            "rows": settings.rows,
            "pool": settings.pool,
            "hinge": settings.hinge,
            "warmup": settings.warmup,
        })
    }

    fn layers(&self) -> &[usize] {
        &self.layers
    }

    fn rows(&self) -> Rows {
        self.settings.rows
    }

    fn begin(&mut self, step: u64) {
        self.step = step;
        self.seen = self.layers.iter().map(|&layer| (layer, Seen::holding())).collect();
        self.window = None;
        self.own.clear();
    }

    fn observe(&mut self, layer: usize, rows: &Tensor, _: &Micro) -> Result<()> {
        self.seen.entry(layer).or_insert_with(Seen::holding).add(rows)
    }

    fn seen(&mut self) -> &mut Observed {
        &mut self.seen
    }

    fn unseen(&self) -> Seen {
        Seen::holding()
    }

    fn settle(&mut self) -> Result<f64> {
        let mut seen = std::mem::take(&mut self.seen);
        if seen.values().all(|part| part.count == 0) {
            return Err(Error::Msg(format!("{NAME} saw no row")));
        }
        let device = self.device(&seen);
        for (index, (&layer, part)) in seen.iter_mut().enumerate() {
            let own = settle(&mut [part], self.settings.k, &mut self.starts[index + 1], &device)?;
            self.own.insert(layer, own);
        }
        let mut parts: Vec<&mut Seen> = seen.values_mut().collect();
        self.window = Some(settle(&mut parts, self.settings.k, &mut self.starts[0], &device)?);
        let beyond = self.c_k() - self.settings.hinge.unwrap_or(0.0);
        Ok(self.strength() * beyond)
    }

    fn is_active(&self) -> bool {
        self.settings.gamma != 0.0
    }

    fn gradient(&self, layer: usize, rows: &Tensor, _: &Micro) -> Result<Option<Tensor>> {
        let strength = self.strength();
        let (settled, share) = match self.settings.pool {
            Pool::Window => (self.window.as_ref(), 1.0),
            Pool::Layer => (self.own.get(&layer), 1.0 / self.layers.len() as f64),
        };
        let Some(settled) = settled.filter(|settled| strength != 0.0 && settled.energy > 0.0) else {
            return Ok(None);
        };
        let centred = rows.broadcast_sub(&settled.mean)?; // (n, d)
        let inside = centred.matmul(&settled.basis.t()?)?.matmul(&settled.basis)?;
        let gradient = (inside - (centred * settled.c_k)?)?;
        Ok(Some((gradient * (2.0 * strength * share / settled.energy))?))
    }

    fn doubt(&self) -> Option<Doubt> {
        let (rows, k) = (self.row_count(), self.settings.k);
        let least = 8 * (k + 1);
        (rows < least).then(|| Doubt {
            cause: format!(
                "C_{k} over {rows} rows says little, {least} are wanted (it is 1 up to {})",
                k + 1
            ),
            is_fatal: rows <= k + 1 && self.is_active(),
        })
    }

    fn report(&self) -> Value {
        let of_layer = |(layer, own): (&usize, &Settled)| (layer.to_string(), own.c_k.into());
        json!({
            "k": self.settings.k,
            "gamma": self.ramped(),
            "sign": self.settings.sign,
            "c_k": self.c_k(),
            "c_k_layers": Value::Object(self.own.iter().map(of_layer).collect()),
            "row_count": self.window.as_ref().map_or(0, |window| window.row_count),
        })
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (index, start) in self.starts.iter().enumerate().filter(|(_, start)| !start.is_empty()) {
            let flat: Vec<f64> = start.iter().copied().collect();
            let tensor = Tensor::from_vec(flat, start.dim(), &Device::Cpu)?;
            tensors.push((format!("subspace.{index}"), tensor));
        }
        Ok(tensors)
    }

    fn restore(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let index = name
            .strip_prefix("subspace.")
            .and_then(|index| index.parse::<usize>().ok());
        match index.and_then(|index| self.starts.get_mut(index)) {
            Some(start) => {
                let values = value.flatten_all()?.to_vec1()?;
                *start = Array2::from_shape_vec(value.dims2()?, values).map_err(Error::wrap)?;
            }
            None => return Err(Error::Msg(format!("{name} is not a state of {NAME}"))),
        }
        Ok(())
    }
}

impl Vcl {
    fn device(&self, seen: &Observed) -> Device {
        let any = seen.values().find_map(|part| {
            part.folded
                .as_ref()
                .map(|folded| folded.shift.device())
                .or(part.held.first().map(|rows| rows.device()))
        });
        any.cloned().unwrap_or(Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seed: u64, n: usize, d: usize) -> Tensor {
        let rng = numerics::rng::Rng::new(seed, "rows");
        // columns of falling variance, away from the origin
        let value = |i: usize, j: usize| 3.0 + rng.normal(i as u64, j as u64) * 0.8f64.powi(j as i32);
        let values: Vec<f32> = (0..n * d).map(|at| value(at / d, at % d) as f32).collect();
        Tensor::from_vec(values, (n, d), &Device::Cpu).unwrap()
    }

    fn vcl(options: &str, layer_count: usize) -> std::result::Result<Vcl, String> {
        Vcl::new(Settings::read(&mut Options::parse(options)?)?, layer_count)
    }

    /// The loss and, if wanted, the gradients of rows of layers 0.. of `count` layers.
    fn run(options: &str, parts: &[Tensor], wants_gradient: bool) -> (Vcl, f64, Vec<Tensor>) {
        let mut vcl = vcl(&format!("{options},window=all"), parts.len()).unwrap();
        let micro = Micro::pack(Vec::new());
        vcl.begin(1);
        for (layer, part) in parts.iter().enumerate() {
            vcl.observe(layer, part, &micro).unwrap();
        }
        let loss = vcl.settle().unwrap();
        let gradients = match wants_gradient {
            true => parts
                .iter()
                .enumerate()
                .map(|(layer, part)| vcl.gradient(layer, part, &micro).unwrap().unwrap())
                .collect(),
            false => Vec::new(),
        };
        (vcl, loss, gradients)
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences_by_gram_and_by_covariance() {
        // 9 rows of 14 dimensions go through the Gram matrix, 40 through the covariance
        for (n, pool) in [(9, "window"), (40, "window"), (9, "layer"), (40, "layer")] {
            let options = format!("k=2,gamma=1,pool={pool}");
            let parts = [rows(1, n, 14), rows(2, n, 14)];
            let (_, _, gradients) = run(&options, &parts, true);
            let norm: f32 = flat(&gradients[0]).iter().map(|g| g * g).sum::<f32>().sqrt();
            for at in [0, 3, 17, 14 * n - 1] {
                let moved = |by: f32| {
                    let mut values = flat(&parts[0]);
                    values[at] += by;
                    let part = Tensor::from_vec(values, (n, 14), &Device::Cpu).unwrap();
                    run(&options, &[part, parts[1].clone()], false).1
                };
                let numeric = (moved(0.02) - moved(-0.02)) / 0.04;
                let own = f64::from(flat(&gradients[0])[at]);
                assert!(
                    (numeric - own).abs() < 2e-3 * f64::from(norm),
                    "{n} {pool} {at}: {numeric} {own}"
                );
            }
        }
    }

    #[test]
    fn micro_batches_settle_what_the_whole_settles() {
        let whole = rows(4, 60, 10);
        let (vcl, loss, _) = run("k=3,gamma=2", std::slice::from_ref(&whole), false);
        let mut parts = self::vcl("k=3,gamma=2,window=all", 1).unwrap();
        parts.begin(1);
        for (start, len) in [(0, 7), (7, 30), (37, 1), (38, 22)] {
            parts
                .observe(0, &whole.narrow(0, start, len).unwrap(), &Micro::pack(Vec::new()))
                .unwrap();
        }
        assert!((parts.settle().unwrap() - loss).abs() < 1e-5);
        assert!((parts.c_k() - vcl.c_k()).abs() < 1e-6 && parts.row_count() == 60);
    }

    #[test]
    fn c_k_is_one_for_few_rows_and_does_not_feel_scale_or_shift() {
        let (few, _, _) = run("k=4", &[rows(1, 5, 12)], false);
        assert!((few.c_k() - 1.0).abs() < 1e-6 && few.doubt().is_some_and(|doubt| !doubt.is_fatal));
        let (strong, _, _) = run("k=4,gamma=1", &[rows(1, 5, 12)], false);
        assert!(strong.doubt().is_some_and(|doubt| doubt.is_fatal));
        let (plain, _, _) = run("k=2", &[rows(1, 50, 12)], false);
        let (moved, _, _) = run("k=2", &[((rows(1, 50, 12) * 7.0).unwrap() - 20.0).unwrap()], false);
        assert!((plain.c_k() - moved.c_k()).abs() < 1e-5 && plain.doubt().is_none());
    }

    #[test]
    fn a_step_along_the_gradient_spreads_or_concentrates() {
        let part = rows(1, 50, 12);
        for (sign, rises) in [("spread", false), ("concentrate", true)] {
            let options = format!("k=2,gamma=1,sign={sign}");
            let (before, _, gradients) = run(&options, std::slice::from_ref(&part), true);
            let (after, _, _) = run(&options, &[(&part - (&gradients[0] * 20.0).unwrap()).unwrap()], false);
            assert_eq!(after.c_k() > before.c_k(), rises, "{sign}");
        }
    }

    #[test]
    fn inside_the_hinge_nothing_pulls_and_the_warm_up_ramps() {
        let (inside, loss, _) = run("k=2,gamma=1,hinge=0.99", &[rows(1, 50, 12)], false);
        assert!(loss == 0.0 && inside.strength() == 0.0);
        let (ramped, loss, _) = run("k=2,gamma=1,warmup=4", &[rows(1, 50, 12)], false);
        assert!((loss - 0.25 * ramped.c_k()).abs() < 1e-12);
    }

    #[test]
    fn the_window_is_the_papers_and_takes_every_way_to_name_layers() {
        assert_eq!(vcl("", 16).unwrap().layers, [4, 5, 6, 7]);
        assert_eq!(vcl("window=3,5,-1,k=2", 10).unwrap().layers, [3, 5, 9]);
        assert!(vcl("window=0.1-0.2", 4).is_err_and(|cause| cause.contains("no layer")));
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for text in [
            "k=0",
            "k=1.5",
            "gamma=-1",
            "window=0.5-0.3",
            "window=x",
            "sign=up",
            "rows=some",
        ] {
            assert!(vcl(text, 4).is_err(), "{text}");
        }
    }
}

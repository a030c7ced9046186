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

use std::collections::BTreeMap;
use std::str::FromStr;

use candle_core::{D, DType, Device, Result};
use model::Tensor;
use records::Metric;
use serde::Serialize;

use super::subspace::{self, Leading};
use super::{Auxiliary, Doubt, Rows};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// Penalises concentration.
    Spread,
    /// Rewards it.
    Concentrate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// One matrix R of all layers' rows, one mean.
    Window,
    /// The mean of the layers' own C_k.
    Layer,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    pub k: usize,
    pub gamma: f64,
    /// Depths (l + 1)/L from, to.
    pub window: (f64, f64),
    pub sign: Sign,
    pub rows: Rows,
    pub pool: Pool,
    /// Only what lies beyond this C_k counts.
    pub hinge: Option<f64>,
    /// γ rises linearly over this many steps.
    pub warmup: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            k: 4,
            gamma: 0.0,
            window: (0.3, 0.5),
            sign: Sign::Spread,
            rows: Rows::Completion,
            pool: Pool::Window,
            hinge: None,
            warmup: 0,
        }
    }
}

impl FromStr for Options {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut options = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            let number = |least: f64, most: f64| match value.parse::<f64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(format!("{key}: expected a number from {least} to {most}")),
            };
            let one_of = |words: &[&str]| {
                words
                    .iter()
                    .position(|word| *word == value)
                    .ok_or_else(|| format!("{key}: expected one of {}", words.join(", ")))
            };
            match key {
                "k" => options.k = number(1.0, 1024.0)? as usize,
                "gamma" => options.gamma = number(0.0, 1e9)?,
                "window" => {
                    let depths = value
                        .split_once('-')
                        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    let Some((from, to)) = depths.filter(|(a, b): &(f64, f64)| 0.0 <= *a && a <= b && *b <= 1.0) else {
                        return Err("window: expected depths such as 0.3-0.5".into());
                    };
                    options.window = (from, to);
                }
                "sign" => options.sign = [Sign::Spread, Sign::Concentrate][one_of(&["spread", "concentrate"])?],
                "rows" => {
                    options.rows = [Rows::Completion, Rows::Last, Rows::All][one_of(&["completion", "last", "all"])?];
                }
                "pool" => options.pool = [Pool::Window, Pool::Layer][one_of(&["window", "layer"])?],
                "hinge" => options.hinge = Some(number(0.0, 1.0)?),
                "warmup" => {
                    options.warmup = value
                        .parse()
                        .map_err(|_| "warmup: expected a number of steps".to_string())?
                }
                _ => {
                    return Err(format!(
                        "{key:?} is unknown (known: k, gamma, window, sign, rows, pool, hinge, warmup)"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// Blocks whose depth (l + 1)/L lies in the window.
pub fn window_layers((from, to): (f64, f64), layer_count: usize) -> Vec<usize> {
    const SLACK: f64 = 1e-9;
    (0..layer_count)
        .filter(|&layer| {
            let depth = (layer + 1) as f64 / layer_count as f64;
            from - SLACK <= depth && depth <= to + SLACK
        })
        .collect()
}

/// The rows of one layer so far.
#[derive(Default)]
struct Seen {
    count: usize,
    /// Rows, while they are fewer than dimensions.
    held: Vec<Tensor>,
    folded: Option<Folded>,
    norm_sum: f64,
}

/// Sums about a shift near the mean, so that f32 products lose nothing to it.
struct Folded {
    shift: Tensor, // (1, d)
    sum: Vec<f64>,
    second: Vec<f64>, // (d, d)
}

impl Seen {
    fn add(&mut self, rows: &Tensor) -> Result<()> {
        let (n, d) = rows.dims2()?;
        if n == 0 {
            return Ok(());
        }
        self.count += n;
        self.norm_sum += f64::from(rows.sqr()?.sum(D::Minus1)?.sqrt()?.sum_all()?.to_scalar::<f32>()?);
        self.held.push(rows.clone());
        if self.count > d {
            self.fold()?;
        }
        Ok(())
    }

    fn fold(&mut self) -> Result<()> {
        for rows in std::mem::take(&mut self.held) {
            let d = rows.dim(1)?;
            if self.folded.is_none() {
                self.folded = Some(Folded {
                    shift: rows.mean_keepdim(0)?,
                    sum: vec![0.0; d],
                    second: vec![0.0; d * d],
                });
            }
            let Some(folded) = &mut self.folded else {
                unreachable!("just made")
            };
            let shifted = rows.broadcast_sub(&folded.shift)?;
            let second = shifted.t()?.matmul(&shifted)?;
            add(&mut folded.sum, &vector(&shifted.sum(0)?)?);
            add(&mut folded.second, &vector(&second.flatten_all()?)?);
        }
        Ok(())
    }

    fn mean(&self) -> Result<Vec<f64>> {
        let mut mean = match &self.folded {
            Some(folded) => {
                let shift = vector(&folded.shift.squeeze(0)?)?;
                let count = self.count as f64;
                return Ok(shift
                    .iter()
                    .zip(&folded.sum)
                    .map(|(&shift, sum)| f64::from(shift) + sum / count)
                    .collect());
            }
            None => vec![0.0; self.held[0].dim(1)?],
        };
        for rows in &self.held {
            add(&mut mean, &vector(&rows.sum(0)?)?);
        }
        mean.iter_mut().for_each(|value| *value /= self.count as f64);
        Ok(mean)
    }
}

fn vector(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_vec1()
}

fn add(into: &mut [f64], values: &[f32]) {
    into.iter_mut()
        .zip(values)
        .for_each(|(into, &value)| *into += f64::from(value));
}

/// What is constant for a step: of one layer, or of the window.
struct Settled {
    c_k: f64,
    mean: Tensor,  // (1, d)
    basis: Tensor, // (k, d), orthonormal rows
    energy: f64,
    row_count: usize,
}

/// Settles the pooled rows of some layers; `start` is the subspace of the step before, and becomes this one's.
fn settle(parts: &mut [&mut Seen], k: usize, start: &mut Vec<Vec<f64>>, device: &Device) -> Result<Settled> {
    let row_count: usize = parts.iter().map(|part| part.count).sum();
    let means = parts.iter().map(|part| part.mean()).collect::<Result<Vec<_>>>()?;
    let d = means[0].len();
    let mut mean = vec![0.0; d];
    for (part, of_part) in parts.iter().zip(&means) {
        let share = part.count as f64 / row_count as f64;
        mean.iter_mut()
            .zip(of_part)
            .for_each(|(mean, of_part)| *mean += share * of_part);
    }
    let narrow: Vec<f32> = mean.iter().map(|&value| value as f32).collect();
    let mean_row = Tensor::from_vec(narrow, (1, d), device)?;
    let (leading, vectors, energy): (Leading, Vec<Vec<f64>>, f64) =
        if row_count <= d && parts.iter().all(|part| part.folded.is_none()) {
            let rows: Vec<&Tensor> = parts.iter().flat_map(|part| &part.held).collect();
            let centred = Tensor::cat(&rows, 0)?.broadcast_sub(&mean_row)?;
            let gram = centred.matmul(&centred.t()?)?.to_device(&Device::Cpu)?; // (rows, rows)
            let gram = vector(&gram.flatten_all()?)?;
            let energy = (0..row_count).map(|i| f64::from(gram[i * row_count + i])).sum();
            // rows differ from step to step: their subspace is met through that of the dimensions
            let flat = vector(&centred.flatten_all()?)?;
            let guess: Vec<Vec<f64>> = start
                .iter()
                .filter(|vector| vector.len() == d)
                .map(|vector| {
                    let along = |row: &[f32]| row.iter().zip(vector).map(|(&x, v)| f64::from(x) * v).sum();
                    flat.chunks_exact(d).map(along).collect()
                })
                .collect();
            let leading = subspace::leading(&gram, row_count, k, &guess);
            let mut vectors: Vec<Vec<f64>> = leading
                .vectors
                .iter()
                .map(|left| {
                    let mut right = vec![0.0; d];
                    for (row, &weight) in flat.chunks_exact(d).zip(left) {
                        right
                            .iter_mut()
                            .zip(row)
                            .for_each(|(right, &x)| *right += weight * f64::from(x));
                    }
                    right
                })
                .collect();
            subspace::orthonormalise(&mut vectors);
            start.clone_from(&vectors);
            (leading, vectors, energy)
        } else {
            let mut covariance = vec![0.0f64; d * d];
            for (part, of_part) in parts.iter_mut().zip(&means) {
                part.fold()?;
                let Some(folded) = &part.folded else { continue };
                let shift = vector(&folded.shift.squeeze(0)?)?;
                let count = part.count as f64;
                // about the common mean: second − n·(m−s)(m−s)ᵀ + n·(m−μ)(m−μ)ᵀ, m the part's own mean
                let own: Vec<f64> = of_part.iter().zip(&shift).map(|(m, &s)| m - f64::from(s)).collect();
                let apart: Vec<f64> = of_part.iter().zip(&mean).map(|(m, mean)| m - mean).collect();
                for i in 0..d {
                    let (second, row) = (&folded.second[i * d..(i + 1) * d], &mut covariance[i * d..(i + 1) * d]);
                    for j in 0..d {
                        row[j] += second[j] + count * (apart[i] * apart[j] - own[i] * own[j]);
                    }
                }
            }
            let energy = (0..d).map(|i| covariance[i * d + i]).sum();
            let covariance: Vec<f32> = covariance.into_iter().map(|value| value as f32).collect();
            let leading = subspace::leading(&covariance, d, k, start);
            start.clone_from(&leading.block);
            let vectors = leading.vectors.clone();
            (leading, vectors, energy)
        };
    let c_k = if energy > 0.0 {
        (leading.values.iter().sum::<f64>() / energy).clamp(0.0, 1.0)
    } else {
        1.0
    };
    let flat: Vec<f32> = vectors.iter().flatten().map(|&value| value as f32).collect();
    let basis = Tensor::from_vec(flat, (vectors.len(), d), device)?;
    Ok(Settled {
        c_k,
        mean: mean_row,
        basis,
        energy,
        row_count,
    })
}

/// The loss over a run.
pub struct Vcl {
    options: Options,
    layers: Vec<usize>,
    step: u64,
    seen: BTreeMap<usize, Seen>,
    window: Option<Settled>,
    own: BTreeMap<usize, Settled>,
    /// The subspaces of the step before: the window's, then each layer's.
    starts: Vec<Vec<Vec<f64>>>,
    norm_mean: Option<f64>,
}

impl Vcl {
    pub fn new(options: Options, layer_count: usize) -> std::result::Result<Self, String> {
        let layers = window_layers(options.window, layer_count);
        if layers.is_empty() {
            let (from, to) = options.window;
            return Err(format!("window {from}-{to} holds no block of {layer_count}"));
        }
        let starts = vec![Vec::new(); layers.len() + 1];
        Ok(Self {
            options,
            layers,
            step: 0,
            seen: BTreeMap::new(),
            window: None,
            own: BTreeMap::new(),
            starts,
            norm_mean: None,
        })
    }

    fn c_k(&self) -> f64 {
        match (self.options.pool, &self.window) {
            (Pool::Window, Some(window)) => window.c_k,
            _ => self.own.values().map(|own| own.c_k).sum::<f64>() / self.own.len().max(1) as f64,
        }
    }

    fn sign(&self) -> f64 {
        match self.options.sign {
            Sign::Spread => 1.0,
            Sign::Concentrate => -1.0,
        }
    }

    /// γ·s of this step; 0 inside the hinge.
    fn strength(&self) -> f64 {
        let inside = self
            .options
            .hinge
            .is_some_and(|hinge| self.sign() * (self.c_k() - hinge) <= 0.0);
        if inside { 0.0 } else { self.ramped() * self.sign() }
    }

    fn ramped(&self) -> f64 {
        match self.options.warmup {
            0 => self.options.gamma,
            warmup => self.options.gamma * (self.step as f64 / warmup as f64).min(1.0),
        }
    }

    fn row_count(&self) -> usize {
        match (self.options.pool, &self.window) {
            (Pool::Window, Some(window)) => window.row_count,
            _ => self.own.values().map(|own| own.row_count).min().unwrap_or(0),
        }
    }
}

impl Auxiliary for Vcl {
    fn layers(&self) -> &[usize] {
        &self.layers
    }

    fn rows(&self) -> Rows {
        self.options.rows
    }

    fn begin(&mut self, step: u64) {
        self.step = step;
        self.seen = self.layers.iter().map(|&layer| (layer, Seen::default())).collect();
        self.window = None;
        self.own.clear();
    }

    fn observe(&mut self, layer: usize, rows: &Tensor) -> Result<()> {
        self.seen.entry(layer).or_default().add(rows)
    }

    fn settle(&mut self) -> Result<f64> {
        let mut seen = std::mem::take(&mut self.seen);
        let count: usize = seen.values().map(|part| part.count).sum();
        if count == 0 {
            return Err(candle_core::Error::Msg("the auxiliary loss saw no row".into()));
        }
        self.norm_mean = Some(seen.values().map(|part| part.norm_sum).sum::<f64>() / count as f64);
        let device = self.device(&seen);
        for (index, (&layer, part)) in seen.iter_mut().enumerate() {
            let own = settle(&mut [part], self.options.k, &mut self.starts[index + 1], &device)?;
            self.own.insert(layer, own);
        }
        let mut parts: Vec<&mut Seen> = seen.values_mut().collect();
        self.window = Some(settle(&mut parts, self.options.k, &mut self.starts[0], &device)?);
        let beyond = self.c_k() - self.options.hinge.unwrap_or(0.0);
        Ok(self.strength() * beyond)
    }

    fn is_active(&self) -> bool {
        self.options.gamma != 0.0
    }

    fn gradient(&self, layer: usize, rows: &Tensor) -> Result<Option<Tensor>> {
        let strength = self.strength();
        let (settled, share) = match self.options.pool {
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
        let (rows, k) = (self.row_count(), self.options.k);
        let least = 8 * (k + 1);
        (rows < least).then(|| Doubt {
            cause: format!(
                "C_{k} over {rows} rows says little, {least} are wanted (it is 1 up to {})",
                k + 1
            ),
            is_fatal: rows <= k + 1 && self.is_active(),
        })
    }

    fn report(&self, metric: &mut Metric) {
        metric.k = self.options.k as u64;
        metric.gamma = self.ramped();
        metric.sign = match self.options.sign {
            Sign::Spread => "spread".into(),
            Sign::Concentrate => "concentrate".into(),
        };
        metric.c_k = self.c_k();
        metric.c_k_layers = self.own.iter().map(|(&layer, own)| (layer as u64, own.c_k)).collect();
        metric.vcl_row_count = self.window.as_ref().map_or(0, |window| window.row_count as u64);
        metric.norm_mean = self.norm_mean;
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (index, start) in self.starts.iter().enumerate().filter(|(_, start)| !start.is_empty()) {
            let flat: Vec<f64> = start.iter().flatten().copied().collect();
            let tensor = Tensor::from_vec(flat, (start.len(), start[0].len()), &Device::Cpu)?;
            tensors.push((format!("vcl.subspace.{index}"), tensor));
        }
        Ok(tensors)
    }

    fn restore(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let index = name
            .strip_prefix("vcl.subspace.")
            .and_then(|index| index.parse::<usize>().ok());
        match index.and_then(|index| self.starts.get_mut(index)) {
            Some(start) => *start = value.to_vec2()?,
            None => return Err(candle_core::Error::Msg(format!("{name} is not a state of this loss"))),
        }
        Ok(())
    }
}

impl Vcl {
    fn device(&self, seen: &BTreeMap<usize, Seen>) -> Device {
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

    /// The loss and, if wanted, the gradients of rows of layers 0.. of `count` layers.
    fn run(options: &str, parts: &[Tensor], wants_gradient: bool) -> (Vcl, f64, Vec<Tensor>) {
        let options: Options = options.parse().unwrap();
        let mut vcl = Vcl::new(
            Options {
                window: (0.0, 1.0),
                ..options
            },
            parts.len(),
        )
        .unwrap();
        vcl.begin(1);
        for (layer, part) in parts.iter().enumerate() {
            vcl.observe(layer, part).unwrap();
        }
        let loss = vcl.settle().unwrap();
        let gradients = match wants_gradient {
            true => parts
                .iter()
                .enumerate()
                .map(|(layer, part)| vcl.gradient(layer, part).unwrap().unwrap())
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
        let mut parts = Vcl::new(
            Options {
                k: 3,
                gamma: 2.0,
                window: (0.0, 1.0),
                ..Options::default()
            },
            1,
        )
        .unwrap();
        parts.begin(1);
        for (start, len) in [(0, 7), (7, 30), (37, 1), (38, 22)] {
            parts.observe(0, &whole.narrow(0, start, len).unwrap()).unwrap();
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
        assert!(loss == 0.0 && inside.gradient(0, &rows(1, 50, 12)).unwrap().is_none());
        let (ramped, loss, _) = run("k=2,gamma=1,warmup=4", &[rows(1, 50, 12)], false);
        assert!((loss - 0.25 * ramped.c_k()).abs() < 1e-12);
    }

    #[test]
    fn windows_are_those_of_the_paper() {
        assert_eq!(window_layers((0.3, 0.5), 16), [4, 5, 6, 7]);
        assert_eq!(window_layers((0.3, 0.5), 32), (9..=15).collect::<Vec<_>>());
        assert!(
            Vcl::new(
                Options {
                    window: (0.1, 0.2),
                    ..Options::default()
                },
                4
            )
            .is_err()
        );
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for text in [
            "k=0",
            "gamma=-1",
            "window=0.5-0.3",
            "window=x",
            "sign=up",
            "rows=some",
            "nothing=1",
            "k",
        ] {
            assert!(text.parse::<Options>().is_err(), "{text}");
        }
    }
}

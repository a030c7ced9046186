//! The sweeps of one model: ends, grid, token flips, bisection. A batch of pairs shares every pass.

use crate::cli::{Distance, PathKind};
use crate::distance::{Answer, Scale, top_token};
use crate::engine::{Engine, Prefixes};
use crate::pairs::Pair;
use crate::plan::{Opened, Plan};
use crate::report::{Baseline, Measured, Outcome, Region};
use crate::run::{Ready, spell};
use crate::verdicts;
use numerics::regions::{self, Way};
use numerics::rng::Rng;
use process::{Error, Progress, Result, ResultExt};

/// Points inside a bracket that one pass of a bisection looks at: the bracket becomes this plus one times narrower.
const BISECTION_POINTS: usize = 7;

/// Why a pair has no curve.
enum Refusal {
    /// The experiment's own rule, as the paper drops pairs whose read-out does not move.
    Dropped(String),
    /// The pair is no pair.
    Broken(String),
}

/// A pair on its way: what is known so far.
#[derive(Default)]
struct Pending {
    tokens: (u32, u32),
    /// By distance; the reason where a distance is not defined for this pair.
    scales: Vec<(Distance, std::result::Result<Scale, String>)>,
    curves: Vec<Vec<f64>>,
    boundaries: Vec<Option<f64>>,
    flip_alpha: Option<f64>,
    gate_flips: Option<Vec<usize>>,
}

type Started = std::result::Result<Pending, Refusal>;
type Swept = std::result::Result<Vec<(Distance, std::result::Result<Measured, String>)>, Refusal>;

/// A pair that can run, and its place among all.
struct Runnable<'p> {
    index: usize,
    pair: &'p Pair,
    a: &'p [u32],
    b: &'p [u32],
}

/// All sweeps of one model.
pub struct Sweeps<'a> {
    pub plan: &'a Plan,
    pub opened: &'a Opened,
    pub engine: &'a Engine<'a>,
    pub progress: &'a Progress,
    /// Whether --keep-going had anything to skip.
    pub failed: bool,
}

/// What the whole run's activations at one layer say.
struct Cloud {
    mean: Vec<f64>,
    points: Vec<Vec<f32>>,
}

impl Cloud {
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

impl Sweeps<'_> {
    /// The rows of every pair, by pair.
    pub fn all(&mut self, ready: &[Ready]) -> Result<Vec<Vec<Region>>> {
        let clouds = match self.plan.baseline || self.plan.path_kind == PathKind::Arc {
            true => Some(self.clouds()?),
            false => None,
        };
        let baselines: &[Option<Baseline>] = if self.plan.baseline {
            &[None, Some(Baseline::Random)]
        } else {
            &[None]
        };
        let mut regions: Vec<Vec<Region>> = Vec::with_capacity(ready.len());
        let mut runnable: Vec<Runnable> = Vec::new();
        for (index, ready) in ready.iter().enumerate() {
            regions.push(Vec::new());
            match &ready.tokens {
                Ok([a, b]) => runnable.push(Runnable {
                    index,
                    pair: ready.pair,
                    a,
                    b,
                }),
                Err(cause) => {
                    for &layer in &self.opened.layers {
                        let refused = Err(Refusal::Broken(cause.clone()));
                        regions[index].extend(self.rows(ready.pair, layer, None, refused)?);
                    }
                }
            }
        }
        for batch in runnable.chunks((self.plan.batch_rows / self.plan.steps).max(1)) {
            process::signals::check()?;
            let (a, b): (Vec<&[u32]>, Vec<&[u32]>) = batch.iter().map(|pair| (pair.a, pair.b)).unzip();
            let mut prefixes = self.engine.prefixes(&a).at(&self.opened.name)?;
            for (nth, &layer) in self.opened.layers.iter().enumerate() {
                let starts = self.engine.clean_after(&mut prefixes, layer).at(&self.opened.name)?;
                let ends = self.engine.clean(&b, layer).at(&self.opened.name)?;
                let cloud = clouds.as_ref().map(|clouds| &clouds[nth]);
                for &baseline in baselines {
                    let random = match (baseline, cloud) {
                        (Some(_), Some(cloud)) => Some(self.random_ends(cloud, batch, &starts, &ends, layer)),
                        _ => None,
                    };
                    let outcomes =
                        self.sweep(&mut prefixes, layer, cloud, &starts, random.as_ref().unwrap_or(&ends))?;
                    for (pair, outcome) in batch.iter().zip(outcomes) {
                        let rows = self.rows(pair.pair, layer, baseline, outcome)?;
                        regions[pair.index].extend(rows);
                    }
                    self.progress.advance((batch.len() * self.plan.steps) as u64);
                }
            }
        }
        Ok(regions)
    }

    /// The records of one pair at one layer; a pair that cannot be measured stops the run unless --keep-going.
    fn rows(&mut self, pair: &Pair, layer: usize, baseline: Option<Baseline>, outcome: Swept) -> Result<Vec<Region>> {
        let verdict = |id: &str| {
            let verdict = self.plan.verdicts.as_ref().and_then(|verdicts| verdicts.of(id));
            verdict.map(|verdict| verdicts::word(verdict.verdict).to_string())
        };
        let row = |distance, outcome| Region {
            id: pair.id.clone(),
            id_a: pair.id_a.clone(),
            id_b: pair.id_b.clone(),
            group: pair.group.clone(),
            model_digest: self.opened.model_digest.clone(),
            layer_index: layer,
            read: self.plan.read,
            read_layer_index: self.opened.read_layer,
            path_kind: self.plan.path_kind,
            distance,
            baseline,
            outcome,
            verdict_a: verdict(&pair.id_a),
            verdict_b: verdict(&pair.id_b),
        };
        let skip_all = |cause: String| {
            let skipped = |&distance: &Distance| row(distance, Outcome::Skipped { skipped: cause.clone() });
            self.plan.distances.iter().map(skipped).collect()
        };
        match outcome {
            Ok(curves) => Ok(curves
                .into_iter()
                .map(|(distance, curve)| match curve {
                    Ok(measured) => row(distance, Outcome::Measured(Box::new(measured))),
                    Err(skipped) => row(distance, Outcome::Skipped { skipped }),
                })
                .collect()),
            Err(Refusal::Dropped(cause)) => Ok(skip_all(cause)),
            Err(Refusal::Broken(cause)) if self.plan.keep_going => {
                let rows = skip_all(cause);
                self.failed = true;
                Ok(rows)
            }
            Err(Refusal::Broken(cause)) => {
                Err(Error::input(format!("pair {}", pair.id), cause).hint("--keep-going skips and counts such pairs"))
            }
        }
    }

    /// Activations of all pairs of the run, also those of other shards: what is drawn from them is the same in every shard.
    fn clouds(&self) -> Result<Vec<Cloud>> {
        let prompts: Vec<Vec<u32>> = self
            .plan
            .pairs
            .iter()
            .filter_map(|pair| spell(self.opened, pair).ok())
            .flatten()
            .collect();
        let mut points: Vec<Vec<Vec<f32>>> = vec![Vec::new(); self.opened.layers.len()];
        for batch in prompts.chunks(self.plan.batch_rows.div_ceil(16)) {
            process::signals::check()?;
            let batch: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
            for (points, &layer) in points.iter_mut().zip(&self.opened.layers) {
                points.extend(self.engine.clean(&batch, layer).at(&self.opened.name)?);
            }
        }
        let cloud = |points: Vec<Vec<f32>>| {
            let mut mean = vec![0.0; self.opened.config.hidden_size];
            for point in &points {
                mean.iter_mut()
                    .zip(point)
                    .for_each(|(m, &x)| *m += f64::from(x) / points.len() as f64);
            }
            Cloud { mean, points }
        };
        Ok(points.into_iter().map(cloud).collect())
    }

    /// From A in a random direction, as far away as B is.
    fn random_ends(
        &self,
        cloud: &Cloud,
        batch: &[Runnable],
        starts: &[Vec<f32>],
        ends: &[Vec<f32>],
        layer: usize,
    ) -> Vec<Vec<f32>> {
        let rng = Rng::new(self.plan.seed, &format!("random direction after block {layer}"));
        let one = |(pair, (a, b)): (&Runnable, (&Vec<f32>, &Vec<f32>))| {
            let drawn = cloud.draw(&rng, pair.pair.index);
            let stretch = regions::distance(a, b) / regions::distance(a, &drawn);
            let end = a
                .iter()
                .zip(&drawn)
                .map(|(&a, &x)| (f64::from(a) + stretch * (f64::from(x) - f64::from(a))) as f32);
            end.collect()
        };
        batch.iter().zip(starts.iter().zip(ends)).map(one).collect()
    }

    /// Measures every pair of a batch at one layer: by pair, then by distance.
    fn sweep(
        &self,
        prefixes: &mut Prefixes,
        layer: usize,
        cloud: Option<&Cloud>,
        starts: &[Vec<f32>],
        ends: &[Vec<f32>],
    ) -> Result<Vec<Swept>> {
        let way = match (self.plan.path_kind, cloud) {
            (PathKind::Arc, Some(cloud)) => Way::Arc {
                centre: cloud.mean.clone(),
            },
            (PathKind::Slerp, _) => Way::Slerp,
            _ => Way::Linear,
        };
        let mut outcomes: Vec<Started> = starts
            .iter()
            .zip(ends)
            .map(|(a, b)| match regions::distance(a, b) == 0.0 {
                true => Err(Refusal::Broken("A and B have the same activation".to_string())),
                false if way.point(a, b, 0.5).is_none() || way.point(a, b, 1.0).is_none() => Err(Refusal::Broken(
                    "the way from A to B is not defined: they are opposite, or it meets the centre".to_string(),
                )),
                false => Ok(Pending::default()),
            })
            .collect();
        let point = |owner: usize, alpha: f64| -> Vec<f32> {
            way.point(&starts[owner], &ends[owner], alpha)
                .unwrap_or_else(|| starts[owner].clone())
        };

        // Both ends of every way, with scores: they are what all else is measured against.
        let alive: Vec<usize> = (0..outcomes.len()).filter(|&p| outcomes[p].is_ok()).collect();
        let owners: Vec<usize> = alive.iter().flat_map(|&p| [p, p]).collect();
        let points: Vec<Vec<f32>> = alive.iter().flat_map(|&p| [point(p, 0.0), point(p, 1.0)]).collect();
        let mut answers: Vec<Answer> = Vec::with_capacity(owners.len());
        self.engine
            .answers(prefixes, &owners, &points, layer, true, |_, answer| {
                answers.push(answer)
            })
            .at(&self.opened.name)?;
        let gates = match self.plan.gate_flips {
            true => Some(
                self.engine
                    .gates(prefixes, &owners, &points, layer)
                    .at(&self.opened.name)?,
            ),
            false => None,
        };
        let mut answers = answers.into_iter();
        for (row, &p) in alive.iter().enumerate() {
            let (Some(start), Some(end)) = (answers.next(), answers.next()) else {
                return Err(Error::bug("sweep", "an end has no answer"));
            };
            let moved = regions::distance(&start.read, &end.read);
            if moved.is_nan() || moved <= self.plan.min_distance {
                outcomes[p] = Err(Refusal::Dropped(format!(
                    "the read-out moves by {moved:.3e}, and --min-distance is {}",
                    self.plan.min_distance
                )));
                continue;
            }
            let tokens = (top_token(&start.scores), top_token(&end.scores));
            let mut scales = Vec::new();
            for &distance in &self.plan.distances {
                match Scale::new(distance, start.clone(), end.clone(), tokens) {
                    Some(scale) if scale.whole > 0.0 => scales.push((distance, Ok(scale))),
                    Some(_) => scales.push((distance, Err("the ends do not differ in this distance".to_string()))),
                    None => scales.push((distance, Err("both ends have the same top token".to_string()))),
                }
            }
            outcomes[p] = Ok(Pending {
                tokens,
                gate_flips: gates.as_ref().map(|gates| {
                    let flips = |block: &Vec<Vec<f32>>| {
                        let (a, b) = (&block[2 * row], &block[2 * row + 1]);
                        a.iter().zip(b).filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count()
                    };
                    gates.iter().map(flips).collect()
                }),
                curves: scales.iter().map(|_| vec![0.0; self.plan.steps]).collect(),
                scales,
                ..Pending::default()
            });
        }
        drop(answers);

        self.grid(prefixes, layer, &point, &mut outcomes)?;
        self.flips(prefixes, layer, &point, &mut outcomes)?;
        if let Some(eps) = self.plan.bisect {
            self.bisect(prefixes, layer, &point, &mut outcomes, eps)?;
        }
        let mut finished = Vec::with_capacity(outcomes.len());
        for (p, outcome) in outcomes.into_iter().enumerate() {
            finished.push(match outcome {
                Ok(pending) => Ok(self.measured(pending, &starts[p], &ends[p])?),
                Err(refusal) => Err(refusal),
            });
        }
        Ok(finished)
    }

    /// The values of the curves between the ends.
    fn grid(
        &self,
        prefixes: &mut Prefixes,
        layer: usize,
        point: &impl Fn(usize, f64) -> Vec<f32>,
        outcomes: &mut [Started],
    ) -> Result<()> {
        let alpha = self.plan.alpha();
        let inner = 1..self.plan.steps - 1;
        let places: Vec<(usize, usize)> = (0..outcomes.len())
            .filter(|&p| outcomes[p].is_ok())
            .flat_map(|p| inner.clone().map(move |i| (p, i)))
            .collect();
        for places in places.chunks(self.plan.batch_rows) {
            process::signals::check()?;
            let owners: Vec<usize> = places.iter().map(|place| place.0).collect();
            let points: Vec<Vec<f32>> = places.iter().map(|&(p, i)| point(p, alpha[i])).collect();
            self.engine
                .answers(prefixes, &owners, &points, layer, false, |row, answer| {
                    let (p, i) = places[row];
                    if let Ok(pending) = &mut outcomes[p] {
                        for ((_, scale), curve) in pending.scales.iter().zip(&mut pending.curves) {
                            if let Ok(scale) = scale {
                                curve[i] = scale.value(&answer);
                            }
                        }
                    }
                })
                .at(&self.opened.name)?;
        }
        for outcome in outcomes.iter_mut().flatten() {
            for curve in &mut outcome.curves {
                if let Some(last) = curve.last_mut() {
                    *last = 1.0;
                }
            }
            if outcome.curves.iter().flatten().any(|value| !value.is_finite()) {
                return Err(
                    Error::input(&self.opened.name, "the read-out is not finite").hint("compute in f32 (--dtype f32)")
                );
            }
        }
        Ok(())
    }

    /// Halving on the grid: an α where the top token stops being that of A.
    fn flips(
        &self,
        prefixes: &mut Prefixes,
        layer: usize,
        point: &impl Fn(usize, f64) -> Vec<f32>,
        outcomes: &mut [Started],
    ) -> Result<()> {
        let alpha = self.plan.alpha();
        let differ = |outcome: &Started| {
            outcome
                .as_ref()
                .is_ok_and(|pending| pending.tokens.0 != pending.tokens.1)
        };
        let mut brackets: Vec<(usize, usize, usize)> = (0..outcomes.len())
            .filter(|&p| differ(&outcomes[p]))
            .map(|p| (p, 0, self.plan.steps - 1))
            .collect();
        loop {
            let open: Vec<usize> = (0..brackets.len())
                .filter(|&i| brackets[i].2 - brackets[i].1 > 1)
                .collect();
            if open.is_empty() {
                break;
            }
            let middle = |i: usize| (brackets[i].1 + brackets[i].2) / 2;
            let owners: Vec<usize> = open.iter().map(|&i| brackets[i].0).collect();
            let points: Vec<Vec<f32>> = open.iter().map(|&i| point(brackets[i].0, alpha[middle(i)])).collect();
            let mut tops = vec![0; open.len()];
            self.engine
                .answers(prefixes, &owners, &points, layer, true, |row, answer| {
                    tops[row] = top_token(&answer.scores)
                })
                .at(&self.opened.name)?;
            for (&i, top) in open.iter().zip(tops) {
                let middle = (brackets[i].1 + brackets[i].2) / 2;
                let of_a = outcomes[brackets[i].0]
                    .as_ref()
                    .is_ok_and(|pending| pending.tokens.0 == top);
                match of_a {
                    true => brackets[i].1 = middle,
                    false => brackets[i].2 = middle,
                }
            }
        }
        for (p, low, high) in brackets {
            if let Ok(pending) = &mut outcomes[p] {
                pending.flip_alpha = Some((alpha[low] + alpha[high]) / 2.0);
            }
        }
        Ok(())
    }

    /// Narrows the step in which each curve first reaches one half.
    fn bisect(
        &self,
        prefixes: &mut Prefixes,
        layer: usize,
        point: &impl Fn(usize, f64) -> Vec<f32>,
        outcomes: &mut [Started],
        eps: f64,
    ) -> Result<()> {
        let alpha = self.plan.alpha();
        // (pair, distance, low, high)
        let mut brackets: Vec<(usize, usize, f64, f64)> = Vec::new();
        for (p, outcome) in outcomes.iter_mut().enumerate() {
            let Ok(pending) = outcome else { continue };
            pending.boundaries = vec![None; pending.curves.len()];
            for (d, curve) in pending.curves.iter().enumerate() {
                if let (Ok(_), Some(step)) = (&pending.scales[d].1, regions::first_crossing(curve, 0.5)) {
                    brackets.push((p, d, alpha[step], alpha[step + 1]));
                }
            }
        }
        loop {
            let open: Vec<usize> = (0..brackets.len())
                .filter(|&i| brackets[i].3 - brackets[i].2 > eps)
                .collect();
            if open.is_empty() {
                break;
            }
            for open in open.chunks((self.plan.batch_rows / BISECTION_POINTS).max(1)) {
                process::signals::check()?;
                let inside = |(_, _, low, high): (usize, usize, f64, f64), k: usize| {
                    low + (high - low) * (k + 1) as f64 / (BISECTION_POINTS + 1) as f64
                };
                let owners: Vec<usize> = open.iter().flat_map(|&i| [brackets[i].0; BISECTION_POINTS]).collect();
                let points: Vec<Vec<f32>> = open
                    .iter()
                    .flat_map(|&i| (0..BISECTION_POINTS).map(move |k| (i, k)))
                    .map(|(i, k)| point(brackets[i].0, inside(brackets[i], k)))
                    .collect();
                let mut values = vec![0.0; points.len()];
                self.engine
                    .answers(prefixes, &owners, &points, layer, false, |row, answer| {
                        let (p, d, ..) = brackets[open[row / BISECTION_POINTS]];
                        if let Ok(Pending { scales, .. }) = &outcomes[p]
                            && let Ok(scale) = &scales[d].1
                        {
                            values[row] = scale.value(&answer);
                        }
                    })
                    .at(&self.opened.name)?;
                for (nth, &i) in open.iter().enumerate() {
                    let values = &values[nth * BISECTION_POINTS..(nth + 1) * BISECTION_POINTS];
                    let first = values.iter().position(|&value| value >= 0.5);
                    let low = first
                        .map_or(Some(BISECTION_POINTS - 1), |k| k.checked_sub(1))
                        .map(|k| inside(brackets[i], k));
                    let high = first.map(|k| inside(brackets[i], k));
                    let bracket = (low.unwrap_or(brackets[i].2), high.unwrap_or(brackets[i].3));
                    // Below the resolution of f64 a bracket no longer narrows.
                    if bracket.1 - bracket.0 >= brackets[i].3 - brackets[i].2 {
                        return Err(Error::bug("--bisect", "a bracket does not narrow"));
                    }
                    (brackets[i].2, brackets[i].3) = bracket;
                }
            }
        }
        for (p, d, low, high) in brackets {
            if let Ok(pending) = &mut outcomes[p] {
                pending.boundaries[d] = Some((low + high) / 2.0);
            }
        }
        Ok(())
    }

    fn measured(
        &self,
        pending: Pending,
        a: &[f32],
        b: &[f32],
    ) -> Result<Vec<(Distance, std::result::Result<Measured, String>)>> {
        let alpha = self.plan.alpha();
        let token = |id: u32| self.opened.speller.text(&[id]).at(&self.opened.name);
        let (token_a, token_b) = (token(pending.tokens.0)?, token(pending.tokens.1)?);
        let mut boundaries = pending.boundaries.into_iter();
        let one = |((distance, scale), curve): ((Distance, std::result::Result<Scale, String>), Vec<f64>)| {
            let boundary_alpha = boundaries.next().flatten();
            let measured = scale.map(|scale| {
                let (max_slope, max_slope_alpha) = regions::max_slope(&alpha, &curve).unwrap_or_default();
                Measured {
                    max_slope,
                    max_slope_alpha,
                    width: regions::transition_width(&alpha, &curve, 0.1, 0.9),
                    boundary_alpha,
                    end_distance: scale.whole,
                    delta_norm: regions::distance(a, b),
                    cosine: regions::cosine(a, b),
                    token_a: token_a.clone(),
                    token_b: token_b.clone(),
                    token_id_a: pending.tokens.0,
                    token_id_b: pending.tokens.1,
                    flip_alpha: pending.flip_alpha,
                    gate_flips: pending.gate_flips.clone(),
                    alpha: alpha.clone(),
                    curve,
                }
            });
            (distance, measured)
        };
        Ok(pending.scales.into_iter().zip(pending.curves).map(one).collect())
    }
}

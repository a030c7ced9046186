//! One batch of pairs after one block: ends, grid, token flips, bisection. All pairs of the batch share every pass.

use crate::cli::Distance;
use crate::distance::{Answer, Scale, top_token};
use crate::engine::{Engine, Prefixes};
use crate::plan::{Model, Plan};
use numerics::regions::{self, Way};
use process::{Error, Result, ResultExt};
use records::Measured;

/// Points inside a bracket that one pass of a bisection looks at: the bracket becomes this plus one times narrower.
const BISECTION_POINTS: usize = 7;

/// Why a pair has no curve.
pub enum Refusal {
    /// The experiment's own rule, as the paper drops pairs whose read-out does not move.
    Dropped(String),
    /// The pair is no pair.
    Broken(String),
}

/// What came of a pair: by distance, the curve, or why there is none in this distance.
pub type Swept = std::result::Result<Vec<(Distance, std::result::Result<Measured, String>)>, Refusal>;

type Started = std::result::Result<Pending, Refusal>;

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

/// The part of a way in which a curve first reaches one half.
struct Bracket {
    pair: usize,
    distance: usize,
    low: f64,
    high: f64,
}

impl Bracket {
    fn width(&self) -> f64 {
        self.high - self.low
    }

    /// The place of the bisection's k-th point.
    fn inside(&self, k: usize) -> f64 {
        self.low + self.width() * (k + 1) as f64 / (BISECTION_POINTS + 1) as f64
    }
}

pub struct Interpolation<'a> {
    pub plan: &'a Plan,
    pub model: &'a Model,
    pub engine: &'a Engine<'a>,
    pub prefixes: &'a mut Prefixes,
    /// The block after which the residual is replaced.
    pub layer: usize,
    pub way: Way,
    /// By pair.
    pub starts: &'a [Vec<f32>],
    pub ends: &'a [Vec<f32>],
}

impl Interpolation<'_> {
    /// Measures every pair.
    pub fn measure(mut self) -> Result<Vec<Swept>> {
        let mut outcomes: Vec<Started> = (0..self.starts.len()).map(|pair| self.check_way(pair)).collect();
        self.measure_ends(&mut outcomes)?;
        self.fill_grid(&mut outcomes)?;
        self.find_flips(&mut outcomes)?;
        if let Some(eps) = self.plan.bisect {
            self.bisect(&mut outcomes, eps)?;
        }
        let mut finished = Vec::with_capacity(outcomes.len());
        for (pair, outcome) in outcomes.into_iter().enumerate() {
            finished.push(match outcome {
                Ok(pending) => Ok(self.measured(pair, pending)?),
                Err(refusal) => Err(refusal),
            });
        }
        Ok(finished)
    }

    fn point(&self, pair: usize, alpha: f64) -> Vec<f32> {
        let (start, end) = (&self.starts[pair], &self.ends[pair]);
        self.way.point(start, end, alpha).unwrap_or_else(|| start.clone())
    }

    fn answers(
        &mut self,
        pairs: &[usize],
        points: &[Vec<f32>],
        scores: bool,
        take: impl FnMut(usize, Answer),
    ) -> Result<()> {
        self.engine
            .answers(self.prefixes, pairs, points, self.layer, scores, take)
            .at(&self.model.name)
    }

    fn check_way(&self, pair: usize) -> Started {
        let (a, b) = (&self.starts[pair], &self.ends[pair]);
        if regions::distance(a, b) == 0.0 {
            return Err(Refusal::Broken("A and B have the same activation".to_string()));
        }
        match [0.5, 1.0].iter().all(|&alpha| self.way.point(a, b, alpha).is_some()) {
            true => Ok(Pending::default()),
            false => Err(Refusal::Broken(
                "the way from A to B is not defined: they are opposite, or it meets the centre".to_string(),
            )),
        }
    }

    /// Both ends of every way, with scores: they are what all else is measured against.
    fn measure_ends(&mut self, outcomes: &mut [Started]) -> Result<()> {
        let alive: Vec<usize> = (0..outcomes.len()).filter(|&pair| outcomes[pair].is_ok()).collect();
        let owners: Vec<usize> = alive.iter().flat_map(|&pair| [pair, pair]).collect();
        let points: Vec<Vec<f32>> = alive
            .iter()
            .flat_map(|&pair| [self.point(pair, 0.0), self.point(pair, 1.0)])
            .collect();
        let mut answers: Vec<Answer> = Vec::with_capacity(owners.len());
        self.answers(&owners, &points, true, |_, answer| answers.push(answer))?;
        let gates = match self.plan.gate_flips {
            true => Some(
                self.engine
                    .gates(self.prefixes, &owners, &points, self.layer)
                    .at(&self.model.name)?,
            ),
            false => None,
        };
        let mut answers = answers.into_iter();
        for (nth, &pair) in alive.iter().enumerate() {
            let (Some(start), Some(end)) = (answers.next(), answers.next()) else {
                return Err(Error::bug("sweep", "an end has no answer"));
            };
            let gate_flips = gates.as_ref().map(|blocks| {
                blocks
                    .iter()
                    .map(|rows| sign_flips(&rows[2 * nth], &rows[2 * nth + 1]))
                    .collect()
            });
            outcomes[pair] = self.start(start, end).map(|pending| Pending { gate_flips, ..pending });
        }
        Ok(())
    }

    /// The scales between two ends.
    fn start(&self, start: Answer, end: Answer) -> Started {
        let moved = regions::distance(&start.read, &end.read);
        if moved.is_nan() || moved <= self.plan.min_distance {
            return Err(Refusal::Dropped(format!(
                "the read-out moves by {moved:.3e}, and --min-distance is {}",
                self.plan.min_distance
            )));
        }
        let tokens = (top_token(&start.scores), top_token(&end.scores));
        let scale = |&distance: &Distance| {
            let scale = match Scale::new(distance, start.clone(), end.clone(), tokens) {
                Some(scale) if scale.whole > 0.0 => Ok(scale),
                Some(_) => Err("the ends do not differ in this distance".to_string()),
                None => Err("both ends have the same top token".to_string()),
            };
            (distance, scale)
        };
        let scales: Vec<_> = self.plan.distances.iter().map(scale).collect();
        Ok(Pending {
            tokens,
            curves: vec![vec![0.0; self.plan.steps]; scales.len()],
            scales,
            ..Pending::default()
        })
    }

    /// The values of the curves between the ends.
    fn fill_grid(&mut self, outcomes: &mut [Started]) -> Result<()> {
        let alpha = self.plan.alpha();
        let inner = 1..self.plan.steps - 1;
        let places: Vec<(usize, usize)> = (0..outcomes.len())
            .filter(|&pair| outcomes[pair].is_ok())
            .flat_map(|pair| inner.clone().map(move |i| (pair, i)))
            .collect();
        for places in places.chunks(self.plan.batch_rows) {
            process::signals::check()?;
            let owners: Vec<usize> = places.iter().map(|place| place.0).collect();
            let points: Vec<Vec<f32>> = places.iter().map(|&(pair, i)| self.point(pair, alpha[i])).collect();
            self.answers(&owners, &points, false, |row, answer| {
                let (pair, i) = places[row];
                if let Ok(pending) = &mut outcomes[pair] {
                    for ((_, scale), curve) in pending.scales.iter().zip(&mut pending.curves) {
                        if let Ok(scale) = scale {
                            curve[i] = scale.value(&answer);
                        }
                    }
                }
            })?;
        }
        for outcome in outcomes.iter_mut().flatten() {
            for curve in &mut outcome.curves {
                if let Some(last) = curve.last_mut() {
                    *last = 1.0;
                }
            }
            if outcome.curves.iter().flatten().any(|value| !value.is_finite()) {
                return Err(
                    Error::input(&self.model.name, "the read-out is not finite").hint("compute in f32 (--dtype f32)")
                );
            }
        }
        Ok(())
    }

    /// Halving on the grid: an α where the top token stops being that of A.
    fn find_flips(&mut self, outcomes: &mut [Started]) -> Result<()> {
        /// A pair, and the steps of the grid between which its top token changes.
        struct Change {
            pair: usize,
            low: usize,
            high: usize,
        }
        let alpha = self.plan.alpha();
        let mut changes = Vec::new();
        for (pair, outcome) in outcomes.iter().enumerate() {
            if outcome
                .as_ref()
                .is_ok_and(|pending| pending.tokens.0 != pending.tokens.1)
            {
                let (low, high) = (0, self.plan.steps - 1);
                changes.push(Change { pair, low, high });
            }
        }
        loop {
            let mut open: Vec<&mut Change> = changes.iter_mut().filter(|one| one.high - one.low > 1).collect();
            if open.is_empty() {
                break;
            }
            let middle = |change: &Change| (change.low + change.high) / 2;
            let owners: Vec<usize> = open.iter().map(|change| change.pair).collect();
            let points: Vec<Vec<f32>> = open
                .iter()
                .map(|change| self.point(change.pair, alpha[middle(change)]))
                .collect();
            let mut tops = vec![0; open.len()];
            self.answers(&owners, &points, true, |row, answer| {
                tops[row] = top_token(&answer.scores)
            })?;
            for (change, top) in open.iter_mut().zip(tops) {
                let pending = outcomes[change.pair].as_ref();
                match pending.is_ok_and(|pending| pending.tokens.0 == top) {
                    true => change.low = middle(change),
                    false => change.high = middle(change),
                }
            }
        }
        for Change { pair, low, high } in changes {
            if let Ok(pending) = &mut outcomes[pair] {
                pending.flip_alpha = Some((alpha[low] + alpha[high]) / 2.0);
            }
        }
        Ok(())
    }

    /// Narrows the step in which each curve first reaches one half.
    fn bisect(&mut self, outcomes: &mut [Started], eps: f64) -> Result<()> {
        let mut brackets = self.brackets(outcomes);
        loop {
            let mut open: Vec<&mut Bracket> = brackets.iter_mut().filter(|bracket| bracket.width() > eps).collect();
            if open.is_empty() {
                break;
            }
            for open in open.chunks_mut((self.plan.batch_rows / BISECTION_POINTS).max(1)) {
                process::signals::check()?;
                self.narrow(open, outcomes)?;
            }
        }
        for bracket in brackets {
            if let Ok(pending) = &mut outcomes[bracket.pair] {
                pending.boundaries[bracket.distance] = Some((bracket.low + bracket.high) / 2.0);
            }
        }
        Ok(())
    }

    fn brackets(&self, outcomes: &mut [Started]) -> Vec<Bracket> {
        let alpha = self.plan.alpha();
        let mut brackets = Vec::new();
        for (pair, outcome) in outcomes.iter_mut().enumerate() {
            let Ok(pending) = outcome else { continue };
            pending.boundaries = vec![None; pending.curves.len()];
            for (distance, curve) in pending.curves.iter().enumerate() {
                if let (Ok(_), Some(step)) = (&pending.scales[distance].1, regions::first_crossing(curve, 0.5)) {
                    brackets.push(Bracket {
                        pair,
                        distance,
                        low: alpha[step],
                        high: alpha[step + 1],
                    });
                }
            }
        }
        brackets
    }

    /// One pass: each bracket becomes the part between two of its points in which the curve reaches one half.
    fn narrow(&mut self, open: &mut [&mut Bracket], outcomes: &[Started]) -> Result<()> {
        let owners: Vec<usize> = open
            .iter()
            .flat_map(|bracket| [bracket.pair; BISECTION_POINTS])
            .collect();
        let points: Vec<Vec<f32>> = open
            .iter()
            .flat_map(|bracket| (0..BISECTION_POINTS).map(move |k| (bracket.pair, bracket.inside(k))))
            .map(|(pair, alpha)| self.point(pair, alpha))
            .collect();
        let mut values = vec![0.0; points.len()];
        self.answers(&owners, &points, false, |row, answer| {
            let bracket = &open[row / BISECTION_POINTS];
            if let Ok(pending) = &outcomes[bracket.pair]
                && let Ok(scale) = &pending.scales[bracket.distance].1
            {
                values[row] = scale.value(&answer);
            }
        })?;
        for (bracket, values) in open.iter_mut().zip(values.chunks_exact(BISECTION_POINTS)) {
            let reached = values.iter().position(|&value| value >= 0.5);
            let last_below = reached.map_or(Some(BISECTION_POINTS - 1), |k| k.checked_sub(1));
            let narrowed = Bracket {
                low: last_below.map_or(bracket.low, |k| bracket.inside(k)),
                high: reached.map_or(bracket.high, |k| bracket.inside(k)),
                ..**bracket
            };
            // Below the resolution of f64 a bracket no longer narrows.
            if narrowed.width() >= bracket.width() {
                return Err(Error::bug("--bisect", "a bracket does not narrow"));
            }
            **bracket = narrowed;
        }
        Ok(())
    }

    fn measured(
        &self,
        pair: usize,
        pending: Pending,
    ) -> Result<Vec<(Distance, std::result::Result<Measured, String>)>> {
        let (a, b) = (&self.starts[pair], &self.ends[pair]);
        let alpha = self.plan.alpha();
        let token = |id: u32| self.model.speller.text(&[id]).at(&self.model.name);
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

fn sign_flips(a: &[f32], b: &[f32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count()
}

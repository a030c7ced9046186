//! One operation of a plan: its JSON, the rules that hold between its parts, and what the model is told to do.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use model::steering::{self, Bound, Edit, Kept, Limits, Step, Turn};
use model::{Config, Faults, Site};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A refusal, in words; the caller knows the plan and the operation's number.
type Checked<T> = Result<T, String>;

/// What is done at a site of some layers. Keys and meanings: `man 5 acts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    #[serde(serialize_with = "shown", deserialize_with = "read")]
    pub site: Site,
    pub layers: Vec<usize>,
    #[serde(serialize_with = "shown", deserialize_with = "read")]
    pub positions: Positions,
    pub op: Op,
    pub coefficient: f64,
    /// Degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angle: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Numbers of a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// Share of numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// How the vectors came about: method, site, layer, position, norms. Nothing depends on it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub source: Map<String, Value>,
    /// A tensor of the container.
    #[serde(skip)]
    pub vectors: Vec<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Add,
    Ablate,
    Rotate,
    Scale,
    Redirect,
    Clip,
    Sparsify,
    Flip,
}

/// Variants of `add`, `rotate`, `clip` and `sparsify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Raw,
    Unit,
    Absolute,
    Positive,
    Relative,
    Above,
    Below,
    Elements,
    Threshold,
    Largest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub kind: GateKind,
    pub at_least: f64,
    /// A tensor of the container.
    #[serde(skip)]
    pub direction: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    Cosine,
    Projection,
}

/// Tokens by where they stand in their sequence, from 0: `all`, `3`, `0-4`, or `5-` for the fifth and all behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(pub RangeInclusive<u32>);

impl Positions {
    pub const ALL: Positions = Positions(0..=u32::MAX);
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Checked<Self> {
        let number = |digits: &str| digits.parse::<u32>().ok();
        let range = match text.split_once('-') {
            None if text == "all" => Some(0..=u32::MAX),
            None => number(text).map(|at| at..=at),
            Some((first, "")) => number(first).map(|first| first..=u32::MAX),
            Some((first, last)) => number(first).zip(number(last)).map(|(first, last)| first..=last),
        };
        match range.filter(|range| !range.is_empty()) {
            Some(range) => Ok(Positions(range)),
            None => Err(format!(
                "{text:?} is not `all`, a position, or a range such as 0-4 or 5-"
            )),
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self.0.start(), *self.0.end()) {
            (0, u32::MAX) => out.write_str("all"),
            (first, u32::MAX) => write!(out, "{first}-"),
            (first, last) if first == last => write!(out, "{first}"),
            (first, last) => write!(out, "{first}-{last}"),
        }
    }
}

fn shown<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn read<'de, D: serde::Deserializer<'de>, T: FromStr<Err: fmt::Display>>(input: D) -> Result<T, D::Error> {
    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
}

impl Operation {
    /// An operation on every token of these layers, the whole of it.
    pub fn new(op: Op, site: Site, layers: Vec<usize>, vectors: Vec<Vec<f64>>) -> Operation {
        Operation {
            site,
            layers,
            positions: Positions::ALL,
            op,
            coefficient: 1.0,
            angle: None,
            threshold: None,
            mode: None,
            keep: None,
            rate: None,
            seed: None,
            bits: None,
            gate: None,
            source: Map::new(),
            vectors,
        }
    }

    /// An orthonormal basis of the span of its vectors, the first of which keeps its direction.
    pub fn basis(&self) -> Checked<Vec<Vec<f64>>> {
        orthonormal(&self.vectors)
    }

    /// What the model is told, with the coefficient times `scale`.
    pub fn step(&self, scale: f64) -> Checked<Step> {
        self.check()?;
        let gate = self.gate.as_ref().map(Gate::passing).transpose()?;
        Ok(Step {
            edit: self.edit(self.coefficient * scale)?,
            gate,
            positions: self.positions.0.clone(),
        })
    }

    /// Refuses what does not make sense in any model.
    pub fn check(&self) -> Checked<()> {
        let angle = self.angle.into_iter().chain(self.threshold).chain(self.rate);
        match angle.chain([self.coefficient]).find(|x| !x.is_finite()) {
            Some(number) => return Err(format!("holds {number}")),
            None if self.layers.is_empty() => return Err("names no layer".into()),
            None => {}
        }
        if let Some(wanted) = self.mode_wanted() {
            return Err(format!("{:?} takes the mode {wanted}", self.op).to_lowercase());
        }
        let has_limits = self.mode == Some(Mode::Elements) && !self.vectors.is_empty();
        let has_threshold = (self.op == Op::Clip && !has_limits) || self.mode == Some(Mode::Threshold);
        let flips = self.op == Op::Flip;
        let needs = [
            ("angle", self.angle.is_some(), self.op == Op::Rotate),
            ("threshold", self.threshold.is_some(), has_threshold),
            ("keep", self.keep.is_some(), self.mode == Some(Mode::Largest)),
            ("rate", self.rate.is_some(), flips),
            ("seed", self.seed.is_some(), flips),
            ("bits", self.bits.is_some(), flips),
        ];
        for (key, is_there, is_needed) in needs {
            match (is_there, is_needed) {
                (false, true) => return Err(format!("{key} is missing")),
                (true, false) => return Err(format!("{key} means nothing here")),
                _ => {}
            }
        }
        let of_numbers = matches!(self.mode, Some(Mode::Elements | Mode::Threshold));
        if of_numbers && self.threshold.is_some_and(|threshold| threshold < 0.0) {
            return Err("a limit on numbers is not negative".into());
        }
        let is_share = |coefficient: f64| (0.0..=1.0).contains(&coefficient);
        if self
            .rate
            .is_some_and(|rate| !is_share(rate) || !is_share(rate * self.coefficient))
        {
            return Err("a rate lies from 0 to 1, and so does the coefficient times it".into());
        }
        if self.bits.is_some_and(|bits| ![16, 32].contains(&bits)) {
            return Err("bits are 16 or 32".into());
        }
        self.check_vectors()
    }

    /// The modes of which one is wanted, if the one given is none of them.
    fn mode_wanted(&self) -> Option<&'static str> {
        use Mode::*;
        match (self.op, self.mode) {
            (Op::Add, None | Some(Raw | Unit)) => None,
            (Op::Rotate, Some(Absolute | Positive | Relative)) => None,
            (Op::Clip, Some(Above | Below | Elements)) => None,
            (Op::Sparsify, Some(Threshold | Largest)) => None,
            (Op::Ablate | Op::Scale | Op::Redirect | Op::Flip, None) => None,
            (Op::Add, _) => Some("raw or unit"),
            (Op::Rotate, _) => Some("absolute, positive or relative"),
            (Op::Clip, _) => Some("above, below or elements"),
            (Op::Sparsify, _) => Some("threshold or largest"),
            _ => Some("of no name: leave it out"),
        }
    }

    fn check_vectors(&self) -> Checked<()> {
        let count = self.vectors.len();
        let wanted = match (self.op, self.mode) {
            (Op::Ablate, _) => 1..=usize::MAX,
            (Op::Rotate, _) => 2..=2,
            (Op::Clip, Some(Mode::Elements)) => 0..=1,
            (Op::Flip, _) => 0..=0,
            (Op::Sparsify, _) => 0..=usize::MAX,
            _ => 1..=1,
        };
        if !wanted.contains(&count) {
            return Err(format!("{count} vectors, and {} are meant", wanted.start()));
        }
        for (row, vector) in self.vectors.iter().enumerate() {
            check_vector(vector).map_err(|cause| format!("vector {row} {cause}"))?;
        }
        let of_elements = self.mode == Some(Mode::Elements);
        match (self.op, self.vectors.first()) {
            (Op::Sparsify, Some(factors)) if factors.iter().any(|&factor| factor < 0.0) => {
                Err("a factor of a score is not negative".into())
            }
            (Op::Clip, Some(limits)) if of_elements && limits.iter().any(|&limit| limit < 0.0) => {
                Err("a limit on numbers is not negative".into())
            }
            _ => Ok(()),
        }
    }

    fn edit(&self, coefficient: f64) -> Checked<Edit> {
        let share = coefficient;
        let first = || self.vectors.first().ok_or_else(|| "no vector".to_string());
        let times = |vector: &[f64]| vector.iter().map(|x| x * coefficient).collect();
        Ok(match self.op {
            Op::Add if self.mode == Some(Mode::Unit) => Edit::Add(times(&unit(first()?)?)),
            Op::Add => Edit::Add(times(first()?)),
            Op::Scale => Edit::Scale(times(first()?)),
            Op::Redirect => Edit::Redirect(times(first()?)),
            Op::Ablate => Edit::Ablate {
                basis: orthonormal(&self.vectors)?,
                share,
            },
            Op::Rotate => Edit::Rotate {
                plane: orthonormal(&self.vectors)?
                    .try_into()
                    .map_err(|_| "a plane has two vectors")?,
                degrees: self.angle.unwrap_or_default(),
                turn: match self.mode {
                    Some(Mode::Absolute) => Turn::Absolute,
                    Some(Mode::Positive) => Turn::Positive,
                    _ => Turn::Relative,
                },
                share,
            },
            Op::Clip => self.clip(share)?,
            Op::Sparsify => self.sparsify(share)?,
            Op::Flip => self.flip(coefficient)?,
        })
    }

    /// The first vector holds the factors of the scores, the others span what is kept of the rest.
    fn sparsify(&self, share: f64) -> Checked<Edit> {
        let remainder = self.vectors.get(1..).filter(|vectors| !vectors.is_empty());
        Ok(Edit::Sparsify {
            factors: self.vectors.first().cloned(),
            kept: match self.mode {
                Some(Mode::Largest) => Kept::Largest(self.keep.unwrap_or_default()),
                _ => Kept::Above(self.threshold.unwrap_or_default()),
            },
            remainder: remainder.map_or(Ok(Vec::new()), orthonormal)?,
            share,
        })
    }

    /// The coefficient multiplies the rate.
    fn flip(&self, coefficient: f64) -> Checked<Edit> {
        let rate = self.rate.unwrap_or_default() * coefficient;
        match (0.0..=1.0).contains(&rate) {
            true => Ok(Edit::Flip {
                faults: Faults {
                    rate,
                    seed: self.seed.unwrap_or_default(),
                },
                bits: self.bits.unwrap_or_default(),
            }),
            false => Err(format!("a rate of {rate}, which lies from 0 to 1")),
        }
    }

    fn clip(&self, share: f64) -> Checked<Edit> {
        let threshold = self.threshold.unwrap_or_default();
        let bound = match self.mode {
            Some(Mode::Elements) => {
                let limits = self.vectors.first().map(|limits| Limits::Each(limits.clone()));
                let limits = limits.unwrap_or(Limits::One(threshold));
                return Ok(Edit::Clamp { limits, share });
            }
            Some(Mode::Below) => Bound::AtLeast(threshold),
            _ => Bound::AtMost(threshold),
        };
        let direction = unit(self.vectors.first().ok_or("no vector")?)?;
        Ok(Edit::Clip {
            direction,
            bound,
            share,
        })
    }

    /// Refuses what this model has not.
    pub fn check_place(&self, config: &Config) -> Checked<()> {
        let width = self.site.width(config);
        let gate = self.gate.iter().map(|gate| &gate.direction);
        if let Some(vector) = self.vectors.iter().chain(gate).find(|vector| vector.len() != width) {
            return Err(format!(
                "a vector of {}, {} has the width {width}",
                vector.len(),
                self.site
            ));
        }
        if let Some(keep) = self.keep.filter(|&keep| keep > width) {
            return Err(format!("keeps {keep} numbers, {} has the width {width}", self.site));
        }
        match self.layers.iter().find(|&&layer| layer >= config.layer_count()) {
            Some(layer) => Err(format!("layer {layer}, and the model has {}", config.layer_count())),
            None => Ok(()),
        }
    }
}

impl Gate {
    fn passing(&self) -> Checked<steering::Gate> {
        if !self.at_least.is_finite() {
            return Err(format!("a gate at {}", self.at_least));
        }
        check_vector(&self.direction).map_err(|cause| format!("the gate's vector {cause}"))?;
        let (direction, at_least) = (unit(&self.direction)?, self.at_least);
        Ok(match self.kind {
            GateKind::Cosine => steering::Gate::Cosine { direction, at_least },
            GateKind::Projection => steering::Gate::Projection { direction, at_least },
        })
    }
}

fn check_vector(vector: &[f64]) -> Checked<()> {
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        return Err(format!("is not finite at dimension {at}"));
    }
    match vector.iter().all(|&x| x == 0.0) {
        true => Err("is zero".into()),
        false => Ok(()),
    }
}

fn unit(vector: &[f64]) -> Checked<Vec<f64>> {
    let norm = dot(vector, vector).sqrt();
    match norm.is_finite() && norm > 0.0 {
        true => Ok(vector.iter().map(|x| x / norm).collect()),
        false => Err(format!("a vector has the norm {norm}")),
    }
}

/// The span of vectors, the first of which keeps its direction: a basis stored with few digits is not orthonormal.
fn orthonormal(vectors: &[Vec<f64>]) -> Checked<Vec<Vec<f64>>> {
    let width = vectors.first().map_or(0, Vec::len);
    let units = vectors.iter().map(|vector| unit(vector)).collect::<Checked<Vec<_>>>()?;
    let mut basis = Array2::from_shape_vec((units.len(), width), units.concat())
        .map_err(|_| "vectors of different lengths".to_string())?;
    numerics::leading::orthonormalise(&mut basis);
    let basis: Vec<Vec<f64>> = basis.rows().into_iter().map(|row| row.to_vec()).collect();
    // a vector within the span of those before it leaves nothing of its own
    match basis
        .iter()
        .zip(&units)
        .position(|(basis, unit)| dot(basis, unit) < 1e-8)
    {
        Some(row) => Err(format!("vector {row} lies in the span of those before it")),
        None => Ok(basis),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(vectors: Vec<Vec<f64>>) -> Operation {
        Operation {
            angle: Some(60.0),
            mode: Some(Mode::Relative),
            ..Operation::new(Op::Rotate, Site::ResidPost, vec![0], vectors)
        }
    }

    fn refusal(change: impl FnOnce(&mut Operation)) -> String {
        let mut operation = Operation::new(Op::Add, Site::ResidPost, vec![0], vec![vec![1.0, 2.0]]);
        change(&mut operation);
        operation.step(1.0).expect_err("a refusal")
    }

    #[test]
    fn positions_are_read_as_they_are_shown() {
        for text in ["all", "3", "0-4", "5-"] {
            assert_eq!(text.parse::<Positions>().unwrap().to_string(), text);
        }
        for text in ["", "x", "-1", "4-3", "1-2-3", "1.5"] {
            assert!(text.parse::<Positions>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_basis_that_is_nearly_orthonormal_is_made_so() {
        let Edit::Rotate { plane, .. } = rotation(vec![vec![0.99834, 0.0, 0.0], vec![0.00166, 0.99862, 0.0]])
            .step(1.0)
            .unwrap()
            .edit
        else {
            panic!("a rotation")
        };
        assert_eq!(plane[0], [1.0, 0.0, 0.0]);
        assert!(dot(&plane[0], &plane[1]).abs() < 1e-15 && (dot(&plane[1], &plane[1]) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn vectors_without_a_span_are_refused() {
        let cause = rotation(vec![vec![1.0, 2.0], vec![2.0, 4.0]]).step(1.0).unwrap_err();
        assert!(cause.contains("span"), "{cause}");
        assert!(refusal(|it| it.vectors[0] = vec![0.0, 0.0]).contains("is zero"));
        assert!(refusal(|it| it.vectors[0][1] = f64::NAN).contains("dimension 1"));
        assert!(refusal(|it| it.vectors.push(vec![1.0, 0.0])).contains("2 vectors"));
        assert!(refusal(|it| it.vectors.clear()).contains("0 vectors"));
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        assert!(refusal(|it| it.mode = Some(Mode::Relative)).contains("raw or unit"));
        assert!(refusal(|it| it.angle = Some(1.0)).contains("angle means nothing"));
        assert!(refusal(|it| it.op = Op::Clip).contains("above, below or elements"));
        assert!(refusal(|it| (it.op, it.mode) = (Op::Clip, Some(Mode::Above))).contains("threshold is missing"));
        assert!(refusal(|it| it.op = Op::Sparsify).contains("threshold or largest"));
        assert!(refusal(|it| (it.op, it.mode) = (Op::Sparsify, Some(Mode::Largest))).contains("keep is missing"));
        assert!(
            refusal(|it| (it.op, it.mode) = (Op::Sparsify, Some(Mode::Threshold))).contains("threshold is missing")
        );
        let negative = |it: &mut Operation| {
            (it.op, it.mode, it.threshold) = (Op::Sparsify, Some(Mode::Threshold), Some(0.1));
            it.vectors[0][0] = -1.0;
        };
        assert!(refusal(negative).contains("not negative"));
        assert!(refusal(|it| it.keep = Some(1)).contains("keep means nothing"));
        assert!(refusal(|it| it.coefficient = f64::INFINITY).contains("inf"));
        assert!(refusal(|it| it.layers.clear()).contains("no layer"));
        let gate = |direction: Vec<f64>, at_least| Gate {
            kind: GateKind::Cosine,
            at_least,
            direction,
        };
        assert!(refusal(|it| it.gate = Some(gate(vec![0.0], 0.5))).contains("gate's vector is zero"));
        assert!(refusal(|it| it.gate = Some(gate(vec![1.0], f64::NAN))).contains("gate at NaN"));
    }

    #[test]
    fn a_raw_vector_keeps_its_length_and_a_unit_one_has_none() {
        let mut operation = Operation::new(Op::Add, Site::ResidPost, vec![0], vec![vec![3.0, 4.0]]);
        assert_eq!(operation.step(2.0).unwrap().edit, Edit::Add(vec![6.0, 8.0]));
        operation.mode = Some(Mode::Unit);
        assert_eq!(operation.step(10.0).unwrap().edit, Edit::Add(vec![6.0, 8.0]));
    }
}

//! Candidates: a vector of every layer and position, tried on the model, discarded by rule or ranked.

use model::{Checkpoint, Site, Steering};
use process::{Progress, Result, ResultExt, signals};
use records::{Candidate, Depth};
use steering::{How, Made, Op, Operation, Plan};

use crate::cli::Use;
use crate::passes::Passes;
use crate::refusal;
use crate::vectors::{norm, unit};

/// A vector before it is tried.
pub struct Vector {
    pub layer: usize,
    pub position: i64,
    pub values: Vec<f64>,
}

/// What a candidate must not do.
pub struct Rules {
    pub kl_max: f64,
    /// Absent where adding is not tried.
    pub induced_min: Option<f64>,
    /// Layers from here on are discarded.
    pub layer_end: usize,
}

/// What candidates are tried on.
pub struct Trials<'t> {
    pub passes: &'t Passes<'t>,
    pub checkpoint: &'t Checkpoint,
    pub tokens: &'t [u32],
    /// To be refused no longer.
    pub refused: &'t [Vec<u32>],
    /// To be answered as before.
    pub harmless: &'t [Vec<u32>],
    pub rules: Rules,
}

/// What trials measured of one candidate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub kl: Option<f64>,
    pub refusal: Option<f64>,
    pub induced: Option<f64>,
}

impl Trials<'_> {
    /// Tries every vector that its layer does not discard.
    pub fn measure(&self, vectors: &[Vector], progress: &Progress) -> Result<Vec<Measured>> {
        let nothing = Steering::new(self.checkpoint.config(), self.checkpoint.device());
        let base = self.passes.logits(self.harmless, &nothing).at("--model")?;
        let mut all = vec![Measured::default(); vectors.len()];
        for (vector, measured) in vectors.iter().zip(&mut all) {
            signals::check()?;
            progress.advance(1);
            if vector.layer >= self.rules.layer_end || unit(&vector.values).is_none() {
                continue;
            }
            let steering = self.ablating(&vector.values)?;
            let answers = self.passes.logits(self.harmless, &steering).at("--model")?;
            let refused = self.passes.logits(self.refused, &steering).at("--model")?;
            measured.kl = Some(refusal::mean_divergence(&base, &answers));
            measured.refusal = Some(refusal::mean_score(&refused, self.tokens));
        }
        if self.rules.induced_min.is_some() {
            self.induce(vectors, &mut all)?;
        }
        Ok(all)
    }

    /// Adds every vector to harmless prompts.
    fn induce(&self, vectors: &[Vector], all: &mut [Measured]) -> Result<()> {
        let tried: Vec<usize> = (0..vectors.len()).filter(|&at| all[at].kl.is_some()).collect();
        let added: Vec<(usize, &[f64])> = tried
            .iter()
            .map(|&at| (vectors[at].layer, vectors[at].values.as_slice()))
            .collect();
        let mut sums = vec![0.0; added.len()];
        let add = |at: usize, logits: Vec<Vec<f32>>| {
            sums[at] += logits
                .iter()
                .map(|logits| refusal::score(logits, self.tokens))
                .sum::<f64>();
        };
        self.passes.added(self.harmless, &added, add).at("--model")?;
        for (&at, sum) in tried.iter().zip(sums) {
            all[at].induced = Some(sum / self.harmless.len() as f64);
        }
        Ok(())
    }

    fn ablating(&self, vector: &[f64]) -> Result<Steering> {
        let plan = plan(self.checkpoint, Use::Ablate, 0, vector.to_vec());
        let config = self.checkpoint.config();
        let mut steering = Steering::new(config, self.checkpoint.device());
        let layers: Vec<usize> = (0..config.layer_count()).collect();
        let how = How {
            scale: 1.0,
            layers: &layers,
            allow_other_model: false,
        };
        let steered = plan.steer(&mut steering, self.checkpoint, how);
        steered.map_err(|cause| process::Error::bug("candidate", cause))?;
        Ok(steering)
    }
}

/// The plan that takes a vector's direction out of everything, or adds it before its block.
pub fn plan(checkpoint: &Checkpoint, purpose: Use, layer: usize, vector: Vec<f64>) -> Plan {
    let all: Vec<usize> = (0..checkpoint.config().layer_count()).collect();
    let operations = match purpose {
        Use::Add => vec![Operation::new(Op::Add, Site::ResidPre, vec![layer], vec![vector])],
        Use::Ablate => [Site::ResidPre, Site::AttnOut, Site::MlpOut]
            .map(|site| Operation::new(Op::Ablate, site, all.clone(), vec![vector.clone()]))
            .into(),
    };
    Plan {
        made: Made::of(checkpoint),
        operations,
    }
}

impl Rules {
    /// Why a candidate cannot be chosen, the first rule that says so.
    pub fn discard(&self, vector: &Vector, measured: &Measured) -> Option<&'static str> {
        let numbers = [measured.kl, measured.refusal, measured.induced];
        if unit(&vector.values).is_none() || numbers.into_iter().flatten().any(|x| !x.is_finite()) {
            return Some("nan");
        }
        if vector.layer >= self.layer_end {
            return Some("layer");
        }
        if measured.kl.is_some_and(|kl| kl > self.kl_max) {
            return Some("kl");
        }
        match (self.induced_min, measured.induced) {
            (Some(least), Some(induced)) if induced < least => Some("induced"),
            _ => None,
        }
    }

    /// The place of the best: the lowest refusal score of those that no rule discards, the first of equal ones.
    pub fn choose(&self, vectors: &[Vector], measured: &[Measured]) -> Option<usize> {
        let scores = vectors
            .iter()
            .zip(measured)
            .enumerate()
            .filter_map(|(at, (vector, measured))| {
                let score = measured.refusal?;
                self.discard(vector, measured).is_none().then_some((at, score))
            });
        scores
            .reduce(|best, next| if next.1 < best.1 { next } else { best })
            .map(|(at, _)| at)
    }
}

/// What is recorded of a vector, before what was measured.
pub fn row(method: &str, site: Site, vector: &Vector, layer_count: usize) -> Candidate {
    Candidate {
        method: method.into(),
        site: site.to_string(),
        layer_index: vector.layer,
        depth: Depth::of(Some(vector.layer), Some(layer_count)),
        position: vector.position,
        norm: norm(&vector.values),
        ..Candidate::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        kl_max: 0.1,
        induced_min: Some(0.0),
        layer_end: 8,
    };

    fn vector(layer: usize) -> Vector {
        Vector {
            layer,
            position: -1,
            values: vec![1.0, 0.0],
        }
    }

    fn measured(kl: f64, refusal: f64, induced: f64) -> Measured {
        Measured {
            kl: Some(kl),
            refusal: Some(refusal),
            induced: Some(induced),
        }
    }

    #[test]
    fn every_rule_decides_where_all_others_are_content() {
        let sound = measured(0.05, -3.0, 0.5);
        assert_eq!(RULES.discard(&vector(7), &sound), None);
        assert_eq!(RULES.discard(&vector(8), &Measured::default()), Some("layer"));
        assert_eq!(RULES.discard(&vector(7), &measured(0.11, -3.0, 0.5)), Some("kl"));
        assert_eq!(RULES.discard(&vector(7), &measured(0.05, -3.0, -0.1)), Some("induced"));
        for nan in [
            measured(f64::NAN, -3.0, 0.5),
            measured(0.05, f64::NAN, 0.5),
            measured(0.05, -3.0, f64::NAN),
        ] {
            assert_eq!(RULES.discard(&vector(7), &nan), Some("nan"));
        }
        let zero = Vector {
            values: vec![0.0, 0.0],
            ..vector(7)
        };
        assert_eq!(RULES.discard(&zero, &Measured::default()), Some("nan"));
    }

    #[test]
    fn bounds_themselves_are_kept() {
        assert_eq!(RULES.discard(&vector(7), &measured(0.1, -3.0, 0.0)), None);
    }

    #[test]
    fn the_lowest_score_wins_among_those_that_are_left() {
        let vectors = [vector(1), vector(2), vector(3), vector(9), vector(4)];
        let all = [
            measured(0.0, -2.0, 1.0),
            measured(0.0, -4.0, 1.0),
            measured(0.5, -9.0, 1.0),
            Measured::default(),
            measured(0.0, -4.0, 1.0),
        ];
        assert_eq!(RULES.choose(&vectors, &all), Some(1));
        assert_eq!(RULES.choose(&vectors[2..4], &all[2..4]), None);
    }
}

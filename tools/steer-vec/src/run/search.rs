//! What both searches on a model share: refusal tokens, the prompts that count, trials, and the choice among candidates.

use std::collections::BTreeMap;

use model::{Checkpoint, Site, Steering};
use process::{Common, Error, Progress, Result, ResultExt};
use serde_json::json;

use crate::candidate::{self, Measured, Rules, Trials, Vector};
use crate::cli::SearchFlags;
use crate::passes::Passes;
use crate::plan::Trial;
use crate::product::Found;
use crate::prompts::Prompts;
use crate::refusal;
use crate::report::PromptSet;
use crate::vectors::norm;

/// A model being searched.
pub struct Search<'s> {
    pub flags: &'s SearchFlags,
    pub checkpoint: &'s Checkpoint,
    pub passes: Passes<'s>,
    pub tokens: Vec<u32>,
    pub found: Found,
}

/// Which refusal scores a kind of prompts must have to count.
#[derive(Clone, Copy, PartialEq)]
pub enum Kept {
    Refused,
    Answered,
    All,
}

impl<'s> Search<'s> {
    pub fn begin(flags: &'s SearchFlags, trial: &'s Trial, decoder: &'s model::Decoder) -> Result<Self> {
        let mut search = Search {
            flags,
            checkpoint: &trial.checkpoint,
            passes: Passes {
                decoder,
                batch_tokens: flags.batch_tokens as usize,
            },
            tokens: flags.refusal_tokens.clone(),
            found: Found::default(),
        };
        search.name_tokens(trial)?;
        Ok(search)
    }

    fn name_tokens(&mut self, trial: &Trial) -> Result<()> {
        let tokenizer = &trial.speech.tokenizer;
        let vocab_size = self.checkpoint.config().vocab_size;
        if let Some(id) = self.tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::usage(
                "--refusal-tokens",
                format!("{id} is beyond the vocabulary of {vocab_size}"),
            ));
        }
        let rows = match self.tokens.is_empty() {
            false => self.tokens.iter().map(|&id| refusal::given(id, tokenizer)).collect(),
            true => {
                let (harmful, harmless) = (
                    self.as_it_is(&trial.harmful.train)?,
                    self.as_it_is(&trial.harmless.train)?,
                );
                refusal::found(&harmful, &harmless, tokenizer)
            }
        };
        if rows.is_empty() {
            let cause = "no token opens the answers to harmful prompts and less those to harmless ones";
            return Err(Error::input("--model", cause).hint("--refusal-tokens names them"));
        }
        self.tokens = rows.iter().map(|row| row.token_id).collect();
        rows.iter().try_for_each(|row| self.found.row(row))
    }

    fn as_it_is(&self, prompts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let nothing = Steering::new(self.checkpoint.config(), self.checkpoint.device());
        self.passes.logits(prompts, &nothing).at("--model")
    }

    /// The training prompts of a kind that the model treats as their kind says.
    pub fn train(&mut self, prompts: &Prompts, kept: Kept) -> Result<Vec<Vec<u32>>> {
        self.kept(prompts.group, "train", &prompts.train, kept)
    }

    /// The same of those on which candidates are tried.
    pub fn validation(&mut self, prompts: &Prompts, kept: Kept) -> Result<Vec<Vec<u32>>> {
        self.kept(prompts.group, "validation", &prompts.validation, kept)
    }

    fn kept(
        &mut self,
        group: &'static str,
        split: &'static str,
        prompts: &[Vec<u32>],
        kept: Kept,
    ) -> Result<Vec<Vec<u32>>> {
        let logits = self.as_it_is(prompts)?;
        let scores: Vec<f64> = logits
            .iter()
            .map(|logits| refusal::score(logits, &self.tokens))
            .collect();
        let counts = |score: f64| match kept {
            _ if self.flags.keep_all => true,
            Kept::Refused => score > 0.0,
            Kept::Answered => score < 0.0,
            Kept::All => true,
        };
        let chosen: Vec<usize> = (0..prompts.len()).filter(|&at| counts(scores[at])).collect();
        let total: f64 = chosen.iter().map(|&at| scores[at]).sum();
        self.found.row(&PromptSet {
            group,
            split,
            count: prompts.len(),
            kept_count: chosen.len(),
            refusal_score: (!chosen.is_empty()).then(|| total / chosen.len() as f64),
        })?;
        match chosen.is_empty() {
            true => {
                let cause = format!(
                    "the model treats none of the {} {group} prompts for {split} as their kind says",
                    prompts.len()
                );
                Err(Error::input("--model", cause).hint("--keep-all takes all of them"))
            }
            false => Ok(chosen.into_iter().map(|at| prompts[at].clone()).collect()),
        }
    }

    pub fn rules(&self, kl_max: f64, induced_min: Option<f64>) -> Rules {
        let layer_count = self.checkpoint.config().layer_count();
        Rules {
            kl_max,
            induced_min,
            layer_end: (self.flags.depth_max * layer_count as f64) as usize,
        }
    }

    /// A vector of every layer and position, by what `make` gives for them.
    pub fn vectors(&self, tail_count: usize, make: impl Fn(usize, usize) -> Vec<f64>) -> Vec<Vector> {
        let layers = 0..self.checkpoint.config().layer_count();
        let of = |layer: usize| {
            let make = &make;
            (0..tail_count).map(move |at| Vector {
                layer,
                position: at as i64 - tail_count as i64,
                values: make(layer, at),
            })
        };
        layers.flat_map(of).collect()
    }

    /// Tries all, records all, and makes the plan of the best.
    pub fn finish(
        mut self,
        common: &Common,
        method: &str,
        vectors: Vec<Vector>,
        on: (&[Vec<u32>], &[Vec<u32>]),
        rules: Rules,
    ) -> Result<Found> {
        let trials = Trials {
            passes: &self.passes,
            checkpoint: self.checkpoint,
            tokens: &self.tokens,
            refused: on.0,
            harmless: on.1,
            rules,
        };
        let progress = Progress::start(common, "trying", Some(vectors.len() as u64), "candidates");
        let measured = trials.measure(&vectors, &progress)?;
        progress.finish();
        let rules = trials.rules;
        let best = rules.choose(&vectors, &measured);
        for (at, (vector, measured)) in vectors.iter().zip(&measured).enumerate() {
            let mut row = candidate::row(method, Site::ResidPre, vector, self.checkpoint.config().layer_count());
            tell(&mut row, method, measured);
            row.discarded = rules.discard(vector, measured).map(str::to_owned);
            row.chosen = best == Some(at);
            self.found.row(&row)?;
        }
        match best {
            Some(best) => self.found.plan = Some(self.plan(method, &vectors[best])),
            None => process::warn(common, &none_left(&rules, &vectors, &measured)),
        }
        Ok(self.found)
    }

    fn plan(&self, method: &str, vector: &Vector) -> steering::Plan {
        let mut plan = candidate::plan(self.checkpoint, self.flags.purpose, vector.layer, vector.values.clone());
        let source = json!({
            "method": method, "site": Site::ResidPre.to_string(), "layer_index": vector.layer, "position": vector.position,
            "norm": norm(&vector.values),
        });
        for operation in &mut plan.operations {
            operation.source = source.as_object().cloned().unwrap_or_default();
        }
        plan
    }
}

/// `no candidate is left of 150: kl 88, layer 30, induced 32`
fn none_left(rules: &Rules, vectors: &[Vector], measured: &[Measured]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in vectors
        .iter()
        .zip(measured)
        .filter_map(|(vector, measured)| rules.discard(vector, measured))
    {
        *counts.entry(rule).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    format!("no candidate is left of {}: {}", vectors.len(), counts.join(", "))
}

/// What was measured; numbers that are not finite stand in no record.
fn tell(row: &mut records::Candidate, method: &str, measured: &Measured) {
    let finite = |x: Option<f64>| x.filter(|x| x.is_finite());
    row.kl = finite(measured.kl);
    row.induced_harmless = finite(measured.induced);
    match method {
        "surgical" => row.refusal_pseudo = finite(measured.refusal),
        _ => row.refusal_harmful = finite(measured.refusal),
    }
}

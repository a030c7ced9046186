//! The sweeps of one model: its pairs in batches, block by block, and the rows of every pair.

use crate::cli::{Distance, PathKind};
use crate::cloud::Cloud;
use crate::engine::{Engine, Prefixes};
use crate::interpolation::{Interpolation, Refusal, Swept};
use crate::pairs::Pair;
use crate::plan::{Model, ModelPlan, Opened, Plan};
use crate::ready::Ready;
use crate::report::RANDOM;
use numerics::regions::Way;
use numerics::rng::Rng;
use process::{Error, Progress, Result, ResultExt, word};
use records::{Depth, Region, RegionOutcome};

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
    pub about: &'a ModelPlan,
    pub model: &'a Model,
    pub engine: &'a Engine<'a>,
    pub progress: &'a Progress,
    /// Whether --keep-going had anything to skip.
    pub failed: bool,
}

impl Sweeps<'_> {
    /// The rows of every pair, by pair.
    pub fn all(&mut self, ready: &[Ready]) -> Result<Vec<Vec<Region>>> {
        let mut regions: Vec<Vec<Region>> = vec![Vec::new(); ready.len()];
        let mut runnable: Vec<Runnable> = Vec::new();
        for (index, ready) in ready.iter().enumerate() {
            match &ready.tokens {
                Ok([a, b]) => runnable.push(Runnable {
                    index,
                    pair: ready.pair,
                    a,
                    b,
                }),
                Err(cause) => {
                    for &layer in &self.about.layers {
                        let refused = Err(Refusal::Broken(cause.clone()));
                        regions[index].extend(self.rows(ready.pair, layer, None, refused)?);
                    }
                }
            }
        }
        let clouds = match self.plan.baseline || self.plan.path_kind == PathKind::Arc {
            true => {
                let pairs = &self.opened.pairs;
                Cloud::all(self.plan, self.model, self.engine, &self.about.layers, pairs)?
            }
            false => Vec::new(),
        };
        for batch in runnable.chunks((self.plan.batch_rows / self.plan.steps).max(1)) {
            process::signals::check()?;
            let a: Vec<&[u32]> = batch.iter().map(|pair| pair.a).collect();
            let mut prefixes = self.engine.prefixes(&a).at(&self.model.name)?;
            for (nth, &layer) in self.about.layers.iter().enumerate() {
                for (pair, rows) in batch
                    .iter()
                    .zip(self.batch(&mut prefixes, batch, layer, clouds.get(nth))?)
                {
                    regions[pair.index].extend(rows);
                }
            }
        }
        Ok(regions)
    }

    /// The rows of a batch after one block, by pair: the way to B, and where it is asked for, the way in a random direction.
    fn batch(
        &mut self,
        prefixes: &mut Prefixes,
        batch: &[Runnable],
        layer: usize,
        cloud: Option<&Cloud>,
    ) -> Result<Vec<Vec<Region>>> {
        let b: Vec<&[u32]> = batch.iter().map(|pair| pair.b).collect();
        let starts = self.engine.clean_after(prefixes, layer).at(&self.model.name)?;
        let ends = self.engine.clean(&b, layer).at(&self.model.name)?;
        let mut ways = vec![(None, ends)];
        if let (true, Some(cloud)) = (self.plan.baseline, cloud) {
            let rng = Rng::new(self.plan.seed, &format!("random direction after block {layer}"));
            let random = batch.iter().zip(starts.iter().zip(&ways[0].1));
            let random = random.map(|(pair, (a, b))| cloud.random_end(&rng, pair.pair.index, a, b));
            let random = random.collect();
            ways.push((Some(RANDOM), random));
        }
        let mut regions: Vec<Vec<Region>> = vec![Vec::new(); batch.len()];
        for (baseline, ends) in ways {
            let interpolation = Interpolation {
                plan: self.plan,
                model: self.model,
                engine: self.engine,
                prefixes: &mut *prefixes,
                layer,
                way: self.way(cloud),
                starts: &starts,
                ends: &ends,
            };
            for ((pair, outcome), regions) in batch.iter().zip(interpolation.measure()?).zip(&mut regions) {
                regions.extend(self.rows(pair.pair, layer, baseline, outcome)?);
            }
            self.progress.advance((batch.len() * self.plan.steps) as u64);
        }
        Ok(regions)
    }

    fn way(&self, cloud: Option<&Cloud>) -> Way {
        match (self.plan.path_kind, cloud) {
            (PathKind::Arc, Some(cloud)) => Way::Arc {
                centre: cloud.mean.clone(),
            },
            (PathKind::Slerp, _) => Way::Slerp,
            _ => Way::Linear,
        }
    }

    /// The records of one pair at one layer; a pair that cannot be measured stops the run unless --keep-going.
    fn rows(&mut self, pair: &Pair, layer: usize, baseline: Option<&str>, outcome: Swept) -> Result<Vec<Region>> {
        let verdict = |id: &str| {
            let verdict = self.opened.verdicts.as_ref().and_then(|verdicts| verdicts.of(id));
            verdict.map(|verdict| verdict.verdict.name().to_string())
        };
        let row = |distance: Distance, outcome| Region {
            id: pair.id.clone(),
            id_a: pair.id_a.clone(),
            id_b: pair.id_b.clone(),
            group: pair.group.clone(),
            model_digest: self.about.model_digest.clone(),
            layer_index: layer,
            depth: Depth::of(Some(layer), Some(self.model.checkpoint.config().layer_count())),
            read: word(self.plan.read),
            read_layer_index: self.about.read_layer,
            path_kind: word(self.plan.path_kind),
            distance: word(distance),
            baseline: baseline.map(str::to_string),
            outcome,
            verdict_a: verdict(&pair.id_a),
            verdict_b: verdict(&pair.id_b),
        };
        let skip_all = |cause: String| {
            let skipped = |&distance: &Distance| row(distance, RegionOutcome::Skipped { skipped: cause.clone() });
            self.plan.distances.iter().map(skipped).collect()
        };
        match outcome {
            Ok(curves) => Ok(curves
                .into_iter()
                .map(|(distance, curve)| match curve {
                    Ok(measured) => row(distance, RegionOutcome::Measured(Box::new(measured))),
                    Err(skipped) => row(distance, RegionOutcome::Skipped { skipped }),
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
}

//! --merge: the records of all shards of one plan, verified to cover it exactly once and put into the order of one run.

use crate::plan::{Opened, Plan};
use crate::report::{Found, RANDOM};
use model::Compute;
use process::{Error, MixedCompute, Result, ResultExt, Shard, word};
use records::{Reader, Region, Slice, Status};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What the shards found, and what measured it.
pub fn read(plan: &Plan, opened: &Opened, files: &[PathBuf]) -> Result<(Found, Compute)> {
    let digests: BTreeSet<&str> = plan.models.iter().map(|model| model.model_digest.as_str()).collect();
    if digests.len() < plan.models.len() {
        return Err(Error::usage(
            "--merge",
            "one model stands twice in --model; its records cannot be told apart",
        ));
    }
    let digest = plan.digest()?;
    let mut shards = Shards::default();
    for path in files {
        shards.read(path, &digest, plan.keep_going)?;
    }
    shards.check_division()?;
    let compute = shards.common_compute(opened.mixed)?;
    Ok((shards.in_order(plan, opened)?, compute))
}

type Key = (String, String, usize, Option<String>, String);

/// What was read so far.
#[derive(Default)]
struct Shards {
    shards: Vec<Shard>,
    /// The name of each, and what measured it.
    computes: Vec<(String, Compute)>,
    regions: BTreeMap<Key, Region>,
    slices: Vec<Slice>,
    is_partial: bool,
}

impl Shards {
    fn read(&mut self, path: &Path, digest: &str, accept_partial: bool) -> Result<()> {
        let name = path.display().to_string();
        let mut reader = Reader::new(File::open(path).at(&name)?)
            .strict(true)
            .accept_partial(accept_partial);
        while let Some(row) = reader.next_row().at(&name)? {
            process::signals::check()?;
            match row.kind.as_deref() {
                Some("slice") => self.slices.push(row.decode().at(&name)?),
                Some("region") => {
                    let region: Region = row.decode().at(&name)?;
                    let id = region.id.clone();
                    if self.regions.insert(key(&region), region).is_some() {
                        return Err(Error::input(&name, row.refuse(format!("pair {id} is in two shards"))));
                    }
                }
                _ => {}
            }
        }
        self.is_partial |= reader.status() == Status::Partial;
        let begin = reader
            .begin()
            .ok_or_else(|| Error::input(&name, "not a stream of ours: it has no begin record"))?;
        if begin.plan_digest.as_deref() != Some(digest) {
            return Err(
                Error::conflict(&name, "belongs to another plan").hint("give --merge the arguments of the shards")
            );
        }
        let shard = begin.rest.get("shard").and_then(|shard| shard.as_str());
        let shard = shard.and_then(|text| Shard::parse(text).ok());
        self.shards
            .push(shard.ok_or_else(|| Error::input(&name, "its begin record names no shard"))?);
        let compute = begin.rest.get("compute").cloned().unwrap_or_default();
        let compute = serde_json::from_value(compute).map_err(|cause| {
            Error::input(
                &name,
                format!("its begin record does not say what measured it: {cause}"),
            )
        })?;
        self.computes.push((name, compute));
        Ok(())
    }

    /// Two devices or kernels may differ in the last bits, and so do not meet unless the user allows it; then the first speaks for all.
    fn common_compute(&self, mixed: MixedCompute) -> Result<Compute> {
        let Some(((first_name, first), rest)) = self.computes.split_first() else {
            return Err(Error::usage("--merge", "no shard was given"));
        };
        let comparable = |compute: &Compute| mixed.comparable(json!({ "compute": compute }));
        for (name, compute) in rest {
            if let Some(difference) = process::plan::difference(&comparable(first), &comparable(compute)) {
                return Err(
                    Error::input(name, format!("was measured otherwise than {first_name}: {difference}"))
                        .hint("--allow-mixed-compute puts them together all the same"),
                );
            }
        }
        Ok(first.clone())
    }

    /// The shards are those of one division, each once.
    fn check_division(&self) -> Result<()> {
        let count = self.shards.first().map_or(0, |shard| shard.count);
        let present: BTreeSet<u32> = self.shards.iter().map(|shard| shard.index).collect();
        if self.shards.iter().any(|shard| shard.count != count) || present.len() != self.shards.len() {
            return Err(Error::input(
                "--merge",
                "these are not the shards of one division, each once",
            ));
        }
        match (0..count).find(|index| !present.contains(index)) {
            Some(missing) => Err(Error::input("--merge", format!("shard {missing}/{count} is missing"))),
            None => Ok(()),
        }
    }

    /// The rows as one run gives them.
    fn in_order(mut self, plan: &Plan, opened: &Opened) -> Result<Found> {
        let mut by_model = Vec::new();
        for model in &plan.models {
            let mut rows = Vec::new();
            for pair in &opened.pairs {
                for &layer in &model.layers {
                    for baseline in [None, Some(RANDOM.to_string())] {
                        for &distance in &plan.distances {
                            let (digest, id) = (model.model_digest.clone(), pair.id.clone());
                            match self
                                .regions
                                .remove(&(digest, id, layer, baseline.clone(), word(distance)))
                            {
                                Some(row) => rows.push(row),
                                None if baseline.is_some() => {}
                                None => {
                                    return Err(Error::input("--merge", format!("pair {} is in no shard", pair.id))
                                        .hint("shards written with --summary cannot be merged"));
                                }
                            }
                        }
                    }
                }
            }
            by_model.push(rows);
        }
        match self.regions.into_keys().next() {
            Some((_, id, ..)) => Err(Error::input("--merge", format!("pair {id} is not in the plan"))),
            None => Ok(Found {
                by_model,
                slices: self.slices,
                is_partial: self.is_partial,
            }),
        }
    }
}

fn key(region: &Region) -> Key {
    (
        region.model_digest.clone(),
        region.id.clone(),
        region.layer_index,
        region.baseline.clone(),
        region.distance.clone(),
    )
}

//! --merge: the records of all shards of one plan, verified to cover it exactly once and put into the order of one run.

use crate::plan::Plan;
use crate::report::{Baseline, Region, Slice};
use crate::summary::word;
use process::{Error, Result, ResultExt, Shard};
use records::{Reader, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

pub struct Merged {
    /// The rows of each model, in the order of the models.
    pub by_model: Vec<Vec<Region>>,
    pub slices: Vec<Slice>,
    pub partial: bool,
}

type Key = (String, String, usize, Option<Baseline>, &'static str);

pub fn read(plan: &Plan, files: &[PathBuf]) -> Result<Merged> {
    let digests: BTreeSet<&str> = plan.models.iter().map(|model| model.model_digest.as_str()).collect();
    if digests.len() < plan.models.len() {
        return Err(Error::usage(
            "--merge",
            "one model stands twice in --model; its records cannot be told apart",
        ));
    }
    let digest = plan.digest()?;
    let mut regions: BTreeMap<Key, Region> = BTreeMap::new();
    let mut slices = Vec::new();
    let mut partial = false;
    let mut shards: Vec<Shard> = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let mut reader = Reader::new(File::open(path).at(&name)?)
            .strict(true)
            .accept_partial(plan.keep_going);
        while let Some(row) = reader.next_row().at(&name)? {
            process::signals::check()?;
            if row.kind.as_deref() == Some("slice") {
                slices.push(row.decode::<Slice>().at(&name)?);
            }
            if row.kind.as_deref() != Some("region") {
                continue;
            }
            let region: Region = row.decode().at(&name)?;
            let id = region.id.clone();
            let key = (
                region.model_digest.clone(),
                id.clone(),
                region.layer_index,
                region.baseline,
                word(region.distance),
            );
            if regions.insert(key, region).is_some() {
                return Err(Error::input(&name, row.refuse(format!("pair {id} is in two shards"))));
            }
        }
        partial |= reader.status() == Status::Partial;
        let begin = reader
            .begin()
            .ok_or_else(|| Error::input(&name, "not a stream of ours: it has no begin record"))?;
        if begin.plan_digest.as_deref() != Some(&digest) {
            return Err(
                Error::conflict(&name, "belongs to another plan").hint("give --merge the arguments of the shards")
            );
        }
        let shard = begin.rest.get("shard").and_then(|shard| shard.as_str());
        let shard = shard.and_then(|text| Shard::parse(text).ok());
        shards.push(shard.ok_or_else(|| Error::input(&name, "its begin record names no shard"))?);
    }
    let count = shards.first().map_or(0, |shard| shard.count);
    let present: BTreeSet<u32> = shards.iter().map(|shard| shard.index).collect();
    if shards.iter().any(|shard| shard.count != count) || present.len() != shards.len() {
        return Err(Error::input(
            "--merge",
            "these are not the shards of one division, each once",
        ));
    }
    if let Some(missing) = (0..count).find(|index| !present.contains(index)) {
        return Err(Error::input("--merge", format!("shard {missing}/{count} is missing")));
    }

    let mut by_model = Vec::new();
    for model in &plan.models {
        let mut rows = Vec::new();
        for pair in &plan.pairs {
            for &layer in &model.layers {
                for baseline in [None, Some(Baseline::Random)] {
                    for &distance in &plan.distances {
                        let key = (
                            model.model_digest.clone(),
                            pair.id.clone(),
                            layer,
                            baseline,
                            word(distance),
                        );
                        match regions.remove(&key) {
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
    match regions.into_keys().next() {
        Some((_, id, ..)) => Err(Error::input("--merge", format!("pair {id} is not in the plan"))),
        None => Ok(Merged {
            by_model,
            slices,
            partial,
        }),
    }
}

//! What is known of one shard, as records: written where the shard lies, read and merged where all of them meet.

use crate::measure::{Measured, SampleMaxima, Tally};
use crate::plan::measure::Plan;
use crate::subject::{Named, Places, Subject, Token};
use process::{Error, Result, ResultExt};
use records::{Begin, Record, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Prompts in one record of their largest magnitudes.
const MAXIMA_MAX: usize = 1 << 16;

/// What the first record says: which shard of what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    pub shard: acts::Shard,
    pub plan: Plan,
    pub components: Vec<Named>,
    /// Of this shard's prompts; empty without `--group`.
    pub groups: Vec<String>,
}

/// A component of one group, or of everything where there are no groups.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "act_part")]
struct ActPart<T> {
    tensor: String,
    group: String,
    tally: T,
    /// By row: the tokens of the largest magnitudes.
    tokens: Vec<(u64, Token)>,
}

impl Record for ActPart<Tally> {
    const TYPE: &'static str = "act_part";
}

/// The largest magnitudes of prompts: sample, number of its group, magnitude.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "sample_maxima")]
struct Maxima {
    tensor: String,
    maxima: SampleMaxima,
}

impl Record for Maxima {
    const TYPE: &'static str = "sample_maxima";
}

/// Writes a shard.
pub fn write(
    output: impl Write,
    shard: acts::Shard,
    plan: &Plan,
    subject: &Subject,
    measured: &[Measured],
) -> Result<()> {
    let mut writer = records::Writer::new(output);
    let begin = Begin::new(&plan.tool, &plan.version).plan_digest(process::plan::digest(plan)?);
    let head = Head {
        shard,
        plan: plan.clone(),
        components: subject.components.clone(),
        groups: subject.groups.clone(),
    };
    writer.begin(&begin, &head).at("stdout")?;
    for (component, measured) in subject.components.iter().zip(measured) {
        let tensor = || component.tensor.clone();
        for (group, tally) in measured.divided(&subject.groups) {
            let top = tally.activity.top.iter().map(|one| one.place);
            let row = ActPart {
                tensor: tensor(),
                group: group.to_owned(),
                tokens: top.map(|place| (place.row, subject.places.token(place))).collect(),
                tally,
            };
            writer.row(&row).at("stdout")?;
        }
        for maxima in measured.samples.chunks(MAXIMA_MAX) {
            let (tensor, maxima) = (tensor(), maxima.to_vec());
            writer.row(&Maxima { tensor, maxima }).at("stdout")?;
        }
    }
    let mut output = writer.end(Status::Complete, &()).at("stdout")?;
    output.flush().at("stdout")
}

/// Shards, put together one after the other.
pub struct Merge {
    head: Head,
    /// Where each shard was read.
    seen: BTreeMap<u32, String>,
    /// By component: tallies by the group's name.
    tallies: Vec<BTreeMap<String, Tally>>,
    /// By component: sample, the group's name, magnitude.
    samples: Vec<Vec<(u64, String, f64)>>,
    places: Places,
}

impl Merge {
    /// Reads all; they must be every shard of one run.
    pub fn of(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut merge: Option<Merge> = None;
        for path in paths {
            let name = path.as_ref().display().to_string();
            let mut reader = records::Reader::new(process::open_input(path.as_ref())?);
            let mut row = reader.next_row().at(&name)?;
            let head = head(reader.begin(), &name)?;
            let merge = merge.get_or_insert_with(|| Merge::new(head.clone()));
            merge.admit(&head, &name)?;
            while let Some(found) = row {
                process::signals::check()?;
                merge.take(&head, &found).at(&name)?;
                row = reader.next_row().at(&name)?;
            }
        }
        let merge = merge.ok_or_else(|| Error::usage("PART", "none is named"))?;
        merge.check_count()?;
        Ok(merge)
    }

    fn new(head: Head) -> Self {
        Self {
            seen: BTreeMap::new(),
            tallies: head.components.iter().map(|_| BTreeMap::new()).collect(),
            samples: head.components.iter().map(|_| Vec::new()).collect(),
            places: Places::default(),
            head: Head {
                groups: Vec::new(),
                ..head
            },
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.head.plan
    }

    /// Refuses another run, other flags, and a shard that is there already.
    fn admit(&mut self, head: &Head, name: &str) -> Result<()> {
        let refuse = |cause: String| Err(Error::input(name, cause));
        if head.plan.version != process::VERSION {
            return refuse(format!(
                "was written by version {}, this is {}",
                head.plan.version,
                process::VERSION
            ));
        }
        if head.plan != self.head.plan || head.components != self.head.components {
            return refuse("is of another run, or was measured with other flags, than the first".into());
        }
        if head.shard.count != self.head.shard.count || head.shard.index >= head.shard.count {
            return refuse(format!(
                "is shard {} of {}, the first is one of {}",
                head.shard.index, head.shard.count, self.head.shard.count
            ));
        }
        if let Some(other) = self.seen.insert(head.shard.index, name.to_owned()) {
            return refuse(format!("is shard {}, as {other} is", head.shard.index));
        }
        self.head.groups.extend(head.groups.iter().cloned());
        Ok(())
    }

    fn check_count(&self) -> Result<()> {
        let count = self.head.shard.count;
        let missing: Vec<String> = (0..count)
            .filter(|index| !self.seen.contains_key(index))
            .take(8)
            .map(|index| index.to_string())
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => {
                let cause = format!(
                    "{} of {count} shards were given; there is no {}",
                    self.seen.len(),
                    missing.join(", ")
                );
                Err(Error::input("PART", cause))
            }
        }
    }

    fn take(&mut self, head: &Head, row: &records::Row) -> records::Result<()> {
        if row.is::<ActPart<Tally>>() {
            let found: ActPart<Tally> = row.decode()?;
            return self.take_tally(head, found).map_err(|cause| row.refuse(cause));
        }
        if row.is::<Maxima>() {
            let found: Maxima = row.decode()?;
            return self.take_maxima(head, found).map_err(|cause| row.refuse(cause));
        }
        Ok(())
    }

    fn component(&self, tensor: &str) -> std::result::Result<usize, String> {
        let found = self.head.components.iter().position(|one| one.tensor == tensor);
        found.ok_or_else(|| format!("there is no component {tensor:?}"))
    }

    fn take_tally(&mut self, head: &Head, mut found: ActPart<Tally>) -> std::result::Result<(), String> {
        let component = self.component(&found.tensor)?;
        let scales = self.head.plan.scales.len();
        if !found.tally.activity.is_sound() || ![0, scales].contains(&found.tally.losses.len()) {
            return Err("the parts of the tally do not belong together".into());
        }
        let is_group = match self.head.plan.group {
            None => found.group.is_empty(),
            Some(_) => head.groups.contains(&found.group),
        };
        if !is_group {
            return Err(format!("there is no group {:?}", found.group));
        }
        found
            .tally
            .activity
            .top
            .iter_mut()
            .for_each(|one| one.place.source = head.shard.index);
        for (row, token) in found.tokens {
            self.places.insert(head.shard.index, row, token);
        }
        match self.tallies[component].get_mut(&found.group) {
            Some(there) => there.merge(&found.tally),
            None => {
                self.tallies[component].insert(found.group, found.tally);
            }
        }
        Ok(())
    }

    fn take_maxima(&mut self, head: &Head, found: Maxima) -> std::result::Result<(), String> {
        let component = self.component(&found.tensor)?;
        for (sample, group, magnitude) in found.maxima {
            let name = match (&self.head.plan.group, head.groups.get(group)) {
                (None, _) => String::new(),
                (Some(_), Some(name)) => name.clone(),
                (Some(_), None) => return Err(format!("there is no group {group}")),
            };
            self.samples[component].push((sample, name, magnitude));
        }
        Ok(())
    }

    /// What one call with all containers would have found.
    pub fn finish(self) -> Result<(Plan, Subject, Vec<Measured>)> {
        let mut groups = self.head.groups;
        groups.sort();
        groups.dedup();
        crate::source::check_group_count(&groups, "PART")?;
        let plan = self.head.plan;
        let mut measured = Vec::new();
        for ((named, tallies), samples) in self.head.components.iter().zip(self.tallies).zip(self.samples) {
            if tallies.is_empty() {
                return Err(Error::input("PART", format!("{} has no rows", named.tensor)));
            }
            let number = |name: &String| groups.partition_point(|group| group < name);
            let samples = samples
                .into_iter()
                .map(|(sample, name, magnitude)| (sample, number(&name), magnitude));
            let found = Measured::of_parts(&plan, &groups, tallies, samples.collect());
            measured.push(found.ok_or_else(|| {
                let cause = format!(
                    "of {}, which is not of bf16, no losses of --int8 were written",
                    named.tensor
                );
                Error::input("PART", cause)
            })?);
        }
        let subject = Subject {
            components: self.head.components,
            groups,
            places: self.places,
        };
        Ok((plan, subject, measured))
    }
}

/// What the first record of a part says.
fn head(begin: Option<&Begin>, name: &str) -> Result<Head> {
    let refuse = |cause: String| Error::input(name, cause).hint("act-stats --part writes what is merged");
    let begin = begin.ok_or_else(|| refuse("has no first record".into()))?;
    let mut head: Head = serde_json::from_value(Value::Object(begin.rest.clone()))
        .map_err(|cause| refuse(format!("is no part of a run: {cause}")))?;
    head.plan.read_scales().map_err(refuse)?;
    Ok(head)
}

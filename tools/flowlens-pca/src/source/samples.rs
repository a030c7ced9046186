//! Whose rows they are: the sample records of a dump, and the groups they give.

use super::{Content, Part, Prompts, Run, Source};
use crate::cli::Args;
use process::{Error, Result, ResultExt};
use records::Sample;

/// Groups beyond this are a mistake: a field with one value per prompt.
const GROUP_COUNT_MAX: usize = 64;

impl Source {
    pub(super) fn read_rows_table(&mut self, args: &Args) -> Result<()> {
        let with_samples = self
            .parts
            .iter()
            .filter(|part| part.file.tensor("samples").is_ok())
            .count();
        if with_samples == 0 {
            if let Some(field) = &args.group {
                return Err(Error::input(
                    self.name(),
                    format!("has no sample records, so no field \"{field}\" to group by"),
                )
                .hint("dump with resid-dump, which keeps them"));
            }
            let mut runs = Vec::new();
            for (at, part) in self.parts.iter().enumerate() {
                let row_count = self
                    .layers
                    .first()
                    .map_or(0, |layer| part.file.row_count(layer.tensors[at]));
                runs.push(Run {
                    part: at as u32,
                    first_row: 0,
                    row_count,
                    prompt: 0,
                });
            }
            self.check_row_counts()?;
            if self.drop_bos {
                return Err(Error::input(
                    self.name(),
                    "has no positions, so no first row of a prompt to drop",
                ));
            }
            self.content = Content::Rows { runs, prompts: None };
            return Ok(());
        }
        if with_samples < self.parts.len() {
            return Err(Error::input(
                self.name(),
                "some containers have sample records and some have none",
            ));
        }
        self.check_row_counts()?;
        let mut samples: Vec<(u32, Sample)> = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            for sample in read_samples(part)? {
                samples.push((at as u32, sample));
            }
        }
        samples.sort_by_key(|(_, sample)| sample.sample_index);
        if let Some(pair) = samples
            .windows(2)
            .find(|pair| pair[0].1.sample_index == pair[1].1.sample_index)
        {
            return Err(Error::input(
                &self.parts[pair[1].0 as usize].name,
                format!(
                    "sample {} is also in {}",
                    pair[1].1.sample_index, self.parts[pair[0].0 as usize].name
                ),
            ));
        }
        let mut groups: Vec<String> = Vec::new();
        let mut prompts = Prompts {
            ids: Vec::new(),
            keys: Vec::new(),
            text_digests: Vec::new(),
            groups: Vec::new(),
        };
        let mut runs = Vec::new();
        for (part, sample) in samples {
            let part_name = &self.parts[part as usize].name;
            let group = match &args.group {
                Some(field) => field_of(&sample, field).ok_or_else(|| {
                    Error::input(
                        part_name,
                        format!("sample {} has no field \"{field}\"", sample.sample_index),
                    )
                })?,
                None => String::new(),
            };
            let group_index = match groups.iter().position(|known| *known == group) {
                Some(index) => index,
                None => {
                    groups.push(group);
                    groups.len() - 1
                }
            };
            if groups.len() > GROUP_COUNT_MAX {
                return Err(Error::input(
                    part_name,
                    format!(
                        "--group gives more than {GROUP_COUNT_MAX} groups: the field differs from prompt to prompt"
                    ),
                ));
            }
            let prompt = prompts.ids.len() as u32;
            let total = self.layers.first().map_or(0, |layer| {
                self.parts[part as usize].file.row_count(layer.tensors[part as usize])
            });
            if sample
                .row_start
                .checked_add(sample.row_count)
                .is_none_or(|end| end > total)
            {
                return Err(Error::input(
                    part_name,
                    format!(
                        "sample {} claims rows beyond the {total} there are",
                        sample.sample_index
                    ),
                ));
            }
            runs.push(Run {
                part,
                first_row: sample.row_start,
                row_count: sample.row_count,
                prompt,
            });
            prompts.keys.push(format!(
                "{}\u{0}{}",
                sample.bench.as_deref().unwrap_or_default(),
                sample.id
            ));
            prompts.ids.push(sample.id);
            prompts
                .text_digests
                .push((!sample.text_digest.is_empty()).then_some(sample.text_digest));
            prompts.groups.push(group_index as u32);
        }
        if let Some(field) = &args.group {
            if groups.iter().all(String::is_empty) {
                return Err(Error::input(
                    self.name(),
                    format!("no sample has anything under \"{field}\" to group by"),
                )
                .hint("resid-dump --group FIELD takes a prompt's group from FIELD"));
            }
            // Groups are told apart by name, so their order does not depend on which prompt came first.
            let mut order: Vec<usize> = (0..groups.len()).collect();
            order.sort_by(|a, b| groups[*a].cmp(&groups[*b]));
            let mut rank = vec![0; groups.len()];
            for (at, index) in order.iter().enumerate() {
                rank[*index] = at as u32;
            }
            for group in &mut prompts.groups {
                *group = rank[*group as usize];
            }
            self.groups = order.into_iter().map(|index| groups[index].clone()).collect();
        }
        if self.drop_bos {
            runs = self.without_first_positions(runs)?;
        }
        self.content = Content::Rows {
            runs,
            prompts: Some(prompts),
        };
        Ok(())
    }

    fn check_row_counts(&self) -> Result<()> {
        for (at, part) in self.parts.iter().enumerate() {
            let mut counts = self.layers.iter().map(|layer| part.file.row_count(layer.tensors[at]));
            let first = counts.next().unwrap_or(0);
            if let Some(other) = counts.find(|count| *count != first) {
                return Err(Error::input(
                    &part.name,
                    format!("layers have {first} and {other} rows: they must have the same"),
                ));
            }
        }
        Ok(())
    }

    /// Leaves out rows at position 0, where the token that begins every text sits.
    fn without_first_positions(&self, runs: Vec<Run>) -> Result<Vec<Run>> {
        let positions =
            self.parts
                .iter()
                .map(|part| {
                    let table = part.file.tensor("position").map_err(|_| {
                        Error::input(&part.name, "has no positions, so no first row of a prompt to drop")
                    })?;
                    part.file
                        .to_vec::<u32>(table, 0..part.file.row_count(table))
                        .at(&part.name)
                })
                .collect::<Result<Vec<Vec<u32>>>>()?;
        let mut bad: Vec<(u32, u64)> = Vec::new();
        for run in &runs {
            for row in run.first_row..run.first_row + run.row_count {
                if positions[run.part as usize].get(row as usize) == Some(&0) {
                    bad.push((run.part, row));
                }
            }
        }
        bad.sort_unstable();
        let mut without = Self {
            content: Content::Rows { runs, prompts: None },
            parts: Vec::new(),
            site: String::new(),
            layers: Vec::new(),
            layer_count: 0,
            groups: Vec::new(),
            drop_bos: false,
        };
        without.drop_rows(&bad);
        Ok(without.runs().to_vec())
    }
}

fn read_samples(part: &Part) -> Result<Vec<Sample>> {
    let tensor = part.file.tensor("samples").at(&part.name)?;
    let bytes = part
        .file
        .to_bytes(tensor, 0..part.file.row_count(tensor))
        .at(&part.name)?;
    let mut samples = Vec::new();
    if bytes.is_empty() {
        return Ok(samples);
    }
    let mut reader = records::Reader::new(bytes.as_slice());
    while let Some(sample) = reader.next_record::<Sample>().at(format!("{}: samples", part.name))? {
        samples.push(sample);
    }
    Ok(samples)
}

/// A field of a sample record as text.
fn field_of(sample: &Sample, field: &str) -> Option<String> {
    match field {
        "group" => Some(sample.group.clone()),
        "id" => Some(sample.id.clone()),
        "bench" => sample.bench.clone(),
        other => match sample.rest.get(other)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            value => Some(value.to_string()),
        },
    }
}

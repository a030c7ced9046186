//! Whose rows they are: the sample records of a dump, and the groups they give.

use super::{Content, Part, Prompts, Run, Source, without_rows};
use crate::cli::Args;
use process::{Error, Result, ResultExt};
use records::Sample;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

/// Groups beyond this are a mistake: a field with one value per prompt.
const GROUP_COUNT_MAX: usize = 64;

/// BOUND: rows of a table that are held at once.
const TABLE_ROWS_AT_ONCE: usize = 1 << 20;

impl Source {
    pub(super) fn read_rows_table(&mut self, args: &Args) -> Result<()> {
        self.check_row_counts()?;
        let has_samples = |part: &&Part| part.file.tensor("samples").is_ok();
        let with_samples = self.parts.iter().filter(has_samples).count();
        if with_samples == 0 {
            self.content = self.plain_rows(args)?;
        } else if with_samples == self.parts.len() {
            self.content = self.sampled_rows(args)?;
        } else {
            return Err(Error::input(
                self.name(),
                "some containers have sample records and some have none",
            ));
        }
        Ok(())
    }

    /// Containers without sample records: every row is a prompt of its own.
    fn plain_rows(&self, args: &Args) -> Result<Content> {
        if let Some(field) = &args.group {
            return Err(Error::input(
                self.name(),
                format!("has no sample records, so no field \"{field}\" to group by"),
            )
            .hint("dump with resid-dump, which keeps them"));
        }
        if self.drop_bos {
            return Err(Error::input(
                self.name(),
                "has no positions, so no first row of a prompt to drop",
            ));
        }
        let runs = (0..self.parts.len()).map(|part| Run {
            part: part as u32,
            first_row: 0,
            row_count: self.part_row_count(part),
            prompt: 0,
        });
        Ok(Content::Rows {
            runs: runs.collect(),
            prompts: None,
        })
    }

    fn sampled_rows(&mut self, args: &Args) -> Result<Content> {
        let samples = self.samples()?;
        let mut runs = (0..)
            .zip(&samples)
            .map(|(prompt, (part, sample))| self.run(*part, sample, prompt))
            .collect::<Result<Vec<Run>>>()?;
        self.check_cover(&runs, &samples)?;
        let mut prompt_groups = vec![0; samples.len()];
        if let Some(field) = &args.group {
            (self.groups, prompt_groups) = self.divide(&samples, field)?;
        }
        if self.drop_bos {
            runs = self.without_first_positions(&runs)?;
        }
        let mut prompts = Prompts {
            ids: Vec::new(),
            keys: Vec::new(),
            text_digests: Vec::new(),
            groups: prompt_groups,
        };
        for (_, sample) in samples {
            let bench = sample.bench.as_deref().unwrap_or_default();
            prompts.keys.push(format!("{bench}\u{0}{}", sample.id));
            prompts.ids.push(sample.id);
            prompts
                .text_digests
                .push((!sample.text_digest.is_empty()).then_some(sample.text_digest));
        }
        Ok(Content::Rows {
            runs,
            prompts: Some(prompts),
        })
    }

    /// The sample records of all parts, each with its part, by sample index.
    fn samples(&self) -> Result<Vec<(u32, Sample)>> {
        let mut samples = Vec::new();
        for (at, part) in (0..).zip(&self.parts) {
            samples.extend(read_samples(part)?.into_iter().map(|sample| (at, sample)));
        }
        samples.sort_by_key(|(_, sample)| sample.sample_index);
        for pair in samples.windows(2) {
            let [(part, one), (other_part, other)] = pair else {
                continue;
            };
            if one.sample_index == other.sample_index {
                return Err(Error::input(
                    &self.parts[*other_part as usize].name,
                    format!(
                        "sample {} is also in {}",
                        other.sample_index, self.parts[*part as usize].name
                    ),
                ));
            }
        }
        Ok(samples)
    }

    /// Where a sample's rows lie.
    fn run(&self, part: u32, sample: &Sample, prompt: u32) -> Result<Run> {
        let total = self.part_row_count(part as usize);
        let end = sample.row_start.checked_add(sample.row_count);
        if end.is_none_or(|end| end > total) {
            return Err(Error::input(
                &self.parts[part as usize].name,
                format!(
                    "sample {} claims rows beyond the {total} there are",
                    sample.sample_index
                ),
            ));
        }
        Ok(Run {
            part,
            first_row: sample.row_start,
            row_count: sample.row_count,
            prompt,
        })
    }

    /// Every row belongs to one sample, and the table of rows says to the same one: otherwise one of the two is damaged.
    fn check_cover(&self, runs: &[Run], samples: &[(u32, Sample)]) -> Result<()> {
        for (at, part) in (0..).zip(&self.parts) {
            let own = runs.iter().filter(|run| run.part == at && run.row_count > 0);
            let mut own: Vec<&Run> = own.collect();
            own.sort_by_key(|run| run.first_row);
            let claims = |row: u64, by: &str| {
                Err(Error::input(
                    &part.name,
                    format!("row {row} is claimed by {by} of the samples"),
                ))
            };
            let mut end = 0;
            for run in &own {
                match run.first_row.cmp(&end) {
                    Ordering::Less => return claims(run.first_row, "two"),
                    Ordering::Greater => return claims(end, "none"),
                    Ordering::Equal => end += run.row_count,
                }
            }
            if end < self.part_row_count(at as usize) {
                return claims(end, "none");
            }
            let of_run =
                |run: &&Run| std::iter::repeat_n(samples[run.prompt as usize].1.sample_index, run.row_count as usize);
            check_sample_index(part, own.iter().flat_map(of_run))?;
        }
        Ok(())
    }

    /// The groups that a field gives, by name, so that their order does not depend on which prompt came first; and each sample's group.
    fn divide(&self, samples: &[(u32, Sample)], field: &str) -> Result<(Vec<String>, Vec<u32>)> {
        let mut values = Vec::with_capacity(samples.len());
        for (part, sample) in samples {
            let value = sample.field(field).ok_or_else(|| {
                Error::input(
                    &self.parts[*part as usize].name,
                    format!("sample {} has no field \"{field}\"", sample.sample_index),
                )
            })?;
            values.push(value);
        }
        let names: BTreeSet<&String> = values.iter().collect();
        if names.len() > GROUP_COUNT_MAX {
            return Err(Error::input(
                self.name(),
                format!("--group gives more than {GROUP_COUNT_MAX} groups: the field differs from prompt to prompt"),
            ));
        }
        if names.iter().all(|name| name.is_empty()) {
            return Err(Error::input(
                self.name(),
                format!("no sample has anything under \"{field}\" to group by"),
            )
            .hint("resid-dump --group FIELD takes a prompt's group from FIELD"));
        }
        let names: Vec<String> = names.into_iter().cloned().collect();
        let places: HashMap<&String, u32> = names.iter().zip(0..).collect();
        let groups = values.iter().map(|value| places[value]).collect();
        Ok((names, groups))
    }

    /// Rows of a part, the same in all its layers.
    fn part_row_count(&self, part: usize) -> u64 {
        let first = self.layers.first();
        first.map_or(0, |layer| self.parts[part].file.row_count(layer.tensors[part]))
    }

    fn check_row_counts(&self) -> Result<()> {
        for (at, part) in self.parts.iter().enumerate() {
            let first = self.part_row_count(at);
            let mut counts = self.layers.iter().map(|layer| part.file.row_count(layer.tensors[at]));
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
    fn without_first_positions(&self, runs: &[Run]) -> Result<Vec<Run>> {
        let mut bad: Vec<(u32, u64)> = Vec::new();
        for (at, part) in (0..).zip(&self.parts) {
            let table = part
                .file
                .tensor("position")
                .map_err(|_| Error::input(&part.name, "has no positions, so no first row of a prompt to drop"))?;
            let rows = 0..part.file.row_count(table);
            let positions = part.file.to_vec::<u32>(table, rows.clone()).at(&part.name)?;
            let first = rows.zip(positions).filter(|(_, position)| *position == 0);
            bad.extend(first.map(|(row, _)| (at, row)));
        }
        Ok(without_rows(runs, &bad))
    }
}

/// Compares the row table `sample_index`, where there is one, with the samples of the rows in order.
fn check_sample_index(part: &Part, mut samples: impl Iterator<Item = u64>) -> Result<()> {
    let Ok(table) = part.file.tensor("sample_index") else {
        return Ok(());
    };
    let row_count = part.file.row_count(table);
    for start in (0..row_count).step_by(TABLE_ROWS_AT_ONCE) {
        let rows = start..row_count.min(start + TABLE_ROWS_AT_ONCE as u64);
        let table = part.file.to_vec::<u32>(table, rows).at(&part.name)?;
        for (row, found) in (start..).zip(table) {
            if samples.next() != Some(u64::from(found)) {
                return Err(Error::input(
                    &part.name,
                    format!("row {row} is of sample {found} by sample_index, and of another by the sample records"),
                ));
            }
        }
    }
    match samples.next() {
        Some(_) => Err(Error::input(
            &part.name,
            format!("sample_index ends at row {row_count}, and the samples go on"),
        )),
        None => Ok(()),
    }
}

fn read_samples(part: &Part) -> Result<Vec<Sample>> {
    let tensor = part.file.tensor("samples").at(&part.name)?;
    let bytes = part
        .file
        .to_bytes(tensor, 0..part.file.row_count(tensor))
        .at(&part.name)?;
    records::table_rows(&bytes).at(format!("{}: samples", part.name))
}

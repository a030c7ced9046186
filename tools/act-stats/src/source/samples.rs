//! Whose rows they are: the sample records of a dump, and the groups they give.

use super::{Part, Run};
use process::{Error, Result, ResultExt};
use records::Sample;
use std::collections::{BTreeSet, HashSet};

/// Groups beyond this are a mistake: a field with one value per prompt.
const GROUP_COUNT_MAX: usize = 64;

/// Reads the prompts of every part, and gives the names of the groups.
pub(super) fn read(parts: &mut [Part], field: Option<&str>) -> Result<Vec<String>> {
    let with_samples = parts.iter().filter(|part| part.file.tensor("samples").is_ok()).count();
    if with_samples != 0 && with_samples != parts.len() {
        return Err(Error::input(
            &parts[0].name,
            "some containers have sample records and some have none",
        ));
    }
    if with_samples == 0 {
        return match field {
            None => Ok(Vec::new()),
            Some(field) => Err(Error::input(
                &parts[0].name,
                format!("has no sample records, so no field \"{field}\" to group by"),
            )
            .hint("dump with resid-dump, which keeps them")),
        };
    }
    let mut values = Vec::new();
    let mut seen = HashSet::new();
    for part in parts.iter_mut() {
        let mut runs = Vec::new();
        let mut next_row = 0;
        for sample in samples(part)? {
            runs.push(run(part, &sample, next_row)?);
            next_row = sample.row_start + sample.row_count;
            if !seen.insert(sample.sample_index) {
                let cause = format!("sample {} is there twice", sample.sample_index);
                return Err(Error::input(&part.name, cause));
            }
            if let Some(field) = field {
                values.push(sample.field(field).ok_or_else(|| {
                    let cause = format!("sample {} has no field \"{field}\"", sample.sample_index);
                    Error::input(&part.name, cause)
                })?);
            }
        }
        part.runs = runs;
    }
    divide(parts, values)
}

/// The sample records of a part, as their rows lie.
fn samples(part: &Part) -> Result<Vec<Sample>> {
    let tensor = part.file.tensor("samples").at(&part.name)?;
    let bytes = part
        .file
        .to_bytes(tensor, 0..part.file.row_count(tensor))
        .at(&part.name)?;
    let mut samples: Vec<Sample> = records::table_rows(&bytes).at(format!("{}: samples", part.name))?;
    samples.sort_by_key(|sample| sample.row_start);
    Ok(samples)
}

fn run(part: &Part, sample: &Sample, next_row: u64) -> Result<Run> {
    let end = sample.row_start.checked_add(sample.row_count);
    if sample.row_start != next_row || end.is_none() {
        return Err(Error::input(
            &part.name,
            format!("row {next_row} is not claimed by exactly one of the samples"),
        ));
    }
    Ok(Run {
        first_row: sample.row_start,
        row_count: sample.row_count,
        sample: sample.sample_index,
        group: 0,
    })
}

pub fn check_group_count(names: &[String], subject: &str) -> Result<()> {
    match names.len() > GROUP_COUNT_MAX {
        false => Ok(()),
        true => Err(Error::input(
            subject,
            format!("--group gives more than {GROUP_COUNT_MAX} groups: the field differs from prompt to prompt"),
        )),
    }
}

/// Gives every prompt its group. Groups stand by name, so that their order does not depend on which prompt came first.
fn divide(parts: &mut [Part], values: Vec<String>) -> Result<Vec<String>> {
    let names: BTreeSet<&String> = values.iter().collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    check_group_count(&names, &parts[0].name)?;
    let runs = parts.iter_mut().flat_map(|part| &mut part.runs);
    for (run, value) in runs.zip(&values) {
        run.group = names.partition_point(|name| name < value);
    }
    Ok(names)
}

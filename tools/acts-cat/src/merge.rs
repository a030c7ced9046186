//! The shards of one run, put together as if it had never been divided: activations and samples in the order of the input, moments
//! combined on the fixed tree over hash buckets. A run that pushed sample by sample, tensor by tensor, gives the same bytes in one piece.

use crate::plan::Plan;
use crate::rows::samples;
use crate::source::Source;
use acts::{Header, MomentsKey, MomentsParts, Role, Summary, Writer, first_difference};
use numerics::moments::{BUCKET_COUNT, BucketTree, Moments};
use process::{Error, Output, Result, ResultExt};
use records::Sample;
use std::collections::HashMap;
use std::rc::Rc;

pub struct Merge {
    /// In shard order.
    shards: Vec<Source>,
    header: Header,
    /// Samples of the whole run in its order, each with its shard.
    samples: Vec<(usize, Sample)>,
    samples_tensor: Option<usize>,
}

impl Merge {
    /// Opens the shards and checks that they are all of one run and of one configuration.
    pub fn new(plan: &Plan) -> Result<Merge> {
        let opened = plan
            .inputs
            .iter()
            .map(|path| Source::open(path, plan.open))
            .collect::<Result<Vec<_>>>()?;
        let shards = in_shard_order(opened)?;
        let first = &shards[0];
        let samples_tensor = first
            .file
            .header()
            .tensors
            .iter()
            .position(|spec| spec.role == Role::Samples);
        for shard in &shards[1..] {
            let reference = comparable(first.file.header(), plan.allow_mixed_compute);
            let found = comparable(shard.file.header(), plan.allow_mixed_compute);
            if reference != found {
                return Err(Error::input(
                    &shard.name,
                    format!("{} differs from {}", first_difference(&found, &reference), first.name),
                ));
            }
        }
        let mut header = comparable(first.file.header(), false);
        header.shard = None;
        header.file_id = acts::file_id(header.plan_digest.as_deref().unwrap_or_default(), None);
        let rows_declared = first.file.header().tensors.iter().map(|spec| spec.row_count.is_some());
        for (tensor, declared) in rows_declared.enumerate() {
            let total = shards.iter().map(|shard| shard.file.row_count(tensor)).sum();
            let spec = &mut header.tensors[tensor];
            let is_summed = spec.role != Role::Moments;
            spec.row_count = declared.then_some(if is_summed { total } else { first.file.row_count(tensor) });
        }
        let samples = match samples_tensor {
            Some(tensor) => one_order(&shards, tensor, &header)?,
            None => Vec::new(),
        };
        if let Some(spec) = header.tensors.iter().find(|spec| {
            !matches!(
                spec.role,
                Role::Moments | Role::Activations | Role::RowTable | Role::Samples
            )
        }) {
            return Err(Error::input(
                &shards[0].name,
                format!("{} is no part of a dump: nothing says how its rows merge", spec.name),
            ));
        }
        let per_row = header
            .tensors
            .iter()
            .any(|spec| matches!(spec.role, Role::Activations | Role::RowTable));
        if per_row && samples_tensor.is_none() {
            return Err(Error::input(
                &shards[0].name,
                "without sample records nothing says how its rows merge",
            ));
        }
        Ok(Merge {
            shards,
            header,
            samples,
            samples_tensor,
        })
    }

    pub fn write(mut self, plan: &Plan, out: Output, name: &str) -> Result<(Output, Summary)> {
        // The length of the sample records changes with their row numbers: what the shards declared does not hold for the whole.
        let texts = self.sample_lines()?;
        if let Some(tensor) = self.samples_tensor
            && let Some(declared) = &mut self.header.tensors[tensor].row_count
        {
            *declared = texts.iter().map(|line| line.len() as u64).sum();
        }
        let mut writer = Writer::new(out, self.header.clone(), plan.threads).at(name)?;
        let mut cache = Cache::new(plan.cache_bytes_max);
        for ((shard, sample), text) in self.samples.iter().zip(&texts) {
            process::signals::check()?;
            for (tensor, spec) in self.header.tensors.iter().enumerate() {
                match spec.role {
                    Role::Samples => writer.push(tensor, text).at(name)?,
                    Role::Activations | Role::RowTable => {
                        let source = &self.shards[*shard];
                        cache.rows(
                            source,
                            *shard,
                            tensor,
                            sample.row_start..sample.row_start + sample.row_count,
                            |bytes| writer.push(tensor, bytes).at(name),
                        )?;
                    }
                    _ => {}
                }
            }
        }
        for (key, first) in MomentsKey::all(&self.header) {
            process::signals::check()?;
            self.moments(key, first)?.push(&mut writer, first).at(name)?;
        }
        writer.finish().at(name)
    }

    /// The sample records as the whole run has them: only the row numbers change.
    fn sample_lines(&self) -> Result<Vec<Vec<u8>>> {
        let mut row = 0;
        let lines = self.samples.iter().map(|(_, sample)| {
            let sample = Sample {
                row_start: row,
                ..sample.clone()
            };
            row += sample.row_count;
            let mut writer = records::Writer::new(Vec::new());
            writer.row(&sample).at("samples")?;
            writer.into_output().at("samples")
        });
        lines.collect()
    }

    /// One accumulation over all shards, on the fixed tree.
    fn moments(&self, key: MomentsKey, first: usize) -> Result<MomentsParts> {
        let mut tree: Option<BucketTree> = None;
        for (index, shard) in self.shards.iter().enumerate() {
            let what = format!("{} {}", shard.name, key.name());
            let MomentsParts {
                count,
                mean,
                m2,
                norm_sum,
                unit_sum,
            } = MomentsParts::read(&shard.file, first).at(&shard.name)?;
            let width = mean.len();
            let moments = match u64::try_from(count) {
                Ok(0) | Err(_) => Moments::empty(width),
                Ok(count) => Moments::from_parts(width, count, mean, m2, norm_sum, unit_sum).at(&what)?,
            };
            let (start, end) = buckets(index, self.shards.len());
            if start < end {
                tree.get_or_insert_with(|| BucketTree::new(width))
                    .push(start, end, moments)
                    .at(&what)?;
            } else if moments.count() > 0 {
                return Err(Error::input(&what, "a shard without buckets holds rows"));
            }
        }
        let whole = tree
            .ok_or_else(|| Error::bug("merge", "no shard owns a bucket"))?
            .finish()
            .at(key.name())?;
        Ok(MomentsParts {
            count: i64::try_from(whole.count()).map_err(|_| Error::input(key.name(), "more than 2^63 rows"))?,
            mean: whole.mean().to_vec(),
            m2: whole.m2().unwrap_or_default().to_vec(),
            norm_sum: whole.norm_sum(),
            unit_sum: whole.unit_sum().to_vec(),
        })
    }
}

/// Buckets b with floor(b·count/64) = index.
fn buckets(index: usize, count: usize) -> (u8, u8) {
    let start =
        |index: usize| u8::try_from((index * usize::from(BUCKET_COUNT)).div_ceil(count)).unwrap_or(BUCKET_COUNT);
    (start(index), start(index + 1))
}

/// What must be equal in all shards of a run.
fn comparable(header: &Header, ignore_compute: bool) -> Header {
    let mut header = header.clone();
    header.file_id = String::new();
    header.shard = None;
    if ignore_compute {
        header.compute = None;
        if let Some(plan) = header.meta.get_mut("plan") {
            *plan = process::plan::without_machine(plan.take());
        }
    }
    for spec in &mut header.tensors {
        spec.row_count = None;
    }
    header
}

/// Every shard once, by its index.
fn in_shard_order(opened: Vec<Source>) -> Result<Vec<Source>> {
    let mut places: HashMap<u32, Source> = HashMap::new();
    let mut count = None;
    // a run of one shard is the whole, and says so by naming none
    if let [source] = &opened[..]
        && source.file.header().shard.is_none()
    {
        return Ok(opened);
    }
    for source in opened {
        let header = source.file.header();
        let shard = header
            .shard
            .ok_or_else(|| Error::input(&source.name, "is no shard: its header names none"))?;
        let expected = *count.get_or_insert(shard.count);
        if shard.count != expected {
            return Err(Error::input(
                &source.name,
                format!("is one of {} shards, the others of {expected}", shard.count),
            ));
        }
        if shard.count > u32::from(BUCKET_COUNT) {
            return Err(Error::input(
                &source.name,
                format!("is one of {} shards, limit {BUCKET_COUNT}", shard.count),
            ));
        }
        if let Some(other) = places.get(&shard.index) {
            return Err(Error::input(
                &source.name,
                format!("is shard {} of {expected}, as is {}", shard.index, other.name),
            ));
        }
        places.insert(shard.index, source);
    }
    let count = count.unwrap_or(0);
    let missing: Vec<String> = (0..count)
        .filter(|index| !places.contains_key(index))
        .map(|index| index.to_string())
        .collect();
    if !missing.is_empty() {
        return Err(Error::input(
            "--merge",
            format!("of {count} shards, {} missing: {}", missing.len(), missing.join(", ")),
        ));
    }
    let mut shards: Vec<(u32, Source)> = places.into_iter().collect();
    shards.sort_by_key(|(index, _)| *index);
    Ok(shards.into_iter().map(|(_, source)| source).collect())
}

/// The samples of all shards in the order of the input; each shard's rows must be its samples' rows, one after another.
fn one_order(shards: &[Source], tensor: usize, header: &Header) -> Result<Vec<(usize, Sample)>> {
    let mut all = Vec::new();
    for (shard, source) in shards.iter().enumerate() {
        let mut row = 0;
        let mut previous = None;
        for sample in samples(source, tensor)? {
            let refuse = |cause: String| {
                Err(Error::input(
                    &source.name,
                    format!("sample {}: {cause}", sample.sample_index),
                ))
            };
            if previous.is_some_and(|previous| previous >= sample.sample_index) {
                return refuse("samples are not in the order of the input".into());
            }
            if sample.row_start != row {
                return refuse(format!(
                    "its rows begin at {} where row {row} follows",
                    sample.row_start
                ));
            }
            row = match row.checked_add(sample.row_count) {
                Some(row) => row,
                None => return refuse("its rows overflow".into()),
            };
            previous = Some(sample.sample_index);
            all.push((shard, sample));
        }
        for (index, spec) in header.tensors.iter().enumerate() {
            let rows = source.file.row_count(index);
            if matches!(spec.role, Role::Activations | Role::RowTable) && rows != row {
                return Err(Error::input(
                    &source.name,
                    format!("{} has {rows} rows, its samples {row}", spec.name),
                ));
            }
        }
    }
    all.sort_by_key(|(_, sample)| sample.sample_index);
    for pair in all.windows(2) {
        if let [(a, left), (b, right)] = pair
            && left.sample_index == right.sample_index
        {
            let (a, b) = (&shards[*a].name, &shards[*b].name);
            return Err(Error::input(b, format!("sample {} is also in {a}", left.sample_index)));
        }
    }
    if let Some(expected) = header.sample_count.filter(|expected| *expected != all.len() as u64) {
        return Err(Error::input(
            "--merge",
            format!("{} samples in all shards, the run has {expected}", all.len()),
        ));
    }
    Ok(all)
}

/// Decoded blocks, one per shard and tensor: rows are asked for in rising order, so an older block is not needed again.
struct Cache {
    blocks: HashMap<(usize, usize), Held>,
    bytes: u64,
    bytes_max: u64,
    clock: u64,
}

struct Held {
    first_row: u64,
    raw: Rc<Vec<u8>>,
    used: u64,
}

impl Cache {
    fn new(bytes_max: u64) -> Cache {
        Cache {
            blocks: HashMap::new(),
            bytes: 0,
            bytes_max,
            clock: 0,
        }
    }

    /// Shows the bytes of `rows`, block by block.
    fn rows(
        &mut self,
        source: &Source,
        shard: usize,
        tensor: usize,
        rows: std::ops::Range<u64>,
        mut show: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let spec = source.file.spec(tensor).at(&source.name)?;
        let row_bytes = spec.row_bytes().at(&source.name)?;
        let mut row = rows.start;
        while row < rows.end {
            let first = row - row % spec.block_row_count;
            let raw = self.block(source, shard, tensor, first, spec.block_row_count)?;
            let end = rows.end.min(first + raw.len() as u64 / row_bytes);
            let range = (row - first) * row_bytes..(end - first) * row_bytes;
            show(&raw[range.start as usize..range.end as usize])?;
            row = end;
        }
        Ok(())
    }

    fn block(
        &mut self,
        source: &Source,
        shard: usize,
        tensor: usize,
        first: u64,
        block_rows: u64,
    ) -> Result<Rc<Vec<u8>>> {
        self.clock += 1;
        if let Some(held) = self
            .blocks
            .get_mut(&(shard, tensor))
            .filter(|held| held.first_row == first)
        {
            held.used = self.clock;
            return Ok(Rc::clone(&held.raw));
        }
        let end = source.file.row_count(tensor).min(first + block_rows);
        let raw = Rc::new(source.file.to_bytes(tensor, first..end).at(&source.name)?);
        self.forget(shard, tensor);
        self.bytes += raw.len() as u64;
        while self.bytes > self.bytes_max
            && let Some(oldest) = self
                .blocks
                .iter()
                .min_by_key(|(_, held)| held.used)
                .map(|(key, _)| *key)
        {
            self.forget(oldest.0, oldest.1);
        }
        self.blocks.insert(
            (shard, tensor),
            Held {
                first_row: first,
                raw: Rc::clone(&raw),
                used: self.clock,
            },
        );
        Ok(raw)
    }

    fn forget(&mut self, shard: usize, tensor: usize) {
        if let Some(held) = self.blocks.remove(&(shard, tensor)) {
            self.bytes -= held.raw.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_own_the_buckets_that_the_rule_gives_them() {
        for count in 1..=64usize {
            for bucket in 0..64u8 {
                let index = usize::from(bucket) * count / 64;
                let (start, end) = buckets(index, count);
                assert!((start..end).contains(&bucket), "bucket {bucket} of {count} shards");
            }
        }
    }
}

//! `--moments`: rows are accumulated instead of written.
//!
//! Samples run bucket by bucket, and each bucket's moments are combined on the fixed tree over 64 buckets, so that shards
//! merge to the bits of one run. Units do not cross buckets: what is multiplied together is the same for any shard count.

use acts::{Header, MomentsKey, MomentsParts, TokenClass, Writer};
use model::{Decoder, Point};
use numerics::moments::{Accumulator, BucketTree, Moments, Precision, packed_len};
use process::{Error, Output, Result, ResultExt};

use crate::collector::{forward, per_sample};
use crate::plan::{Job, acts_site};
use crate::prompts::Sample;
use crate::selection::Positions;

/// Partial results that one accumulation may hold: one per level of the tree over 64 buckets, and the bucket at work.
const LIVE_MAX: u64 = 8;

/// The accumulations of a run, in the order of the container: group, then point, then class.
fn keys(job: &Job) -> Vec<(usize, usize, TokenClass)> {
    let groups = 0..job.groups.len();
    groups
        .flat_map(|group| {
            (0..job.points.len()).flat_map(move |point| TokenClass::ALL.map(|class| (group, point, class)))
        })
        .collect()
}

fn width(job: &Job, point: usize) -> usize {
    job.points[point].site.width(&job.config)
}

/// The container's size, which is known before anything runs.
pub fn container_bytes(job: &Job) -> u64 {
    let one = |width: usize| 8 * (packed_len(width) + 2 * width + 2) as u64;
    keys(job).into_iter().map(|(_, point, _)| one(width(job, point))).sum()
}

/// Refuses what would not fit.
pub fn check_memory(job: &Job, limit: u64) -> Result<()> {
    let needed = container_bytes(job) * LIVE_MAX;
    if needed > limit {
        let cause = format!("the moments may take {needed} bytes, limit {limit}");
        return Err(Error::usage("--max-memory", cause).hint("raise it, or choose --layers in several runs"));
    }
    Ok(())
}

pub fn header(job: &Job) -> Result<Header> {
    let mut header = job.header()?;
    header.groups = job.groups.clone();
    for (group, point, class) in keys(job) {
        let key = key(job, group, job.points[point], class)?;
        header.tensors.extend(key.specs(width(job, point) as u64));
    }
    header.fix_blocks().at("plan")?;
    Ok(header)
}

fn key(job: &Job, group: usize, point: Point, class: TokenClass) -> Result<MomentsKey> {
    Ok(MomentsKey {
        group: u32::try_from(group).map_err(|_| Error::input("--group", format!("{} groups", job.groups.len())))?,
        site: acts_site(point.site),
        layer_index: point.layer_index().map(|layer| layer as u32),
        class,
    })
}

/// Runs all samples of the shard; one result per key.
pub fn accumulate(job: &Job, decoder: &Decoder, mut after: impl FnMut(u64) -> Result<()>) -> Result<Vec<Moments>> {
    let keys = keys(job);
    let mut trees: Vec<BucketTree> = keys
        .iter()
        .map(|&(_, point, _)| BucketTree::new(width(job, point)))
        .collect();
    for bucket in 0..numerics::moments::BUCKET_COUNT {
        let members: Vec<usize> = (0..job.samples.len())
            .filter(|&index| job.samples[index].bucket == bucket)
            .collect();
        if members.is_empty() {
            continue;
        }
        let mut at_work: Vec<Option<Accumulator<f32>>> = keys.iter().map(|_| None).collect();
        for unit in job.units(&members) {
            let samples: Vec<&Sample> = unit.iter().map(|&index| &job.samples[index]).collect();
            let tensors = forward(decoder, job, &samples).at("model")?;
            for (point, tensor) in tensors.iter().enumerate() {
                add(job, &mut at_work, point, tensor, &samples)?;
            }
            after(samples.iter().map(|sample| sample.token_ids.len() as u64).sum())?;
        }
        for (tree, accumulator) in trees.iter_mut().zip(at_work) {
            if let Some(accumulator) = accumulator {
                let moments = accumulator.finish().map_err(not_finite)?;
                tree.push(bucket, bucket + 1, moments)
                    .map_err(|cause| Error::bug("moments", cause))?;
            }
        }
    }
    trees
        .into_iter()
        .map(|tree| tree.finish().map_err(|cause| Error::bug("moments", cause)))
        .collect()
}

fn not_finite(cause: numerics::moments::MomentsError) -> Error {
    Error::input("activations", cause)
}

fn add(
    job: &Job,
    at_work: &mut [Option<Accumulator<f32>>],
    point: usize,
    tensor: &model::Tensor,
    samples: &[&Sample],
) -> Result<()> {
    let width = width(job, point);
    let mut push = |group: usize, class: usize, rows: &[f32]| -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let index = (group * job.points.len() + point) * TokenClass::ALL.len() + class;
        let accumulator = at_work[index].get_or_insert_with(|| Accumulator::new(width, Precision::Double));
        accumulator.push(rows).map_err(not_finite)
    };
    per_sample(tensor, samples, job.positions, |sample, rows| {
        let group = job
            .groups
            .iter()
            .position(|group| *group == sample.group)
            .unwrap_or_default();
        let first = match sample.positions.start == 0 && job.positions != Positions::Mean {
            true => width,
            false => 0,
        };
        push(group, 0, &rows[..first])?;
        push(group, 1, &rows[first..])
    })
}

/// Writes the container.
pub fn write(job: &Job, output: Output, threads: usize, results: Vec<Moments>) -> Result<Output> {
    let mut writer = Writer::new(output, header(job)?, threads).at("output")?;
    let firsts = MomentsKey::all(writer.header());
    for ((_, first), moments) in firsts.into_iter().zip(&results) {
        let parts = MomentsParts {
            count: moments.count() as i64,
            mean: moments.mean().to_vec(),
            m2: moments.m2().map(<[f64]>::to_vec).unwrap_or_default(),
            norm_sum: moments.norm_sum(),
            unit_sum: moments.unit_sum().to_vec(),
        };
        parts.push(&mut writer, first).at("output")?;
    }
    let finished = match job.failures.is_empty() {
        true => writer.finish(),
        false => writer.finish_partial(),
    };
    Ok(finished.at("output")?.0)
}

/// What the records say of each accumulation that has rows.
pub fn rows(job: &Job, results: &[Moments], path: &std::path::Path) -> Vec<crate::report::MomentsRow> {
    let named = keys(job)
        .into_iter()
        .zip(results)
        .filter(|(_, moments)| moments.count() > 0);
    named
        .map(|((group, point, class), moments)| crate::report::MomentsRow {
            group: job.groups[group].clone(),
            site: job.points[point].site.to_string(),
            layer_index: job.points[point].layer_index().map(|layer| layer as u64),
            class: class.name(),
            row_count: moments.count(),
            norm_mean: moments.norm_sum() / moments.count() as f64,
            path: records::RecordPath(path.into()),
        })
        .collect()
}

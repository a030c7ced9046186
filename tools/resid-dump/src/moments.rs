//! `--moments`: rows are accumulated instead of written.
//!
//! Samples run bucket by bucket, and each bucket's moments are combined on the fixed tree over 64 buckets, so that shards
//! merge to the bits of one run. Units do not cross buckets: what is multiplied together is the same for any shard count.

use std::path::Path;

use acts::{Header, MomentsKey, MomentsParts, TokenClass, Writer};
use model::Decoder;
use numerics::moments::{Accumulator, BucketTree, Moments, Precision};
use process::{Error, Output, Result, ResultExt};

use crate::collector::{forward, per_sample};
use crate::layout::{self, Key};
use crate::plan::{Opened, token_count};
use crate::prompts::Sample;
use crate::report::MomentsRow;
use crate::selection::Positions;

/// Partial results that one accumulation may hold: one per level of the tree over 64 buckets, and the bucket at work.
const LIVE_MAX: u64 = 8;

/// Refuses what would not fit.
pub fn check_memory(opened: &Opened) -> Result<()> {
    let (needed, limit) = (layout::moments_bytes(opened) * LIVE_MAX, opened.moments_bytes_max);
    if needed > limit {
        let cause = format!("the moments may take {needed} bytes, limit {limit}");
        return Err(Error::usage("--max-memory", cause).hint("raise it, or choose --layers in several runs"));
    }
    Ok(())
}

/// Runs all samples of the shard; one result per key.
pub fn accumulate(
    opened: &Opened,
    decoder: &Decoder,
    mut after: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Moments>> {
    let keys = layout::moments_keys(opened);
    let mut trees: Vec<BucketTree> = keys
        .iter()
        .map(|key| BucketTree::new(opened.width(key.point)))
        .collect();
    for bucket in 0..numerics::moments::BUCKET_COUNT {
        let members = (0..opened.samples.len()).filter(|&index| opened.samples[index].bucket == bucket);
        let mut at_work: Vec<Option<Accumulator<f32>>> = keys.iter().map(|_| None).collect();
        for unit in opened.units(members) {
            let samples = opened.of_unit(&unit);
            let tensors = forward(decoder, opened, &samples).at("model")?;
            for (point, tensor) in tensors.iter().enumerate() {
                add(opened, &mut at_work, point, tensor, &samples)?;
            }
            after(token_count(samples))?;
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
    opened: &Opened,
    at_work: &mut [Option<Accumulator<f32>>],
    point: usize,
    tensor: &model::Tensor,
    samples: &[&Sample],
) -> Result<()> {
    let width = opened.width(point);
    let mut push = |group: usize, class: usize, rows: &[f32]| -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let index = (group * opened.points.len() + point) * TokenClass::ALL.len() + class;
        let accumulator = at_work[index].get_or_insert_with(|| Accumulator::new(width, Precision::Double));
        accumulator.push(rows).map_err(not_finite)
    };
    per_sample(tensor, samples, opened.positions, |sample, rows| {
        let group = opened.groups.iter().position(|group| *group == sample.group);
        let group = group.ok_or_else(|| Error::bug("group", "of a sample is not among the groups"))?;
        let first = match sample.positions.start == 0 && opened.positions != Positions::Mean {
            true => width,
            false => 0,
        };
        push(group, 0, &rows[..first])?;
        push(group, 1, &rows[first..])
    })
}

/// Writes the container.
pub fn write(header: Header, output: Output, threads: usize, results: &[Moments], is_partial: bool) -> Result<Output> {
    let mut writer = Writer::new(output, header, threads).at("output")?;
    let firsts = MomentsKey::all(writer.header());
    for ((_, first), moments) in firsts.into_iter().zip(results) {
        let parts = MomentsParts {
            count: moments.count() as i64,
            mean: moments.mean().to_vec(),
            m2: moments.m2().map(<[f64]>::to_vec).unwrap_or_default(),
            norm_sum: moments.norm_sum(),
            unit_sum: moments.unit_sum().to_vec(),
        };
        parts.push(&mut writer, first).at("output")?;
    }
    let finished = match is_partial {
        false => writer.finish(),
        true => writer.finish_partial(),
    };
    Ok(finished.at("output")?.0)
}

/// What the records say of each accumulation that has rows.
pub fn rows(opened: &Opened, results: &[Moments], path: &Path) -> Vec<MomentsRow> {
    let keys = layout::moments_keys(opened).into_iter();
    let filled = keys.zip(results).filter(|(_, moments)| moments.count() > 0);
    let row = |(key, moments): (Key, &Moments)| MomentsRow {
        group: opened.groups[key.group].clone(),
        site: opened.points[key.point].site.to_string(),
        layer_index: opened.points[key.point].layer_index().map(|layer| layer as u64),
        class: key.class.name(),
        row_count: moments.count(),
        norm_mean: moments.norm_sum() / moments.count() as f64,
        path: records::RecordPath(path.into()),
    };
    filled.map(row).collect()
}

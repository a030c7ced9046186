//! `--verify`: the prompts of a stored dump, run again, and which of the outcomes holds: equal, equal within precision, or
//! different, with the first layer and token where they part. (The fourth, an error, is an error.)

use acts::File;
use process::{Error, Outcome, Result, ResultExt, Shard};

use crate::cli::Args;
use crate::collector::{forward, per_sample};
use crate::plan::{Job, Plan};
use crate::prompts::Sample;
use crate::report::{self, Parting, VerifyRow};

/// What rounding alone may do, relative to the largest value of a row: of the type computed in, and of the type stored.
fn tolerance(plan: &Plan) -> f64 {
    let one = |dtype: &str, f32: f64| match dtype {
        "bf16" => 1.0 / 128.0,
        "f16" => 1.0 / 1024.0,
        _ => f32,
    };
    // half-precision errors accumulate over layers
    let computed = one(&plan.dtype, 1e-5);
    if plan.dtype == "f32" {
        computed.max(one(&plan.store_dtype, 0.0))
    } else {
        16.0 * computed
    }
}

pub fn run(mut args: Args, golden: &std::path::Path) -> Result<Outcome> {
    let shown = golden.display().to_string();
    let file = File::open(golden, acts::OpenOptions::default()).at(&shown)?;
    let header = file.header().clone();
    let stored: Plan = match header.meta.get("plan") {
        Some(plan) => {
            serde_json::from_value(plan.clone()).map_err(|cause| Error::input(&shown, format!("its plan: {cause}")))?
        }
        None => return Err(Error::input(&shown, "holds no plan of resid-dump")),
    };
    if stored.moments {
        return Err(Error::usage("--verify", "moments hold no rows to compare"));
    }
    stored.apply(&mut args)?;
    args.shard.shard = Some(match header.shard {
        Some(shard) => Shard::new(shard.index, shard.count).map_err(|cause| Error::input(&shown, cause))?,
        None => Shard::WHOLE,
    });
    let job = Job::new(&args)?;
    if job.row_count() != file.row_count(job.points.len()) {
        let (ours, theirs) = (job.row_count(), file.row_count(job.points.len()));
        return Err(Error::input(
            args.prompts.display(),
            format!("gives {ours} rows, the stored dump has {theirs}"),
        ));
    }
    let decoder = model::Decoder::from_weights(job.config.clone(), &job.weights).at(args.model.display())?;

    let tolerance = tolerance(&stored);
    let mut most = 0f64;
    // per point: the first row that is not equal, and the first beyond the tolerance
    let mut unequal: Vec<Option<Parting>> = vec![None; job.points.len()];
    let mut beyond: Vec<Option<Parting>> = vec![None; job.points.len()];
    let same_tokens = same_tokens(&job, &file).at(&shown)?;
    let all: Vec<usize> = (0..job.samples.len()).collect();
    let progress = process::Progress::start(&args.common, "verified", Some(job.row_count()), "rows");
    let mut row_start = 0u64;
    for unit in job.units(&all) {
        process::signals::check()?;
        let samples: Vec<&Sample> = unit.iter().map(|&index| &job.samples[index]).collect();
        let tensors = forward(&decoder, &job, &samples).at(args.model.display())?;
        let mut end = row_start;
        for (at, (tensor, point)) in tensors.iter().zip(&job.points).enumerate() {
            let width = point.site.width(&job.config);
            let stored_at = file.tensor(&point.to_string()).at(&shown)?;
            let mut row = row_start;
            per_sample(tensor, &samples, job.positions, |sample, values| {
                let ours = values.chunks_exact(width);
                let count = ours.len() as u64;
                let theirs = file.to_vec::<f32>(stored_at, row..row + count).at(&shown)?;
                for (offset, (ours, theirs)) in ours.zip(theirs.chunks_exact(width)).enumerate() {
                    let ours = rounded(ours, &stored.store_dtype);
                    let difference = difference(&ours, theirs);
                    most = most.max(difference);
                    let parting = || Parting {
                        name: point.to_string(),
                        layer_index: point.layer_index().map(|layer| layer as u64),
                        row_index: row + offset as u64,
                        sample_index: sample.index,
                        position: (sample.positions.start + offset) as u64,
                        token_id: u64::from(sample.token_ids[sample.positions.start + offset]),
                        difference,
                    };
                    if difference > tolerance {
                        beyond[at].get_or_insert_with(parting);
                    }
                    let equal = ours.iter().zip(theirs).all(|(a, b)| a.to_bits() == b.to_bits());
                    if !equal {
                        unequal[at].get_or_insert_with(parting);
                    }
                }
                row += count;
                Ok(())
            })?;
            end = row;
        }
        progress.advance(end - row_start);
        row_start = end;
    }
    progress.finish();
    // layers in order of depth, whatever the order of sites
    let first = |found: Vec<Option<Parting>>| {
        found
            .into_iter()
            .flatten()
            .min_by_key(|parting| (parting.layer_index, parting.row_index))
    };
    let (beyond, unequal) = (first(beyond), first(unequal));
    let outcome = match (&beyond, &unequal) {
        (Some(_), _) => "different",
        _ if !same_tokens => "different",
        (None, Some(_)) => "equal-within-precision",
        (None, None) => "equal",
    };
    let row = VerifyRow {
        outcome,
        same_model: job.plan.model_digest == stored.model_digest,
        same_tokens,
        row_count: row_start,
        difference_max: most,
        tolerance,
        first: beyond.or(unequal),
    };
    let row = serde_json::to_value(row).map_err(|cause| Error::bug("record", cause))?;
    report::print(&[row])?;
    Ok(if outcome == "different" {
        Outcome::Verdict
    } else {
        Outcome::Complete
    })
}

fn same_tokens(job: &Job, file: &File) -> acts::Result<bool> {
    if job.positions == crate::selection::Positions::Mean {
        return Ok(true);
    }
    let tensor = file.tensor("token_id")?;
    let stored = file.to_vec::<u32>(tensor, 0..file.row_count(tensor))?;
    Ok(job
        .samples
        .iter()
        .flat_map(|sample| &sample.token_ids[sample.positions.clone()])
        .eq(stored.iter()))
}

fn rounded(row: &[f32], dtype: &str) -> Vec<f32> {
    match dtype {
        "bf16" => row.iter().map(|x| model::half::bf16::from_f32(*x).to_f32()).collect(),
        "f16" => row.iter().map(|x| model::half::f16::from_f32(*x).to_f32()).collect(),
        _ => row.to_vec(),
    }
}

/// The largest difference relative to the row's largest value; a value that is not finite is infinitely far.
fn difference(ours: &[f32], theirs: &[f32]) -> f64 {
    let scale = theirs
        .iter()
        .fold(0f64, |most, x| most.max(f64::from(x.abs())))
        .max(f64::MIN_POSITIVE);
    let far = |(a, b): (&f32, &f32)| match f64::from((a - b).abs()) {
        far if far.is_nan() => f64::INFINITY,
        far => far / scale,
    };
    ours.iter().zip(theirs).map(far).fold(0.0, f64::max)
}

//! `--verify`: the prompts of a stored dump, run again, and which of the outcomes holds: equal, equal within precision, or
//! different, with the first layer and token where they part. (The fourth, an error, is an error.)

use acts::{Dtype, File};
use process::{Error, Outcome, Result, ResultExt, Shard};

use crate::cli::Args;
use crate::collector::{forward, per_sample, rounded};
use crate::plan::{Opened, Plan, acts_dtype};
use crate::prompts::Sample;
use crate::report::{self, Parting, VerifyRow};
use crate::selection::Positions;

/// What rounding alone may do, relative to the largest value of a row: of the type computed in, and of the type stored.
fn tolerance(plan: &Plan) -> f64 {
    let one = |dtype: &str, f32: f64| match dtype {
        "bf16" => 1.0 / 128.0,
        "f16" => 1.0 / 1024.0,
        _ => f32,
    };
    // half-precision errors accumulate over layers
    let computed = one(&plan.compute.dtype, 1e-5);
    if plan.compute.dtype == "f32" {
        computed.max(one(&plan.store_dtype, 0.0))
    } else {
        16.0 * computed
    }
}

pub fn run(mut args: Args, golden: &std::path::Path) -> Result<Outcome> {
    let shown = golden.display().to_string();
    let file = File::open(golden, acts::OpenOptions::default()).at(&shown)?;
    let stored = stored_plan(&file, &shown)?;
    stored.apply(&mut args)?;
    args.shard.shard = Some(match file.header().shard {
        Some(shard) => Shard::new(shard.index, shard.count).map_err(|cause| Error::input(&shown, cause))?,
        None => Shard::WHOLE,
    });
    let (plan, opened) = Plan::new(&args)?;
    check_comparable(&stored, &plan, &opened, &file)?;
    let decoder = opened.checkpoint.load().at(&opened.model_name)?;
    let mut comparison = Comparison {
        opened: &opened,
        file: &file,
        shown: &shown,
        store_dtype: acts_dtype(&stored.store_dtype),
        tolerance: tolerance(&stored),
        most: 0.0,
        unequal: vec![None; opened.points.len()],
        beyond: vec![None; opened.points.len()],
    };
    let same_tokens = same_tokens(&opened, &file).at(&shown)?;
    let progress = process::Progress::start(&args.common, "verified", Some(opened.row_count()), "rows");
    let mut row_start = 0;
    for unit in opened.all_units() {
        process::signals::check()?;
        let samples = opened.of_unit(&unit);
        let tensors = forward(&decoder, &opened, &samples).at(&opened.model_name)?;
        for (point, tensor) in tensors.iter().enumerate() {
            comparison.tensor(point, tensor, &samples, row_start)?;
        }
        let rows: usize = samples.iter().map(|sample| sample.row_count(opened.positions)).sum();
        progress.advance(rows as u64);
        row_start += rows as u64;
    }
    progress.finish();
    let row = comparison.row(plan.model_digest == stored.model_digest, same_tokens, row_start);
    let outcome = match row.outcome {
        "different" => Outcome::Verdict,
        _ => Outcome::Complete,
    };
    let row = serde_json::to_value(row).map_err(|cause| Error::bug("record", cause))?;
    report::print(&[row])?;
    Ok(outcome)
}

fn stored_plan(file: &File, shown: &str) -> Result<Plan> {
    let plan = file.header().meta.get("plan").cloned();
    let plan = plan.ok_or_else(|| Error::input(shown, "holds no plan of resid-dump"))?;
    let plan: Plan = serde_json::from_value(plan).map_err(|cause| Error::input(shown, format!("its plan: {cause}")))?;
    match plan.moments {
        true => Err(Error::usage("--verify", "moments hold no rows to compare")),
        false => Ok(plan),
    }
}

/// Refuses a run that is another by what the flags, which name files, must say again.
fn check_comparable(stored: &Plan, plan: &Plan, opened: &Opened, file: &File) -> Result<()> {
    let interventions = |plan: &Plan| serde_json::json!({ "interventions": plan.interventions });
    if let Some(difference) = process::plan::difference(&interventions(stored), &interventions(plan)) {
        return Err(Error::usage("--ablate, --add", difference).hint("give the flags of the stored dump"));
    }
    let (ours, theirs) = (opened.row_count(), file.row_count(opened.points.len()));
    match ours == theirs {
        true => Ok(()),
        false => Err(Error::input(
            &opened.prompts_name,
            format!("gives {ours} rows, the stored dump has {theirs}"),
        )),
    }
}

/// What was found so far.
struct Comparison<'a> {
    opened: &'a Opened,
    file: &'a File,
    shown: &'a str,
    store_dtype: Dtype,
    tolerance: f64,
    most: f64,
    /// By point: the first row that is not equal.
    unequal: Vec<Option<Parting>>,
    /// And the first beyond the tolerance.
    beyond: Vec<Option<Parting>>,
}

impl Comparison<'_> {
    /// Holds the rows of one point, from `row_start` on, to those that are stored.
    fn tensor(&mut self, at: usize, tensor: &model::Tensor, samples: &[&Sample], row_start: u64) -> Result<()> {
        let (opened, point, width) = (self.opened, self.opened.points[at], self.opened.width(at));
        let stored_at = self.file.tensor(&point.to_string()).at(self.shown)?;
        let mut row = row_start;
        per_sample(tensor, samples, opened.positions, |sample, values| {
            let count = (values.len() / width) as u64;
            let dtype = match opened.dtype(at) {
                Dtype::U32 => Dtype::U32,
                _ => self.store_dtype,
            };
            let theirs = stored(self.file, stored_at, dtype, row..row + count).at(self.shown)?;
            let ours = rounded(values, dtype);
            for (offset, (ours, theirs)) in ours.chunks_exact(width).zip(theirs.chunks_exact(width)).enumerate() {
                let difference = difference(ours, theirs);
                self.most = self.most.max(difference);
                let parting = || Parting {
                    name: point.to_string(),
                    layer_index: point.layer_index().map(|layer| layer as u64),
                    row_index: row + offset as u64,
                    sample_index: sample.index,
                    position: (sample.positions.start + offset) as u64,
                    token_id: u64::from(sample.token_ids[sample.positions.start + offset]),
                    difference,
                };
                if difference > self.tolerance {
                    self.beyond[at].get_or_insert_with(parting);
                }
                let is_equal = ours.iter().zip(theirs).all(|(a, b)| a.to_bits() == b.to_bits());
                if !is_equal {
                    self.unequal[at].get_or_insert_with(parting);
                }
            }
            row += count;
            Ok(())
        })
    }

    fn row(self, same_model: bool, same_tokens: bool, row_count: u64) -> VerifyRow {
        // layers in order of depth, whatever the order of sites
        let first = |found: Vec<Option<Parting>>| {
            found
                .into_iter()
                .flatten()
                .min_by_key(|parting| (parting.layer_index, parting.row_index))
        };
        let (beyond, unequal) = (first(self.beyond), first(self.unequal));
        VerifyRow {
            outcome: match (&beyond, &unequal) {
                (Some(_), _) => "different",
                _ if !same_tokens => "different",
                (None, Some(_)) => "equal-within-precision",
                (None, None) => "equal",
            },
            same_model,
            same_tokens,
            row_count,
            difference_max: self.most,
            tolerance: self.tolerance,
            first: beyond.or(unequal),
        }
    }
}

/// Rows of a tensor, widened.
fn stored(file: &File, tensor: usize, dtype: Dtype, rows: std::ops::Range<u64>) -> acts::Result<Vec<f32>> {
    match dtype {
        Dtype::U32 => Ok(file
            .to_vec::<u32>(tensor, rows)?
            .into_iter()
            .map(|x| x as f32)
            .collect()),
        _ => file.to_vec::<f32>(tensor, rows),
    }
}

fn same_tokens(opened: &Opened, file: &File) -> acts::Result<bool> {
    if opened.positions == Positions::Mean {
        return Ok(true);
    }
    let tensor = file.tensor("token_id")?;
    let stored = file.to_vec::<u32>(tensor, 0..file.row_count(tensor))?;
    Ok(opened
        .samples
        .iter()
        .flat_map(|sample| &sample.token_ids[sample.positions.clone()])
        .eq(stored.iter()))
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

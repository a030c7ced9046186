//! Writes the directory: one tensor in memory at a time.

use std::path::Path;

use model::export::{self, Entry};
use model::{DType, Tensor};
use process::{Manifest, Outcome, OutputDirectory, Progress, Result, ResultExt, signals};
use records::{Begin, RecordPath, Status, Writer};

use crate::cli::Args;
use crate::plan::{Opened, Plan};
use crate::report::Merged;

pub fn run(args: Args) -> Result<Outcome> {
    let mut manifest = Manifest::start();
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let directory = OutputDirectory::create(&opened.target, opened.existing, &opened.inputs)?;
    let progress = Progress::start(&args.common, "merge", Some(opened.parameters.len() as u64), "tensors");
    let flipped_count = write(directory.path(), &opened, &progress)?;
    progress.finish();
    opened.checkpoint.check_unchanged().at(&opened.name)?;
    if let Some((other, _)) = &opened.average {
        other.check_unchanged().at("--average")?;
    }
    manifest.note("model", &args.model)?;
    manifest.note("average", &args.average)?;
    manifest.note("adapters", &args.adapter.adapters)?;
    manifest.note("output", &opened.target)?;
    manifest.write_as(&directory.path().join("run.json"), &plan)?;
    directory.commit()?;
    report(plan, &opened, flipped_count)
}

/// Gives how many weights have a bit flipped.
fn write(directory: &Path, opened: &Opened, progress: &Progress) -> Result<u64> {
    let (checkpoint, dtype) = (&opened.checkpoint, opened.dtype);
    let subject = opened.target.display();
    export::config(directory, checkpoint.config_text(), dtype).at(&subject)?;
    export::companions(directory, checkpoint.directory()).at(&opened.name)?;
    let entry = |(name, shape): &(String, Vec<usize>)| Entry {
        name: name.clone(),
        shape: shape.clone(),
        dtype,
    };
    let entries: Vec<Entry> = opened.parameters.iter().map(entry).collect();
    let mut flipped_count = 0;
    let written = export::safetensors(directory, "model.safetensors", &entries, |index| {
        let (name, shape) = &opened.parameters[index];
        progress.advance(1);
        match signals::received() {
            None => {
                let weight = checkpoint.weight(name, shape)?;
                let mut bytes = match &opened.average {
                    Some((other, share)) => export::bytes(&mean(&weight, &other.weight(name, shape)?, *share)?, dtype),
                    None => export::bytes(&weight, dtype),
                }?;
                if let Some(faults) = &opened.faults {
                    flipped_count += faults.flip_stored(&[name.as_bytes()], &mut bytes, dtype.size_in_bytes());
                }
                Ok(bytes)
            }
            Some(_) => Err(interrupted()),
        }
    });
    signals::check()?;
    written.at(&opened.name)?;
    Ok(flipped_count)
}

/// In f32: so much of the second as `share` says, the rest of the first.
fn mean(first: &Tensor, second: &Tensor, share: f64) -> model::Result<Tensor> {
    let part = |weight: &Tensor, share: f64| weight.to_dtype(DType::F32)?.affine(share, 0.0);
    Ok((part(first, 1.0 - share)? + part(second, share)?)?)
}

/// Ends the writing; the signal itself says more.
fn interrupted() -> model::Error {
    model::Error::File {
        place: String::new(),
        cause: "interrupted".into(),
    }
}

fn report(plan: Plan, opened: &Opened, flipped_count: u64) -> Result<Outcome> {
    let mut out = Writer::new(process::stdout().tolerant());
    let begin = Begin::new(process::tool_name(), process::VERSION);
    out.begin(&begin, &()).at("stdout")?;
    let count = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
    let merged = Merged {
        path: RecordPath(opened.target.clone()),
        model_digest: plan.model_digest,
        adapter_count: plan.adapter_count,
        average: plan.average,
        flipped_count: plan.flip.as_ref().map(|_| flipped_count),
        flip: plan.flip,
        dtype: plan.store_dtype,
        parameter_count: opened.parameters.iter().map(|(_, shape)| count(shape)).sum(),
    };
    out.row(&merged).at("stdout")?;
    out.end(Status::Complete, &()).at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

//! Does what the plan says: one function per mode, and the records that tell what was written.

use crate::cli::{Args, OutputFormat};
use crate::merge::Merge;
use crate::plan::{Mode, Plan};
use crate::report::{ContentRow, HeaderRow, MissingRow};
use crate::rows;
use crate::slice::Slice;
use crate::source::{Source, choose, range};
use crate::{gguf, import, parquet, salvage};
use acts::{Header, Role, Summary};
use process::{Outcome, Output, Result, ResultExt, Stdout};
use records::{Begin, RecordPath, Status, Writer};
use std::path::{Path, PathBuf};

pub fn run(args: Args) -> Result<Outcome> {
    let plan = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if let Some(target) = &plan.target {
        process::check_target(target, plan.existing, &plan.files())?;
    }
    match plan.mode {
        Mode::Header => show_header(&plan),
        Mode::Convert if plan.format == OutputFormat::Jsonl => print_rows(&plan),
        Mode::Convert => convert(&plan, &args.common),
        Mode::Import => {
            let (out, name) = create(&plan)?;
            let (out, summary) = import::run(&plan, out, &name)?;
            deliver(&plan, out, &summary, &[])
        }
        Mode::Merge => {
            let merge = Merge::new(&plan)?;
            let (out, name) = create(&plan)?;
            let (out, summary) = merge.write(&plan, out, &name)?;
            deliver(&plan, out, &summary, &[])
        }
        Mode::Salvage => {
            let found = salvage::survey(&plan)?;
            let (out, name) = create(&plan)?;
            let (out, summary) = salvage::write(&plan, &found, out, &name)?;
            if !found.missing.is_empty() || found.lost_bytes > 0 {
                let text = format!(
                    "{}: {} bytes and {} ranges of rows are lost",
                    plan.inputs[0].display(),
                    found.lost_bytes,
                    found.missing.len()
                );
                process::warn(&args.common, &text);
            }
            deliver(&plan, out, &summary, &found.missing)
        }
    }
}

fn show_header(plan: &Plan) -> Result<Outcome> {
    let path = &plan.inputs[0];
    let source = Source::open(path, plan.open)?;
    let file = &source.file;
    let mut out = begin(process::stdout())?;
    let row = HeaderRow {
        path: RecordPath(path.clone()),
        state: file.state().name(),
        block_count: file.block_count(),
        file_bytes: file.file_bytes(),
        header: file.header(),
    };
    out.row(&row).at("stdout")?;
    for (tensor, spec) in file.header().tensors.iter().enumerate() {
        let summary = file.summary(tensor).at(&source.name)?;
        let (_, payload_bytes) = file.stored_bytes(tensor);
        out.row(&ContentRow::stored(spec, summary, Some(payload_bytes)))
            .at("stdout")?;
    }
    end(out)
}

/// What is printed where no tensor is named: numbers, not the tables beside them.
const NUMBERS: [Role; 4] = [Role::Data, Role::Activations, Role::Basis, Role::Moments];

fn slices(plan: &Plan, source: &Source, roles: &[Role]) -> Result<Vec<Slice>> {
    let tensors = choose(source, &plan.tensors, roles)?;
    tensors
        .into_iter()
        .map(|tensor| {
            Ok(Slice {
                tensor,
                rows: range(source, tensor, plan.rows, plan.head)?,
            })
        })
        .collect()
}

fn print_rows(plan: &Plan) -> Result<Outcome> {
    let source = Source::open(&plan.inputs[0], plan.open)?;
    let slices = slices(plan, &source, &NUMBERS)?;
    match &plan.target {
        Some(target) if target != Path::new("-") => {
            let (out, name) = create(plan)?;
            let mut out = begin(out)?;
            rows::write_jsonl(&source, &slices, &mut out, &name)?;
            out.end(Status::Complete, &()).at(&name)?.commit()?;
            list_slices(&source, &slices)
        }
        _ => {
            let mut out = begin(process::stdout())?;
            rows::write_jsonl(&source, &slices, &mut out, "stdout")?;
            end(out)
        }
    }
}

fn convert(plan: &Plan, common: &process::Common) -> Result<Outcome> {
    let source = Source::open(&plan.inputs[0], plan.open)?;
    let is_whole = plan.rows.is_none() && plan.head.is_none();
    let slices = match plan.format {
        // A slice leaves the sample records out: their row numbers would be wrong.
        OutputFormat::Acts if is_whole => slices(
            plan,
            &source,
            &[
                Role::Samples,
                Role::RowTable,
                Role::Data,
                Role::Activations,
                Role::Basis,
                Role::Moments,
            ],
        )?,
        OutputFormat::Acts => slices(
            plan,
            &source,
            &[Role::RowTable, Role::Data, Role::Activations, Role::Basis],
        )?,
        // several tensors fit: those that say what a row is go with them
        OutputFormat::Safetensors => slices(plan, &source, &[&[Role::RowTable], &NUMBERS[..]].concat())?,
        _ => slices(plan, &source, &NUMBERS)?,
    };
    let (mut out, name) = create(plan)?;
    match plan.format {
        OutputFormat::Acts => {
            let (out, summary) = rows::write_acts(&source, &slices, plan, out, &name)?;
            return deliver(plan, out, &summary, &[]);
        }
        OutputFormat::Npy => rows::write_npy(&source, &slices, &mut out, &name)?,
        OutputFormat::Safetensors => rows::write_safetensors(&source, &slices, &mut out, &name)?,
        OutputFormat::Parquet => parquet::write(&source, &slices, &mut out, &name)?,
        OutputFormat::Gguf => {
            if gguf::write(&source, &slices, &mut out, &name)? {
                process::warn(
                    common,
                    &format!("{name}: the direction of layer 0 is left out: a control vector has none"),
                );
            }
        }
        OutputFormat::Raw | OutputFormat::Jsonl => rows::write_raw(&source, &slices, &mut out, &name)?,
    }
    let listed = is_file(plan);
    out.commit()?;
    if listed {
        list_slices(&source, &slices)
    } else {
        Ok(Outcome::Complete)
    }
}

fn is_file(plan: &Plan) -> bool {
    plan.target.as_deref().is_some_and(|target| target != Path::new("-"))
}

/// The output and its name in messages.
fn create(plan: &Plan) -> Result<(Output, String)> {
    let target = plan.target.clone().unwrap_or_else(|| PathBuf::from("-"));
    let name = if is_file(plan) {
        target.display().to_string()
    } else {
        "stdout".into()
    };
    let out = match plan.format {
        OutputFormat::Jsonl => Output::create(&target, plan.existing, &plan.files())?,
        _ => Output::create_binary(&target, plan.existing, &plan.files())?,
    };
    Ok((out, name))
}

fn begin<W: std::io::Write>(out: W) -> Result<Writer<W>> {
    let mut out = Writer::new(out);
    out.begin(&Begin::new(process::tool_name(), process::VERSION), &())
        .at("stdout")?;
    Ok(out)
}

fn end(out: Writer<Stdout>) -> Result<Outcome> {
    out.end(Status::Complete, &()).at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

/// Commits a container and lists its tensors, unless stdout carries the container itself.
fn deliver(plan: &Plan, out: Output, summary: &Summary, missing: &[MissingRow]) -> Result<Outcome> {
    out.commit()?;
    let Some(target) = plan.target.as_deref().filter(|_| is_file(plan)) else {
        return Ok(Outcome::Complete);
    };
    let Some(header) = header_of(target, plan)? else {
        return Ok(Outcome::Complete);
    };
    let mut out = begin(process::stdout().tolerant())?;
    for (spec, tensor) in header.tensors.iter().zip(&summary.tensors) {
        out.row(&ContentRow::stored(spec, tensor, None)).at("stdout")?;
    }
    for row in missing {
        out.row(row).at("stdout")?;
    }
    end(out)
}

/// The header of what was just written; none where it was a pipe or device.
fn header_of(target: &Path, plan: &Plan) -> Result<Option<Header>> {
    if !std::fs::metadata(target).is_ok_and(|found| found.is_file()) {
        return Ok(None);
    }
    let options = acts::OpenOptions {
        allow_partial: true,
        ..plan.open
    };
    Ok(Some(
        acts::File::open(target, options).at(target.display())?.header().clone(),
    ))
}

fn list_slices(source: &Source, slices: &[Slice]) -> Result<Outcome> {
    let mut out = begin(process::stdout().tolerant())?;
    for slice in slices {
        let spec = source.file.spec(slice.tensor).at(&source.name)?;
        out.row(&ContentRow::plain(spec, slice.rows.end - slice.rows.start))
            .at("stdout")?;
    }
    end(out)
}

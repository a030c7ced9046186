//! Planes through three prompts: three distance fields, each in its own prompt's context, and the container that holds them.

use crate::cli::Args;
use crate::engine::Engine;
use crate::pairs::{self, Prompt};
use crate::plan::{Opened, Plan};
use crate::report::{Slice, TensorRow};
use acts::{Dtype, Header, TensorSpec};
use numerics::regions::{self, Plane};
use process::{Error, Existing, Output, Progress, Result, ResultExt};
use records::dataset::InputFormat;
use std::path::{Path, PathBuf};

/// The paper's window around the three prompts.
const FROM: f64 = -0.25;
const TO: f64 = 1.25;

pub struct Triple {
    pub id: String,
    prompts: [Prompt; 3],
}

pub fn read(path: &Path, format: Option<InputFormat>, digests: &mut Vec<String>) -> Result<Vec<Triple>> {
    let rows = pairs::rows(path, format, digests)?;
    let triple = |row| -> records::Result<Triple> {
        let prompt = |key| pairs::prompt(row, key);
        Ok(Triple {
            id: row.id()?,
            prompts: [prompt("a")?, prompt("b")?, prompt("c")?],
        })
    };
    rows.iter().map(|row| triple(row).at(path.display())).collect()
}

/// All slices of one model, layer by layer. Slices are few and whole: they belong to shard 0.
pub fn run(plan: &Plan, opened: &Opened, engine: &Engine, progress: &Progress) -> Result<Vec<Slice>> {
    let mut slices = Vec::new();
    if !plan.shard.owns(0) {
        return Ok(slices);
    }
    for triple in &plan.triples {
        let refuse = |cause: String| Error::input(format!("slice {}", triple.id), cause);
        let tokens: Vec<Vec<u32>> = triple
            .prompts
            .iter()
            .map(|prompt| opened.speller.tokens(prompt).map_err(refuse))
            .collect::<Result<_>>()?;
        let limit = opened.config.position_count;
        if let Some(count) = tokens.iter().map(Vec::len).find(|&count| count < 2 || count > limit) {
            return Err(refuse(format!("a prompt has {count} tokens; 2 to {limit} can be run")));
        }
        for &layer in &opened.layers {
            slices.push(slice(plan, opened, engine, &triple.id, &tokens, layer)?);
            progress.advance(3 * (plan.slice_steps * plan.slice_steps) as u64);
        }
    }
    Ok(slices)
}

fn slice(plan: &Plan, opened: &Opened, engine: &Engine, id: &str, tokens: &[Vec<u32>], layer: usize) -> Result<Slice> {
    let prompts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let corners = engine.clean(&prompts, layer).at(&opened.name)?;
    let Some(plane) = Plane::through(&corners[0], &corners[1], &corners[2]) else {
        return Err(Error::input(
            format!("slice {id}"),
            "the three activations lie on one line and span no plane",
        ));
    };
    let axis: Vec<f64> = (0..plan.slice_steps)
        .map(|i| FROM + (TO - FROM) * i as f64 / (plan.slice_steps - 1) as f64)
        .collect();
    let mut prefixes = engine.prefixes(&prompts).at(&opened.name)?;
    let mut fields: Vec<Vec<f64>> = Vec::new();
    for (owner, corner) in corners.iter().enumerate() {
        let mut own = None;
        engine
            .answers(
                &mut prefixes,
                &[owner],
                std::slice::from_ref(corner),
                layer,
                false,
                |_, answer| own = Some(answer.read),
            )
            .at(&opened.name)?;
        let Some(own) = own else {
            return Err(Error::bug("slice", "a prompt has no answer"));
        };
        let places: Vec<(f64, f64)> = axis
            .iter()
            .flat_map(|&beta| axis.iter().map(move |&alpha| (alpha, beta)))
            .collect();
        let mut field = Vec::with_capacity(places.len());
        for places in places.chunks(plan.batch_rows) {
            process::signals::check()?;
            let points: Vec<Vec<f32>> = places.iter().map(|&(alpha, beta)| plane.point(alpha, beta)).collect();
            engine
                .answers(
                    &mut prefixes,
                    &vec![owner; points.len()],
                    &points,
                    layer,
                    false,
                    |_, answer| field.push(regions::distance(&answer.read, &own)),
                )
                .at(&opened.name)?;
        }
        fields.push(field);
    }
    let largest = |field: &[f64]| field.iter().copied().fold(0.0, f64::max);
    let scaled = |field: &[f64]| -> Vec<Vec<f32>> {
        let most = largest(field);
        let scale = if most > 0.0 { most } else { 1.0 };
        field
            .chunks(axis.len())
            .map(|row| row.iter().map(|d| (d / scale) as f32).collect())
            .collect()
    };
    Ok(Slice {
        id: id.to_string(),
        model_digest: opened.model_digest.clone(),
        layer_index: layer,
        read: plan.read,
        read_layer_index: opened.read_layer,
        alpha: axis.clone(),
        beta: axis.clone(),
        c_alpha: plane.foot,
        max_a: largest(&fields[0]),
        max_b: largest(&fields[1]),
        max_c: largest(&fields[2]),
        field_a: scaled(&fields[0]),
        field_b: scaled(&fields[1]),
        field_c: scaled(&fields[2]),
    })
}

/// Writes `slice.a`, `slice.b` and `slice.c`: rows by β within a slice, slices in the order of their records. Gives the tensor rows.
pub fn container(args: &Args, plan: &Plan, digest: &str, path: &Path, slices: &[Slice]) -> Result<Vec<TensorRow>> {
    let name = path.display().to_string();
    let inputs: Vec<PathBuf> = args.slice.iter().cloned().collect();
    let output = Output::create_binary(path, Existing::from_flags(args.output.force, false), &inputs)?;
    let mut header = Header::new(process::tool_name(), process::VERSION, digest, None);
    let names = ["slice.a", "slice.b", "slice.c"];
    header.tensors = names
        .map(|tensor| TensorSpec::new(tensor, Dtype::F32, &[plan.slice_steps as u64]))
        .to_vec();
    header.fix_blocks().at(&name)?;
    let mut writer = acts::Writer::new(output, header, 1).at(&name)?;
    for slice in slices {
        for (tensor, field) in [&slice.field_a, &slice.field_b, &slice.field_c].into_iter().enumerate() {
            for row in field {
                writer.push_f32(tensor, row).at(&name)?;
            }
        }
    }
    let (output, written) = writer.finish().at(&name)?;
    output.commit()?;
    if path.as_os_str() == "-" {
        return Ok(Vec::new());
    }
    let tensor = |(name, summary): (&'static str, &acts::TensorSummary)| TensorRow {
        name,
        path: records::RecordPath(path.to_path_buf()),
        shape: [summary.row_count, plan.slice_steps as u64],
        dtype: "f32",
        digest: format!("blake3:{}", process::hex(&summary.content_digest)),
    };
    Ok(names.into_iter().zip(&written.tensors).map(tensor).collect())
}

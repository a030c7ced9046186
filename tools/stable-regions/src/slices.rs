//! Planes through three prompts: three distance fields, each in its own prompt's context, and the container that holds them.

use crate::engine::{Engine, Prefixes};
use crate::plan::{Model, ModelPlan, Opened, Plan};
use crate::report::TensorRow;
use crate::triples::Triple;
use acts::{Dtype, Header, TensorSpec};
use numerics::regions::{self, Plane};
use process::{Error, Output, Progress, Result, ResultExt};
use records::Slice;
use std::path::Path;

/// The paper's window around the three prompts.
const FROM: f64 = -0.25;
const TO: f64 = 1.25;

/// The slices of one model.
pub struct Slices<'a> {
    pub plan: &'a Plan,
    pub about: &'a ModelPlan,
    pub model: &'a Model,
    pub engine: &'a Engine<'a>,
}

impl Slices<'_> {
    /// Layer by layer. Slices are few and whole: they belong to shard 0.
    pub fn all(&self, opened: &Opened, progress: &Progress) -> Result<Vec<Slice>> {
        let mut slices = Vec::new();
        if !opened.shard.owns(0) {
            return Ok(slices);
        }
        for triple in &opened.triples {
            let tokens = self.tokens(triple)?;
            for &layer in &self.about.layers {
                slices.push(self.slice(&triple.id, &tokens, layer)?);
                progress.advance(3 * (self.plan.slice_steps * self.plan.slice_steps) as u64);
            }
        }
        Ok(slices)
    }

    fn tokens(&self, triple: &Triple) -> Result<Vec<Vec<u32>>> {
        let refuse = |cause: String| Error::input(format!("slice {}", triple.id), cause);
        let spelled = triple.prompts.iter().map(|prompt| self.model.speller.tokens(prompt));
        let tokens = spelled
            .map(|tokens| tokens.map_err(refuse))
            .collect::<Result<Vec<_>>>()?;
        let limit = self.model.checkpoint.config().position_count;
        match tokens.iter().map(Vec::len).find(|&count| count < 2 || count > limit) {
            Some(count) => Err(refuse(format!("a prompt has {count} tokens; 2 to {limit} can be run"))),
            None => Ok(tokens),
        }
    }

    fn slice(&self, id: &str, tokens: &[Vec<u32>], layer: usize) -> Result<Slice> {
        let prompts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let corners = self.engine.clean(&prompts, layer).at(&self.model.name)?;
        let Some(plane) = Plane::through(&corners[0], &corners[1], &corners[2]) else {
            return Err(Error::input(
                format!("slice {id}"),
                "the three activations lie on one line and span no plane",
            ));
        };
        let axis = self.axis();
        let mut prefixes = self.engine.prefixes(&prompts).at(&self.model.name)?;
        let mut field = |owner: usize| self.field(&mut prefixes, owner, &corners[owner], &plane, &axis, layer);
        let ((max_a, field_a), (max_b, field_b), (max_c, field_c)) = (field(0)?, field(1)?, field(2)?);
        Ok(Slice {
            id: id.to_string(),
            model_digest: self.about.model_digest.clone(),
            layer_index: layer,
            read: process::word(self.plan.read),
            read_layer_index: self.about.read_layer,
            alpha: axis.clone(),
            beta: axis,
            c_alpha: plane.foot,
            max_a,
            max_b,
            max_c,
            field_a,
            field_b,
            field_c,
        })
    }

    fn axis(&self) -> Vec<f64> {
        let steps = self.plan.slice_steps;
        (0..steps)
            .map(|i| FROM + (TO - FROM) * i as f64 / (steps - 1) as f64)
            .collect()
    }

    /// Distances from one prompt's own read-out over the plane, in its context: the largest, and all divided by it.
    fn field(
        &self,
        prefixes: &mut Prefixes,
        owner: usize,
        corner: &Vec<f32>,
        plane: &Plane,
        axis: &[f64],
        layer: usize,
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        let mut own = None;
        let corner = std::slice::from_ref(corner);
        self.engine
            .answers(prefixes, &[owner], corner, layer, false, |_, answer| {
                own = Some(answer.read)
            })
            .at(&self.model.name)?;
        let own = own.ok_or_else(|| Error::bug("slice", "a prompt has no answer"))?;
        let places: Vec<(f64, f64)> = axis
            .iter()
            .flat_map(|&beta| axis.iter().map(move |&alpha| (alpha, beta)))
            .collect();
        let mut distances = Vec::with_capacity(places.len());
        for places in places.chunks(self.plan.batch_rows) {
            process::signals::check()?;
            let points: Vec<Vec<f32>> = places.iter().map(|&(alpha, beta)| plane.point(alpha, beta)).collect();
            let owners = vec![owner; points.len()];
            self.engine
                .answers(prefixes, &owners, &points, layer, false, |_, answer| {
                    distances.push(regions::distance(&answer.read, &own))
                })
                .at(&self.model.name)?;
        }
        let largest = distances.iter().copied().fold(0.0, f64::max);
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let rows = distances.chunks(axis.len());
        let scaled = rows.map(|row| row.iter().map(|d| (d / scale) as f32).collect());
        Ok((largest, scaled.collect()))
    }
}

/// Writes `slice.a`, `slice.b` and `slice.c`: rows by β within a slice, slices in the order of their records. Gives the tensor rows.
pub fn write(output: Output, path: &Path, plan: &Plan, slices: &[Slice]) -> Result<(Output, Vec<TensorRow>)> {
    let name = output.name().to_owned();
    let steps = plan.slice_steps as u64;
    let mut header = Header::new(process::tool_name(), process::VERSION, &plan.digest()?, None);
    let names = ["slice.a", "slice.b", "slice.c"];
    header.tensors = names
        .map(|tensor| TensorSpec::new(tensor, Dtype::F32, &[steps]))
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
    let tensor = |(name, summary): (&'static str, &acts::TensorSummary)| TensorRow {
        name,
        path: records::RecordPath(path.to_path_buf()),
        shape: [summary.row_count, steps],
        dtype: "f32",
        digest: format!("blake3:{}", process::hex(&summary.content_digest)),
    };
    Ok((output, names.into_iter().zip(&written.tensors).map(tensor).collect()))
}

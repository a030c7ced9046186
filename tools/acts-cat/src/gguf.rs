//! Directions as a control vector: the GGUF file whose `direction.K` llama.cpp adds to what block K gives, at every position.
//!
//! Such a file has no direction for block 0: one is left out, and the caller says so. What cannot be said as an addition to the residual
//! stream between two blocks is refused.

use crate::slice::Slice;
use crate::source::Source;
use acts::{Site, TensorSpec};
use process::{Error, Result, ResultExt};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;

/// Tensors begin at multiples of this, the format's default.
const ALIGNMENT: usize = 32;
const TYPE_U32: u32 = 4;
const TYPE_STRING: u32 = 8;
const TENSOR_F32: u32 = 0;

/// What is added behind each block, by its 0-based index.
#[derive(Default)]
struct Directions(BTreeMap<u32, Vec<f64>>);

/// Writes the chosen tensors, or the additions of a steering plan; gives whether a direction of block 0 was left out.
pub fn write(source: &Source, slices: &[Slice], out: &mut impl Write, name: &str) -> Result<bool> {
    let refuse = |cause: String| Error::input(&source.name, cause);
    let mut directions = match source.file.header().tensor_index("steer") {
        Some(steer) => of_plan(source, steer)?,
        None => of_tensors(source, slices)?,
    };
    let dropped = directions.0.remove(&0).is_some();
    if directions.0.is_empty() {
        return Err(refuse(
            "holds no direction of a block after the first, and a control vector has no other".into(),
        ));
    }
    let family = source
        .file
        .header()
        .meta
        .get("family")
        .and_then(|family| family.as_str());
    out.write_all(&encode(&directions, family).map_err(refuse)?).at(name)?;
    Ok(dropped)
}

impl Directions {
    /// Adds a vector behind block `layer`; several of one block are summed, as the model would sum them.
    fn add(&mut self, layer: u32, vector: &[f64], coefficient: f64) -> std::result::Result<(), String> {
        let width = self.0.values().next().map_or(vector.len(), Vec::len);
        if width != vector.len() {
            return Err(format!("has directions of {width} and of {} numbers", vector.len()));
        }
        let sum = self.0.entry(layer).or_insert_with(|| vec![0.0; width]);
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += coefficient * x);
        Ok(())
    }
}

/// Each chosen tensor as one direction.
fn of_tensors(source: &Source, slices: &[Slice]) -> Result<Directions> {
    let mut directions = Directions::default();
    for slice in slices {
        let spec = slice.spec(source)?;
        let refuse = |cause: String| Error::input(&source.name, format!("{}: {cause}", spec.name));
        let rows = slice.rows.end - slice.rows.start;
        if rows != 1 {
            return Err(refuse(format!("has {rows} rows, a direction is one")).hint("choose one with --rows A:B"));
        }
        let block = block_of(spec).map_err(refuse)?;
        directions
            .add(block, &vector(source, slice.tensor, slice.rows.start)?, 1.0)
            .map_err(refuse)?;
    }
    Ok(directions)
}

/// The block behind which a tensor's numbers lie.
fn block_of(spec: &TensorSpec) -> std::result::Result<u32, String> {
    let numbered = || spec.name.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
    let layer = spec.layer_index.or_else(numbered);
    let layer = layer.ok_or("says no layer in its name")?;
    behind(spec.site, layer).ok_or_else(|| format!("lies inside block {layer}, not between blocks"))
}

/// The block whose output `site` of `layer` is. What enters block 0 comes from none; it is dropped as a direction of block 0 is.
fn behind(site: Option<Site>, layer: u32) -> Option<u32> {
    match site {
        None | Some(Site::ResidPost) => Some(layer),
        Some(Site::ResidPre) => Some(layer.saturating_sub(1)),
        _ => None,
    }
}

fn vector(source: &Source, tensor: usize, row: u64) -> Result<Vec<f64>> {
    let spec = source.file.spec(tensor).at(&source.name)?;
    let bytes = source.file.to_bytes(tensor, row..row + 1).at(&source.name)?;
    spec.widen(&bytes).at(&source.name)
}

/// What matters here of an operation in a plan (man 5 acts).
#[derive(Deserialize)]
struct Operation {
    site: String,
    layers: Vec<u32>,
    positions: String,
    op: String,
    coefficient: f64,
    mode: Option<String>,
    gate: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Operations {
    operations: Vec<Operation>,
}

fn of_plan(source: &Source, steer: usize) -> Result<Directions> {
    let refuse = |cause: String| Error::input(&source.name, cause);
    let text = source
        .file
        .to_bytes(steer, 0..source.file.row_count(steer))
        .at(&source.name)?;
    let value = json::document(&text).map_err(|fault| refuse(format!("steer: {fault}")))?;
    let plan: Operations = serde_json::from_value(value.into()).map_err(|error| refuse(format!("steer: {error}")))?;
    let mut directions = Directions::default();
    for (index, operation) in plan.operations.iter().enumerate() {
        let of_operation = |cause: String| refuse(format!("operation {index}: {cause}"));
        let (site, coefficient) = operation.addition().map_err(of_operation)?;
        let name = format!("steer.{index}.vector");
        let tensor = source.file.tensor(&name).at(&source.name)?;
        let mut vector = vector(source, tensor, 0)?;
        if operation.mode.as_deref() == Some("unit") {
            let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
            vector.iter_mut().for_each(|x| *x /= norm);
        }
        for layer in &operation.layers {
            let block =
                behind(Some(site), *layer).ok_or_else(|| of_operation(format!("site {site} lies inside a block")))?;
            directions.add(block, &vector, coefficient).map_err(of_operation)?;
        }
    }
    Ok(directions)
}

impl Operation {
    /// Site and coefficient of a plain addition; why it is none.
    fn addition(&self) -> std::result::Result<(Site, f64), String> {
        let refuse = |what: &str| {
            Err(format!(
                "{what} is no addition at every position, which is all that a control vector does"
            ))
        };
        if self.op != "add" {
            return refuse(&format!("op {:?}", self.op));
        }
        if self.positions != "all" {
            return refuse(&format!("positions {:?}", self.positions));
        }
        if self.gate.is_some() {
            return refuse("a gate");
        }
        Ok((self.site.parse()?, self.coefficient))
    }
}

/// The whole file.
fn encode(directions: &Directions, family: Option<&str>) -> std::result::Result<Vec<u8>, String> {
    let count = directions.0.len();
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((count as u64).to_le_bytes());
    head.extend((2 + u64::from(family.is_some())).to_le_bytes());
    text_value(&mut head, "general.architecture", "controlvector");
    if let Some(family) = family {
        text_value(&mut head, "controlvector.model_hint", family);
    }
    text(&mut head, "controlvector.layer_count");
    head.extend(TYPE_U32.to_le_bytes());
    head.extend((count as u32).to_le_bytes());
    let mut data: Vec<u8> = Vec::new();
    for (layer, values) in &directions.0 {
        text(&mut head, &format!("direction.{layer}"));
        head.extend(1u32.to_le_bytes());
        head.extend((values.len() as u64).to_le_bytes());
        head.extend(TENSOR_F32.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        for value in values {
            let single = *value as f32;
            if !single.is_finite() {
                return Err(format!(
                    "the direction of layer {layer} holds {value}, which f32 does not"
                ));
            }
            data.extend(single.to_le_bytes());
        }
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head.append(&mut data);
    Ok(head)
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

fn text_value(head: &mut Vec<u8>, key: &str, value: &str) {
    text(head, key);
    head.extend(TYPE_STRING.to_le_bytes());
    text(head, value);
}

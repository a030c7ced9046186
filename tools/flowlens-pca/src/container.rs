//! The containers this tool writes and reads back: a basis (means, components, eigenvalues) and the directions between groups.

use crate::cli::Center;
use crate::fit::{Fit, Part};
use crate::plan::Plan;
use crate::source::Source;
use acts::{Dtype, Header, Role, TensorSpec};
use numerics::spectrum;
use process::{Error, Existing, Output, Result, ResultExt};
use std::path::{Path, PathBuf};

/// A fitted basis, as saved by `--basis`.
pub struct Basis {
    pub name: String,
    pub digest: String,
    pub mean: Vec<f64>,
    /// (components, width).
    pub components: Vec<f64>,
    /// (layer, mean, components) where it was fitted per layer too.
    pub layers: Vec<(u32, Vec<f64>, Vec<f64>)>,
    /// The component whose number is the intrinsic dimension.
    pub component_id: Option<usize>,
}

pub fn is_basis(path: &Path, no_map: bool) -> Result<bool> {
    let file = open(path, no_map)?;
    let has = file
        .header()
        .tensors
        .iter()
        .any(|spec| spec.role == Role::Basis && spec.name.starts_with("basis."));
    Ok(has)
}

fn open(path: &Path, no_map: bool) -> Result<acts::File> {
    if path == Path::new("-") {
        return Err(Error::usage("-", "stdin is an input, not what it is compared with"));
    }
    let options = acts::OpenOptions {
        map: !no_map,
        ..acts::OpenOptions::default()
    };
    acts::File::open(path, options).at(path.display())
}

impl Basis {
    pub fn read(path: &Path, no_map: bool) -> Result<Self> {
        let file = open(path, no_map)?;
        let name = path.display().to_string();
        let read = |tensor: &str| -> Result<Vec<f64>> {
            let index = file.tensor(tensor).at(&name)?;
            file.to_vec::<f64>(index, 0..file.row_count(index)).at(&name)
        };
        let mut layers = Vec::new();
        for spec in &file.header().tensors {
            if let Some(layer) = spec
                .name
                .strip_prefix("basis.")
                .and_then(|rest| rest.strip_suffix(".mean"))
                && let Ok(layer) = layer.parse::<u32>()
            {
                layers.push((layer, read(&spec.name)?, read(&format!("basis.{layer}.components"))?));
            }
        }
        // A basis of the concatenated layout lives in its layers alone.
        let (mean, components) = match file.tensor("basis.mean") {
            Ok(_) => (read("basis.mean")?, read("basis.components")?),
            Err(_) => (Vec::new(), Vec::new()),
        };
        let component_id = file
            .header()
            .meta
            .get("component_id")
            .and_then(serde_json::Value::as_u64);
        Ok(Self {
            digest: file.header().plan_digest.clone().unwrap_or_default(),
            name,
            mean,
            components,
            layers,
            component_id: component_id.and_then(|id| usize::try_from(id).ok()),
        })
    }
}

/// One tensor to write: rows of f64.
struct Tensor {
    spec: TensorSpec,
    rows: Vec<f64>,
}

pub fn write_basis(
    path: &Path,
    existing: Existing,
    inputs: &[PathBuf],
    plan: &Plan,
    source: &Source,
    fit: &Fit,
    component_id: Option<usize>,
) -> Result<()> {
    let count = component_id.unwrap_or(1).max(3);
    let mut tensors = Vec::new();
    if fit.stack.segments.is_none() {
        let width = source.layers[0].width;
        push_part(&mut tensors, "basis", None, fit, &fit.stack.all, width, count);
    }
    let per_layer = plan.center == Center::Layer || fit.stack.segments.is_some();
    if per_layer {
        for (at, (layer, one)) in source.layers.iter().zip(&fit.layers).enumerate() {
            let mut part = one.all.clone();
            if let Some(segments) = &fit.stack.segments {
                // Side by side, a component's part in this layer; its length is its share.
                part.spectrum.components = segments[at].clone();
                part.spectrum.values = fit.stack.all.spectrum.values.clone();
            }
            push_part(
                &mut tensors,
                &format!("basis.{}", one.index),
                Some(one.index),
                fit,
                &part,
                layer.width,
                count,
            );
        }
    }
    let mut header = header(plan, source)?;
    if let Some(id) = component_id {
        header.meta.insert("component_id".into(), id.into());
    }
    write(path, existing, inputs, header, tensors)
}

fn push_part(
    tensors: &mut Vec<Tensor>,
    name: &str,
    layer_index: Option<u32>,
    fit: &Fit,
    part: &Part,
    width: usize,
    count: usize,
) {
    let kept = part.spectrum.width.min(part.summary.mean.len()).max(1);
    let components: Vec<f64> = part
        .spectrum
        .components
        .chunks_exact(kept)
        .take(count)
        .flat_map(|row| fit.widen(row, width))
        .collect();
    let component_count = components.len() / width;
    let mut push = |what: &str, shape: &[u64], rows: Vec<f64>| {
        let mut spec = TensorSpec::new(format!("{name}.{what}"), Dtype::F64, shape).role(Role::Basis);
        spec.layer_index = layer_index;
        tensors.push(Tensor { spec, rows });
    };
    push("mean", &[width as u64], fit.widen(&part.summary.mean, width));
    push("components", &[width as u64], components);
    push(
        "eigenvalues",
        &[],
        part.spectrum.values.iter().take(component_count).copied().collect(),
    );
}

/// The unit difference of the contrasted groups' means, one row per layer's tensor `direction.<l>`.
pub fn write_directions(
    path: &Path,
    existing: Existing,
    inputs: &[PathBuf],
    plan: &Plan,
    source: &Source,
    fit: &Fit,
) -> Result<()> {
    let mut tensors = Vec::new();
    for (layer, one) in source.layers.iter().zip(&fit.layers) {
        let along = one
            .contrast
            .as_ref()
            .and_then(|contrast| contrast.along.as_ref())
            .ok_or_else(|| {
                Error::input(
                    source.name(),
                    format!(
                        "layer {}: the two groups have the same mean, so no direction",
                        one.index
                    ),
                )
            })?;
        let width = layer.width;
        let mut spec =
            TensorSpec::new(format!("direction.{}", one.index), Dtype::F64, &[width as u64]).role(Role::Basis);
        spec.layer_index = Some(one.index);
        tensors.push(Tensor {
            spec,
            rows: fit.widen(&along.direction, width),
        });
    }
    let mut header = header(plan, source)?;
    header.meta.insert("group_a".into(), plan.group_a.clone().into());
    header.meta.insert("group_b".into(), plan.group_b.clone().into());
    write(path, existing, inputs, header, tensors)
}

fn header(plan: &Plan, source: &Source) -> Result<Header> {
    let from = source.parts[0].file.header();
    let mut header = Header::new(plan.tool, plan.version, &process::plan::digest(plan)?, None);
    header.input_digest = Some(plan.input_digest.clone());
    header.model_digest.clone_from(&from.model_digest);
    header.tokenizer_digest.clone_from(&from.tokenizer_digest);
    header.template_digest.clone_from(&from.template_digest);
    header.meta.insert("site".into(), source.site.clone().into());
    header.meta.insert("layer_count".into(), source.layer_count.into());
    header
        .meta
        .insert("layout".into(), serde_json::to_value(plan.layout).at("plan")?);
    header
        .meta
        .insert("center".into(), serde_json::to_value(plan.center).at("plan")?);
    Ok(header)
}

fn write(path: &Path, existing: Existing, inputs: &[PathBuf], mut header: Header, tensors: Vec<Tensor>) -> Result<()> {
    let name = path.display().to_string();
    for tensor in &tensors {
        let row = tensor.spec.row_shape.iter().product::<u64>().max(1);
        header
            .tensors
            .push(tensor.spec.clone().rows(tensor.rows.len() as u64 / row));
    }
    header.fix_blocks().at(&name)?;
    let output = Output::create_binary(path, existing, inputs)?;
    let mut writer = acts::Writer::new(output, header, 1).at(&name)?;
    for (index, tensor) in tensors.iter().enumerate() {
        writer.push_exact::<f64>(index, &tensor.rows).at(&name)?;
    }
    let (output, _) = writer.finish().at(&name)?;
    output.commit()
}

/// Components that were saved, in the dimensions that are kept now.
pub fn narrow(rows: &[f64], width: usize, columns: Option<&[usize]>) -> Vec<f64> {
    let Some(columns) = columns else { return rows.to_vec() };
    let mut kept: Vec<f64> = rows
        .chunks_exact(width)
        .flat_map(|row| columns.iter().map(|column| row[*column]))
        .collect();
    spectrum::normalise(&mut kept, columns.len());
    kept
}

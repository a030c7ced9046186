//! The containers this tool writes: a basis (means, components, eigenvalues) and the directions between groups.

use crate::cli::Center;
use crate::fit::{Fit, Part};
use crate::plan::Plan;
use crate::source::Source;
use acts::{Dtype, Header, Role, TensorSpec};
use process::{Error, Output, Result, ResultExt};

/// One tensor to write: rows of f64.
struct Tensor {
    spec: TensorSpec,
    rows: Vec<f64>,
}

/// Writes what `--against` reads back.
pub fn write_basis(
    output: Output,
    plan: &Plan,
    source: &Source,
    fit: &Fit,
    component_id: Option<usize>,
) -> Result<Output> {
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
    write(output, header, tensors)
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
pub fn write_directions(output: Output, plan: &Plan, source: &Source, fit: &Fit) -> Result<Output> {
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
    write(output, header, tensors)
}

fn header(plan: &Plan, source: &Source) -> Result<Header> {
    let from = source.parts[0].file.header();
    let mut header = Header::new(plan.tool, plan.version, &process::plan::digest(plan)?, None);
    header.input_digest = Some(plan.input_digest.clone());
    header.model_digest.clone_from(&from.model_digest);
    header.tokenizer_digest.clone_from(&from.tokenizer_digest);
    header.template_digest.clone_from(&from.template_digest);
    header.meta.insert("site".into(), source.site.clone().into());
    if let Some(count) = source.layer_count() {
        header.meta.insert("layer_count".into(), count.into());
    }
    header
        .meta
        .insert("layout".into(), serde_json::to_value(plan.layout).at("plan")?);
    header
        .meta
        .insert("center".into(), serde_json::to_value(plan.center).at("plan")?);
    Ok(header)
}

fn write(output: Output, mut header: Header, tensors: Vec<Tensor>) -> Result<Output> {
    let name = output.name().to_owned();
    for tensor in &tensors {
        let row = tensor.spec.row_shape.iter().product::<u64>().max(1);
        header
            .tensors
            .push(tensor.spec.clone().rows(tensor.rows.len() as u64 / row));
    }
    header.fix_blocks().at(&name)?;
    let mut writer = acts::Writer::new(output, header, 1).at(&name)?;
    for (index, tensor) in tensors.iter().enumerate() {
        writer.push_exact::<f64>(index, &tensor.rows).at(&name)?;
    }
    let (output, _) = writer.finish().at(&name)?;
    Ok(output)
}

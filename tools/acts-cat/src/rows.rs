//! Rows of a container in every output format. Memory holds one step of rows, whatever the tensor's size.

use crate::plan::Plan;
use crate::report::{RowRecord, Values};
use crate::slice::{RowTables, Slice, only};
use crate::source::Source;
use crate::{npy, safetensors};
use acts::{Dtype, Header, Role, TensorSpec, Writer};
use process::{Output, Result, ResultExt};
use std::io::Write;

/// One `row` record per row; a table of samples gives its own records.
pub fn write_jsonl<W: Write>(
    source: &Source,
    slices: &[Slice],
    out: &mut records::Writer<W>,
    name: &str,
) -> Result<()> {
    for slice in slices {
        let spec = slice.spec(source)?;
        if spec.role == Role::Samples {
            write_samples(source, slice, out, name)?;
            continue;
        }
        let tables = RowTables::of(source, slice.tensor)?;
        let width = usize::try_from(spec.row_elements().at(&source.name)?).unwrap_or(usize::MAX);
        slice.for_each_step(source, |rows, bytes| {
            let sample_index = RowTables::column(source, tables.sample_index, &rows)?;
            let position = RowTables::column(source, tables.position, &rows)?;
            let token_id = RowTables::column(source, tables.token_id, &rows)?;
            let numbers = Numbers::widen(spec, bytes).at(&source.name)?;
            for (offset, row_index) in rows.enumerate() {
                let cell = |column: &Option<Vec<u32>>| column.as_ref().and_then(|column| column.get(offset)).copied();
                let record = RowRecord {
                    tensor: &spec.name,
                    row_index,
                    sample_index: cell(&sample_index),
                    position: cell(&position),
                    token_id: cell(&token_id),
                    values: numbers.row(offset, width),
                };
                out.row(&record).at(name)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Elements in the widest type that their own values print the same from.
enum Numbers {
    Single(Vec<f32>),
    Double(Vec<f64>),
    Integer(Vec<i64>),
}

impl Numbers {
    fn widen(spec: &TensorSpec, bytes: &[u8]) -> acts::Result<Numbers> {
        match spec.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => spec.widen(bytes).map(Numbers::Single),
            Dtype::F64 => spec.widen(bytes).map(Numbers::Double),
            Dtype::U32 | Dtype::I64 | Dtype::U8 => spec.widen(bytes).map(Numbers::Integer),
        }
    }

    fn row(&self, offset: usize, width: usize) -> Values<'_> {
        let range = offset * width..(offset + 1) * width;
        match self {
            Numbers::Single(values) => Values::Single(&values[range]),
            Numbers::Double(values) => Values::Double(&values[range]),
            Numbers::Integer(values) => Values::Integer(&values[range]),
        }
    }
}

fn write_samples<W: Write>(source: &Source, slice: &Slice, out: &mut records::Writer<W>, name: &str) -> Result<()> {
    for sample in samples(source, slice.tensor)? {
        out.row(&sample).at(name)?;
    }
    Ok(())
}

/// The sample records of a container, in its order. `row_start` and `row_count` are the container's own.
pub fn samples(source: &Source, tensor: usize) -> Result<Vec<records::Sample>> {
    let text = source
        .file
        .to_bytes(tensor, 0..source.file.row_count(tensor))
        .at(&source.name)?;
    records::table_rows(&text).at(format!("{} samples", source.name))
}

/// The elements as they are stored, without their compression.
pub fn write_raw(source: &Source, slices: &[Slice], out: &mut Output, name: &str) -> Result<()> {
    for slice in slices {
        slice.for_each_step(source, |_, bytes| out.write_all(bytes).at(name))?;
    }
    Ok(())
}

fn shape(spec: &TensorSpec, slice: &Slice) -> Vec<u64> {
    std::iter::once(slice.rows.end - slice.rows.start)
        .chain(spec.row_shape.iter().copied())
        .collect()
}

pub fn write_npy(source: &Source, slices: &[Slice], out: &mut Output, name: &str) -> Result<()> {
    let slice = only(source, slices, "npy")?;
    let spec = slice.spec(source)?;
    // numpy has no bf16; widening to f32 loses nothing.
    let dtype = if spec.dtype == Dtype::Bf16 {
        Dtype::F32
    } else {
        spec.dtype
    };
    out.write_all(&npy::header(dtype, &shape(spec, slice))?).at(name)?;
    if dtype == spec.dtype {
        return write_raw(source, slices, out, name);
    }
    slice.for_each_step(source, |_, bytes| {
        let values = spec.widen::<f32>(bytes).at(&source.name)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).at(name)
    })
}

pub fn write_safetensors(source: &Source, slices: &[Slice], out: &mut Output, name: &str) -> Result<()> {
    let tensors = slices
        .iter()
        .map(|slice| {
            slice
                .spec(source)
                .map(|spec| (spec.name.clone(), spec.dtype, shape(spec, slice)))
        })
        .collect::<Result<Vec<_>>>()?;
    out.write_all(&safetensors::header(&tensors)?).at(name)?;
    write_raw(source, slices, out, name)
}

/// A container of the chosen rows, in the chosen codec and element type.
pub fn write_acts(
    source: &Source,
    slices: &[Slice],
    plan: &Plan,
    out: Output,
    name: &str,
) -> Result<(Output, acts::Summary)> {
    let header = derived_header(source, slices, plan)?;
    let mut writer = Writer::new(out, header, plan.threads).at(name)?;
    for (target, slice) in slices.iter().enumerate() {
        let spec = slice.spec(source)?;
        let stored = writer.header().tensors[target].dtype;
        slice.for_each_step(source, |_, bytes| {
            if stored == spec.dtype {
                writer.push(target, bytes)
            } else if spec.fits::<f32>() {
                writer.push_f32(target, &spec.widen(bytes).at(&source.name)?)
            } else {
                writer.push_f64(target, &spec.widen(bytes).at(&source.name)?)
            }
            .at(name)
        })?;
    }
    writer.finish().at(name)
}

fn derived_header(source: &Source, slices: &[Slice], plan: &Plan) -> Result<Header> {
    let from = source.file.header();
    let mut contents = Vec::new();
    let mut tensors = Vec::new();
    for slice in slices {
        let mut spec = slice.spec(source)?.clone();
        contents.push((
            spec.name.clone(),
            acts::hex(&source.file.summary(slice.tensor).at(&source.name)?.content_digest),
            slice.rows.clone(),
        ));
        let is_activation = matches!(spec.role, Role::Activations | Role::Data);
        match plan.store_dtype {
            Some(dtype) if is_activation && spec.dtype.is_float() => spec.dtype = dtype,
            _ => {}
        }
        spec.codec = plan.codec.unwrap_or(spec.codec);
        spec.level = plan.level.unwrap_or(spec.level);
        spec.row_count = Some(slice.rows.end - slice.rows.start);
        // Another codec or element type has another best block.
        spec.block_row_count = 0;
        tensors.push(spec);
    }
    let digest = process::plan::digest(&(process::tool_name(), process::VERSION, plan, &contents, &from.file_id))?;
    let mut header = Header::new(process::tool_name(), process::VERSION, &digest, None);
    header.tensors = tensors;
    header.salvaged = from.salvaged;
    header.input_digest.clone_from(&from.input_digest);
    header.model_digest.clone_from(&from.model_digest);
    header.tokenizer_digest.clone_from(&from.tokenizer_digest);
    header.template_digest.clone_from(&from.template_digest);
    header.compute.clone_from(&from.compute);
    header.groups.clone_from(&from.groups);
    header.sample_count = from.sample_count;
    header.meta.clone_from(&from.meta);
    let origin = serde_json::json!({"file_id": from.file_id, "tool": from.tool, "tool_version": from.tool_version});
    header.meta.insert("derived_from".into(), origin);
    header.fix_blocks().at(&source.name)?;
    Ok(header)
}

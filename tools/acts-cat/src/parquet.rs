//! One tensor as a Parquet table: its row number, its row tables where it has them, and a fixed-size list of its elements.
//! f16 and bf16 become f32, which loses nothing and which every reader knows.

use crate::slice::{self, RowTables, Slice};
use crate::source::Source;
use acts::{Dtype, TensorSpec};
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch, UInt8Array, UInt32Array,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use process::{Error, Output, Result, ResultExt};
use std::io::Write;
use std::sync::Arc;

pub fn write(source: &Source, slices: &[Slice], out: &mut Output, name: &str) -> Result<()> {
    let slice = slice::only(source, slices, "Parquet")?;
    let spec = slice.spec(source)?;
    let tables = RowTables::of(source, slice.tensor)?;
    let width = spec.row_elements().at(&source.name)?;
    let width = i32::try_from(width)
        .map_err(|_| Error::input(&source.name, format!("rows of {width} elements, Parquet holds 2^31-1")))?;
    let item = Arc::new(Field::new("item", element_type(spec.dtype), false));
    let columns = [
        ("sample_index", tables.sample_index),
        ("position", tables.position),
        ("token_id", tables.token_id),
    ];
    let columns: Vec<(&str, usize)> = columns
        .into_iter()
        .filter_map(|(name, table)| table.map(|table| (name, table)))
        .collect();
    let mut fields = vec![Field::new("row_index", DataType::UInt64, false)];
    fields.extend(
        columns
            .iter()
            .map(|(name, _)| Field::new(*name, DataType::UInt32, false)),
    );
    fields.push(Field::new(
        "values",
        DataType::FixedSizeList(Arc::clone(&item), width),
        false,
    ));
    let facts = [
        ("tensor", spec.name.clone()),
        ("dtype", spec.dtype.to_string()),
        ("row_shape", format!("{:?}", spec.row_shape)),
    ];
    let metadata: std::collections::HashMap<String, String> = facts
        .into_iter()
        .map(|(key, value)| (format!("flowlens.{key}"), value))
        .collect();
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));

    let level = ZstdLevel::try_new(1).map_err(|error| Error::bug("parquet", error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_enabled(false)
        .set_created_by(format!("{} {}", process::tool_name(), process::VERSION))
        .build();
    // ArrowWriter says what failed as text; the error that decides the exit code is kept here.
    let sink = Sink { out, error: None };
    let mut writer = ArrowWriter::try_new(sink, Arc::clone(&schema), Some(properties)).at(name)?;
    slice.for_each_step(source, |rows, bytes| {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(rows.clone()))];
        for (_, table) in &columns {
            arrays.push(Arc::new(UInt32Array::from(
                source.file.to_vec::<u32>(*table, rows.clone()).at(&source.name)?,
            )));
        }
        let values = elements(spec, bytes).at(&source.name)?;
        let list = FixedSizeListArray::try_new(Arc::clone(&item), width, values, None)
            .map_err(|error| Error::bug("parquet", error))?;
        arrays.push(Arc::new(list));
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|error| Error::bug("parquet", error))?;
        let written = writer.write(&batch).and_then(|()| writer.flush());
        written.map_err(|error| refusal(writer.inner_mut(), error, name))
    })?;
    if let Err(error) = writer.finish() {
        return Err(refusal(writer.inner_mut(), error, name));
    }
    Ok(())
}

fn refusal(sink: &mut Sink<'_>, error: parquet::errors::ParquetError, name: &str) -> Error {
    match sink.error.take() {
        Some(cause) => Error::from_source(name, &cause),
        None => Error::from_source(name, &error),
    }
}

struct Sink<'a> {
    out: &'a mut Output,
    error: Option<std::io::Error>,
}

impl Sink<'_> {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.map_err(|error| {
            let shown = error.raw_os_error().map_or_else(
                || std::io::Error::other(error.to_string()),
                std::io::Error::from_raw_os_error,
            );
            self.error = Some(error);
            shown
        })
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.out.write(bytes);
        self.note(result)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.out.flush();
        self.note(result)
    }
}

fn element_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F64 => DataType::Float64,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => DataType::Float32,
        Dtype::U32 => DataType::UInt32,
        Dtype::I64 => DataType::Int64,
        Dtype::U8 => DataType::UInt8,
    }
}

fn elements(spec: &TensorSpec, bytes: &[u8]) -> acts::Result<ArrayRef> {
    Ok(match spec.dtype {
        Dtype::F64 => Arc::new(Float64Array::from(spec.widen::<f64>(bytes)?)),
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Arc::new(Float32Array::from(spec.widen::<f32>(bytes)?)),
        Dtype::U32 => Arc::new(UInt32Array::from(spec.widen::<u32>(bytes)?)),
        Dtype::I64 => Arc::new(Int64Array::from(spec.widen::<i64>(bytes)?)),
        Dtype::U8 => Arc::new(UInt8Array::from(spec.widen::<u8>(bytes)?)),
    })
}

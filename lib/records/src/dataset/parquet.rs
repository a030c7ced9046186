//! Parquet, a few rows at a time, whatever the size of its row groups: Arrow batches to JSON values.

use std::fs::File;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Number, Value};

use super::{Found, Rows};
use crate::error::{Fault, Result};
use crate::limits::Limits;

/// BOUND: characters of what another crate says of a file.
const CAUSE_CHARS_MAX: usize = 300;
/// Rows decoded at once: small, because a text column may hold large texts.
const BATCH_ROWS: usize = 256;

pub(super) struct Columns {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    /// The next row of `batch`.
    next: usize,
    depth_max: usize,
    /// The last row asked for was decoded by Arrow; what is wrong with it is one of its cells.
    has_row: bool,
}

impl Columns {
    pub(super) fn new(file: File, limits: &Limits, fields: Option<&[String]>) -> Result<Columns> {
        guarded(|| Columns::opened(file, limits, fields)).unwrap_or_else(|fault| Err(fault.whole()))
    }

    fn opened(file: File, limits: &Limits, fields: Option<&[String]>) -> Result<Columns> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| fault_of(error).whole())?;
        let schema = builder.schema().clone();
        let limit = limits.json.key_count;
        if schema.fields().len() > limit {
            return Err(Fault::from(::json::Fault::KeyCountExceeded { limit }).whole());
        }
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name())) {
            return Err(Fault::ColumnDuplicate {
                key: twice.name().into(),
            }
            .whole());
        }
        let mask = match fields {
            None => ProjectionMask::all(),
            Some(fields) => {
                let wanted = schema
                    .fields()
                    .iter()
                    .enumerate()
                    .filter(|(_, field)| fields.contains(field.name()));
                ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index))
            }
        };
        let batches = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| fault_of(error).whole())?;
        Ok(Columns {
            batches,
            batch: None,
            next: 0,
            depth_max: limits.json.depth,
            has_row: false,
        })
    }
}

impl Rows for Columns {
    fn next_row(&mut self, index: u64) -> Result<Option<Found>> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.next < batch.num_rows()) {
                let row = self.next;
                self.next += 1;
                self.has_row = true;
                return guarded(|| record(batch, row, self.depth_max))
                    .flatten()
                    .map(|value| Some((None, value)))
                    .map_err(|fault| fault.at_row(index));
            }
            match guarded(|| self.batches.next()) {
                Err(fault) => {
                    self.has_row = false;
                    return Err(fault.at_row(index));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Ok(batch))) => {
                    self.batch = Some(batch);
                    self.next = 0;
                }
                Ok(Some(Err(error))) => {
                    self.has_row = false;
                    return Err(damaged(error).at_row(index));
                }
            }
        }
    }

    fn is_past_error(&self) -> bool {
        self.has_row
    }
}

/// A call of Arrow's crates, which take a file at its word in places and panic.
fn guarded<T>(call: impl FnOnce() -> T) -> std::result::Result<T, Fault> {
    foreign::guarded(call).ok_or_else(|| Fault::Damaged("the file contradicts itself (its reader panicked)".into()))
}

fn fault_of(error: parquet::errors::ParquetError) -> Fault {
    match error {
        parquet::errors::ParquetError::EOF(_) => Fault::Truncated(error.into()),
        parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => Fault::from_read(*error),
            Err(source) => damaged(source),
        },
        error => damaged(error),
    }
}

/// What Arrow's crates say quotes names of the file, which may hold anything and be of any length.
fn damaged(cause: impl std::fmt::Display) -> Fault {
    let mut plain = String::new();
    for character in cause.to_string().chars().take(CAUSE_CHARS_MAX) {
        match character.is_control() {
            true => plain.extend(character.escape_debug()),
            false => plain.push(character),
        }
    }
    Fault::Damaged(plain.into())
}

fn record(batch: &RecordBatch, row: usize, depth_max: usize) -> std::result::Result<Map<String, Value>, Fault> {
    let mut record = Map::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let value = cell(column, row, depth_max).map_err(|fault| match fault {
            Fault::Json(::json::Fault::NonFinite { key: None }) => {
                let key = Some(field.name().into());
                ::json::Fault::NonFinite { key }.into()
            }
            fault => fault,
        })?;
        record.insert(field.name().clone(), value);
    }
    Ok(record)
}

/// One cell as JSON. Numbers, text, lists and structs map to their own kind; dates, decimals and the like to their text.
fn cell(column: &ArrayRef, row: usize, depth: usize) -> std::result::Result<Value, Fault> {
    // BOUND: types nest in the file's schema.
    let Some(depth) = depth.checked_sub(1) else {
        let limit = Limits::default().json.depth;
        return Err(::json::Fault::DepthExceeded { limit }.into());
    };
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! integer {
        ($type:ty) => {
            Value::from(column.as_primitive::<$type>().value(row))
        };
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float16 => short(column.as_primitive::<Float16Type>().value(row).to_f32())?,
        DataType::Float32 => short(column.as_primitive::<Float32Type>().value(row))?,
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row))?,
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            return Err(Fault::FormatUnsupported(
                "a column of bytes: only text, numbers, lists and structs are rows (leave it out)",
            ));
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(row), depth)?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row), depth)?,
        DataType::FixedSizeList(_, _) => list(&column.as_fixed_size_list().value(row), depth)?,
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let entries = fields
                .iter()
                .zip(columns)
                .map(|(field, column)| Ok((field.name().clone(), cell(column, row, depth)?)));
            Value::Object(entries.collect::<std::result::Result<_, Fault>>()?)
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut object = Map::new();
            for entry in 0..entries.len() {
                let key = match cell(keys, entry, depth)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, cell(values, entry, depth)?);
            }
            Value::Object(object)
        }
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row], depth)?
        }
        _ => text(column, row)?.into(),
    })
}

/// A date, a time or a decimal as its usual text: `2026-11-28T09:30:00`; with `Z` where its column has a time zone, for what is stored
/// is the moment in UTC.
fn text(column: &ArrayRef, row: usize) -> std::result::Result<String, Fault> {
    macro_rules! time {
        ($as:ident, $type:ty) => {
            shown(column.as_primitive::<$type>().$as(row))?
        };
    }
    macro_rules! decimal {
        ($type:ty) => {
            column.as_primitive::<$type>().value_as_string(row)
        };
    }
    Ok(match column.data_type() {
        DataType::Date32 => time!(value_as_date, Date32Type),
        DataType::Date64 => time!(value_as_datetime, Date64Type),
        DataType::Time32(TimeUnit::Second) => time!(value_as_time, Time32SecondType),
        DataType::Time32(_) => time!(value_as_time, Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => time!(value_as_time, Time64MicrosecondType),
        DataType::Time64(_) => time!(value_as_time, Time64NanosecondType),
        DataType::Timestamp(unit, zone) => {
            let moment = match unit {
                TimeUnit::Second => time!(value_as_datetime, TimestampSecondType),
                TimeUnit::Millisecond => time!(value_as_datetime, TimestampMillisecondType),
                TimeUnit::Microsecond => time!(value_as_datetime, TimestampMicrosecondType),
                TimeUnit::Nanosecond => time!(value_as_datetime, TimestampNanosecondType),
            };
            moment + if zone.is_some() { "Z" } else { "" }
        }
        DataType::Decimal32(_, _) => decimal!(Decimal32Type),
        DataType::Decimal64(_, _) => decimal!(Decimal64Type),
        DataType::Decimal128(_, _) => decimal!(Decimal128Type),
        DataType::Decimal256(_, _) => decimal!(Decimal256Type),
        _ => {
            return Err(Fault::FormatUnsupported(
                "a column of durations or intervals: text, numbers, dates, lists and structs are rows (leave it out)",
            ));
        }
    })
}

/// The debug form of the calendar's types is the ISO one.
fn shown(value: Option<impl std::fmt::Debug>) -> std::result::Result<String, Fault> {
    match value {
        Some(value) => Ok(format!("{value:?}")),
        None => Err(Fault::Damaged("a date or time that no calendar has".into())),
    }
}

fn list(elements: &ArrayRef, depth: usize) -> std::result::Result<Value, Fault> {
    (0..elements.len())
        .map(|index| cell(elements, index, depth))
        .collect::<std::result::Result<Vec<Value>, Fault>>()
        .map(Value::Array)
}

fn number(value: f64) -> std::result::Result<Value, Fault> {
    Number::from_f64(value)
        .map(Value::Number)
        .ok_or(::json::Fault::NonFinite { key: None }.into())
}

/// An f32 as the f64 of its shortest decimal form, so that 0.1 stays 0.1 when it is written.
fn short(value: f32) -> std::result::Result<Value, Fault> {
    if !value.is_finite() {
        return Err(::json::Fault::NonFinite { key: None }.into());
    }
    number(value.to_string().parse().unwrap_or(f64::from(value)))
}

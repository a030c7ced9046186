//! Datasets as people keep them, behind one iterator of rows with bounded memory: JSON lines (our own streams too), JSON arrays, CSV, TSV,
//! Parquet and plain text, each plain or compressed with gzip or zstd, from a file or standard input.
//!
//! ```no_run
//! use records::dataset::{self, Example, InputFormat};
//!
//! for row in dataset::open("train.jsonl.zst", InputFormat::Auto)? {
//!     let row = row?;
//!     let example = Example::recognise(&row, None)?;
//!     println!("{} {}", row.id()?, example.completion().unwrap_or_default());
//! }
//! # Ok::<(), records::Error>(())
//! ```

mod blocks;
mod csv;
mod example;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod source;
mod text;

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

pub use blocks::{Block, Blocks, Source};
pub use example::{Example, Schema};

pub use crate::format::InputFormat;

use crate::error::{Error, Fault, Place, Result};
use crate::limits::Limits;
use crate::stream::{LastRecord, Reader, Status};

/// A row of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// 0-based among the rows of this input: the `sample_index` where there is one input.
    pub index: u64,
    /// 1-based line where the row starts, in formats that have lines.
    pub line: Option<u64>,
    pub value: Map<String, Value>,
}

impl Row {
    /// `id` as given, or `#<index>`.
    pub fn id(&self) -> Result<String> {
        crate::identity::id_of(&self.value, self.index).map_err(|fault| self.fault(fault))
    }

    /// The text under `field`; its absence or another type is an error that names it.
    pub fn text(&self, field: &str) -> Result<&str> {
        match self.value.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => {
                let found = ::json::kind(other).into();
                Err(self.fault(Fault::KeyMismatch {
                    key: field.into(),
                    found,
                    expected: "a string".into(),
                }))
            }
            None => Err(self.fault(Fault::KeyMissing { key: field.into() })),
        }
    }

    /// The group of the row under `--group FIELD`: text as it is, integers and booleans in JSON's words.
    pub fn group(&self, field: &str) -> Result<String> {
        match self.value.get(field) {
            Some(Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
            Some(Value::Bool(value)) => Ok(value.to_string()),
            _ => self.text(field).map(str::to_owned),
        }
    }

    /// The row as a typed record, whose `id` may be absent: then it is `#<index>`.
    pub fn decode<T: crate::Record>(&self) -> Result<T> {
        let mut value = self.value.clone();
        value.shift_remove("type");
        value.insert("id".into(), self.id()?.into());
        crate::decode::typed(&value).map_err(|fault| self.fault(fault))
    }

    /// An error about this row, for checks that a tool makes itself.
    pub fn refuse(&self, reason: impl Into<String>) -> Error {
        self.fault(Fault::Unacceptable { reason: reason.into() })
    }

    pub(crate) fn fault(&self, fault: Fault) -> Error {
        Error {
            place: self.line.map_or(Place::Row(self.index), Place::Line),
            fault,
        }
    }
}

/// Opens `path`, or standard input for `-`, with the defaults of [`Options`].
pub fn open(path: impl AsRef<Path>, format: InputFormat) -> Result<Dataset> {
    Options::new().format(format).open(path)
}

/// How to open a dataset, in the manner of `std::fs::OpenOptions`.
///
/// ```
/// use records::dataset::{InputFormat, Options};
///
/// let csv = "id,prompt,note\n1,\"Say\nhi\",x\n";
/// let mut rows = Options::new().format(InputFormat::Csv).fields(&["prompt"]).read(csv.as_bytes())?;
/// let row = rows.next().unwrap()?;
/// assert_eq!(row.text("prompt")?, "Say\nhi");
/// assert!(rows.next().is_none());
/// # Ok::<(), records::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    format: InputFormat,
    limits: Limits,
    fields: Option<Vec<String>>,
    columns: Option<Vec<String>>,
    accepts_partial: bool,
    is_strict: bool,
    digests: bool,
    goes_on: bool,
}

impl Options {
    pub fn new() -> Options {
        Options::default()
    }

    pub fn format(mut self, format: InputFormat) -> Self {
        self.format = format;
        self
    }

    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Builds only these top-level keys or columns; the rest is skipped, which is much faster on wide rows.
    pub fn fields<S: AsRef<str>>(mut self, fields: &[S]) -> Self {
        self.fields = Some(fields.iter().map(|field| field.as_ref().to_owned()).collect());
        self
    }

    /// Names the columns of a CSV or TSV that has no header line.
    pub fn columns<S: AsRef<str>>(mut self, columns: &[S]) -> Self {
        self.columns = Some(columns.iter().map(|column| column.as_ref().to_owned()).collect());
        self
    }

    /// Accepts record streams that ended `partial` ([`Dataset::status`] tells); refused by default.
    pub fn accept_partial(mut self, accepts: bool) -> Self {
        self.accepts_partial = accepts;
        self
    }

    /// Compares the `row_count` of record streams.
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Computes [`Dataset::digest`] on the way.
    pub fn digest(mut self, digests: bool) -> Self {
        self.digests = digests;
        self
    }

    /// After an error about one row alone, goes on with the next ([`Dataset::is_done`] tells whether it could); by default a dataset ends at its first error.
    pub fn go_on(mut self, goes_on: bool) -> Self {
        self.goes_on = goes_on;
        self
    }

    /// Opens a file, or standard input for `-`.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Dataset> {
        source::open(self, path.as_ref())
    }

    /// Reads from anything.
    pub fn read(&self, input: impl Read + Send + 'static) -> Result<Dataset> {
        source::read(self, Box::new(input), None)
    }
}

/// The rows of an open dataset. After an error it ends, unless [`Options::go_on`] says otherwise.
pub struct Dataset {
    rows: Box<dyn Rows>,
    format: InputFormat,
    digest: Option<source::SharedHasher>,
    row_count: u64,
    is_done: bool,
    goes_on: bool,
}

/// A row's line, in formats that have lines, and its keys.
type Found = (Option<u64>, Map<String, Value>);

/// One format's rows.
trait Rows: Send {
    /// The row of this index.
    fn next_row(&mut self, index: u64) -> Result<Option<Found>>;

    fn status(&self) -> Status {
        Status::Complete
    }

    /// The type and the line of the last row, in formats that have records.
    fn record(&self) -> Option<(&str, &str)> {
        None
    }

    /// Whether the last error was about one row alone, and the next call gives the row behind it.
    fn is_past_error(&self) -> bool {
        false
    }
}

impl Dataset {
    /// The format that was named or found.
    pub fn format(&self) -> InputFormat {
        self.format
    }

    /// Rows handed out so far, and bad ones gone past.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Whether nothing more comes: at the end, or after an error that no row follows.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether a record stream read so far ended `partial`.
    pub fn status(&self) -> Status {
        self.rows.status()
    }

    /// The type and the line of the last row, where it is a record: a filter passes on those that it does not read.
    pub fn record(&self) -> Option<(&str, &str)> {
        self.rows.record()
    }

    /// `blake3:<hex>` of the input as stored (`b3sum FILE`): with [`Options::digest`], once the last row was read.
    pub fn digest(&self) -> Option<String> {
        let hasher = self.digest.as_ref().filter(|_| self.is_done)?;
        Some(format!(
            "blake3:{}",
            hasher
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .finalize()
                .to_hex()
        ))
    }
}

impl Iterator for Dataset {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.is_done {
            return None;
        }
        let index = self.row_count;
        match self.rows.next_row(index) {
            Ok(Some((line, value))) => {
                self.row_count += 1;
                Some(Ok(Row { index, line, value }))
            }
            Ok(None) => {
                self.is_done = true;
                None
            }
            Err(error) => {
                if self.goes_on && self.rows.is_past_error() {
                    self.row_count += 1;
                } else {
                    self.is_done = true;
                    self.digest = None;
                }
                Some(Err(error))
            }
        }
    }
}

/// JSON lines, ours or plain.
struct JsonLines<R> {
    reader: Reader<R>,
    record: LastRecord,
}

impl<R: Read + Send> Rows for JsonLines<R> {
    fn next_row(&mut self, _index: u64) -> Result<Option<Found>> {
        let found = self.reader.next_value(&mut self.record)?;
        Ok(found.map(|(line, value)| (Some(line), value)))
    }

    fn record(&self) -> Option<(&str, &str)> {
        self.record.get()
    }

    fn status(&self) -> Status {
        self.reader.status()
    }
}

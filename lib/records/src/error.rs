//! What can be wrong with a record or a dataset, as nouns, and where. Messages never quote values: prompts may be harmful or
//! private, and a terminal may be listening. Key names are quoted, escaped and cut short.

use std::fmt;

use json::KeyName;

/// A [`Fault`] and its place. `Display` names neither file nor tool: the caller knows both and says them first.
#[derive(Debug, thiserror::Error)]
#[error("{place}{fault}")]
pub struct Error {
    pub place: Place,
    #[source]
    pub fault: Fault,
}

pub type Result<T> = std::result::Result<T, Error>;

/// Where in the input a fault was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// 1-based line of a text stream.
    Line(u64),
    /// 0-based row of a dataset, the future `sample_index`.
    Row(u64),
    /// The input as a whole.
    Input,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(out, "line {line}: "),
            Place::Row(row) => write!(out, "row index {row}: "),
            Place::Input => Ok(()),
        }
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    // bytes
    #[error("cannot read or write")]
    Io(#[source] std::io::Error),
    #[error("cut off: the compressed or columnar data ends too early")]
    Truncated(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("damaged: {0}")]
    Damaged(Box<dyn std::error::Error + Send + Sync>),
    #[error("empty input: neither a row nor a begin record (did its producer fail?)")]
    InputEmpty,
    #[error("longer than {limit} bytes")]
    LineTooLong { limit: usize },
    #[error("not UTF-8 at byte {column}")]
    NotUtf8 { column: usize },
    #[error("NUL byte at byte {column}: not text")]
    NulByte { column: usize },

    #[error(transparent)]
    Json(#[from] json::Fault),

    // records
    #[error("key `{key}` is missing")]
    KeyMissing { key: KeyName },
    #[error("key `{key}` is {found}, expected {expected}")]
    KeyMismatch {
        key: KeyName,
        found: String,
        expected: String,
    },
    #[error("{reason}")]
    Unacceptable { reason: String },
    #[error("schema {found} is not flowlens/1: written by another version")]
    SchemaUnknown { found: KeyName },
    #[error("`{mark}` record {reason}")]
    MarkMisplaced { mark: &'static str, reason: &'static str },
    #[error("row after the `end` record")]
    RowAfterEnd,
    #[error("the stream has no `end` record: its producer {tool} did not finish")]
    EndMissing { tool: KeyName },
    #[error("the `end` record says {declared} rows, {counted} were read")]
    RowCountMismatch { declared: u64, counted: u64 },
    #[error("the producer {tool} ended `partial`: some of its items failed")]
    PartialInput { tool: KeyName },

    // datasets
    #[error("the format cannot be told from name or content; name it with --input-format ({})", crate::format::InputFormat::NAMES.join(", "))]
    FormatUnknown,
    #[error("{0}")]
    FormatUnsupported(&'static str),
    #[error("column `{key}` appears twice")]
    ColumnDuplicate { key: KeyName },
    #[error("{found} fields where the header has {expected}")]
    ColumnCountMismatch { found: usize, expected: usize },
    #[error("no text found: none of {expected} among the keys {found}")]
    ExampleUnrecognised { expected: &'static str, found: String },
}

impl Fault {
    pub(crate) fn at_line(self, line: u64) -> Error {
        Error {
            place: Place::Line(line),
            fault: self,
        }
    }
    pub(crate) fn at_row(self, row: u64) -> Error {
        Error {
            place: Place::Row(row),
            fault: self,
        }
    }
    pub(crate) fn whole(self) -> Error {
        Error {
            place: Place::Input,
            fault: self,
        }
    }

    /// An I/O error met while reading: those a decompressor makes up (no OS code) say that the data is bad, not the disk.
    pub(crate) fn from_read(error: std::io::Error) -> Fault {
        if error.raw_os_error().is_some() || error.kind() == std::io::ErrorKind::NotFound {
            Fault::Io(error)
        } else if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Fault::Truncated(Box::new(error))
        } else {
            Fault::Damaged(Box::new(error))
        }
    }
}

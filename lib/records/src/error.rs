//! What can be wrong with a record or a dataset, as nouns, and where. Messages never quote values: prompts may be harmful or
//! private, and a terminal may be listening. Key names are quoted, escaped and cut short.

use std::fmt;

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

    // JSON
    #[error("not JSON at column {column}: {reason}")]
    NotJson { column: usize, reason: String },
    #[error("{found} where an object belongs")]
    NotObject { found: &'static str },
    #[error("duplicate key `{key}`")]
    KeyDuplicate { key: KeyName },
    #[error("nested deeper than {limit}")]
    DepthExceeded { limit: usize },
    #[error("more than {limit} keys")]
    KeyCountExceeded { limit: usize },
    #[error("more than {limit} values")]
    ValueCountExceeded { limit: usize },
    #[error("number longer than {limit} characters")]
    NumberTooLong { limit: usize },
    #[error("number out of range: {reason}")]
    NumberOutOfRange { reason: &'static str },
    #[error("non-finite number{}", in_key(key))]
    NonFinite { key: Option<KeyName> },

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
    #[error("the format cannot be told from name or content; name it with --input-format ({})", crate::dataset::InputFormat::NAMES.join(", "))]
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

fn in_key(key: &Option<KeyName>) -> String {
    key.as_ref().map(|key| format!(" in `{key}`")).unwrap_or_default()
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

/// A key from the data, fit for a message: control, bidirectional and other invisible characters escaped, at most 40 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    const CHARACTERS_MAX: usize = 40;
}

impl<S: AsRef<str>> From<S> for KeyName {
    fn from(key: S) -> KeyName {
        let mut characters = key.as_ref().chars();
        let mut name: String = characters
            .by_ref()
            .take(Self::CHARACTERS_MAX)
            .flat_map(char::escape_debug)
            .collect();
        if characters.next().is_some() {
            name.push('…');
        }
        KeyName(name)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

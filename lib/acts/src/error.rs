//! What can be wrong with a container, as nouns. An [`Error`] that has an [`std::io::Error`] as its source is the environment's fault;
//! every other one says that the bytes, or the caller's request, were refused.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: open, read, write, or memory.
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("not an .acts file{}", looks_like.map(|kind| format!(" (looks like {kind})")).unwrap_or_default())]
    NotActs { looks_like: Option<&'static str> },
    #[error("container version {found} is not read by this build, which knows version {known}")]
    UnsupportedVersion { found: u32, known: u32 },
    #[error("header: {0}")]
    Header(String),
    #[error("truncated at byte {at}: {expected} expected")]
    Truncated { at: u64, expected: &'static str },
    #[error("no end mark: the file is truncated, still being written, or has bytes after its end")]
    NoEndMark,
    #[error(
        "two containers in one file: the first {excess_bytes} bytes lie before the last container (give the files one by one, or merge them)"
    )]
    Concatenated { excess_bytes: u64 },
    #[error("bytes after the end mark at byte {at}")]
    TrailingBytes { at: u64 },
    #[error("{what} at byte {at}: checksum mismatch")]
    ChecksumMismatch { what: String, at: u64 },
    #[error("block {found} found where {expected} belongs, at byte {at}")]
    BlockMisplaced { found: u64, expected: u64, at: u64 },
    #[error("{what} at byte {at}: {cause}")]
    Malformed { what: String, at: u64, cause: String },
    #[error("{what} is {value}, limit {limit}")]
    LimitExceeded { what: String, value: u64, limit: u64 },
    #[error("the container is {0} and was not asked for as such")]
    Incomplete(&'static str),
    #[error("no tensor named {0}")]
    NoSuchTensor(String),
    #[error("rows {start}..{end} of {tensor}: it has {row_count}")]
    RowsOutOfRange {
        tensor: String,
        start: u64,
        end: u64,
        row_count: u64,
    },
    #[error("row {row} of {tensor} was lost before this container was salvaged")]
    RowMissing { tensor: String, row: u64 },
    #[error("{tensor} holds {dtype}, which does not fit {asked} without loss")]
    DtypeMismatch {
        tensor: String,
        dtype: crate::Dtype,
        asked: crate::Dtype,
    },
    /// No tensor, or no single one, is the direction that was asked for.
    #[error("{0}")]
    NoDirection(String),
    /// The caller of a writer or reader broke its contract: a wrong buffer length, rows beyond the declared count.
    #[error("{0}")]
    Misuse(String),
    /// What is to be resumed was begun under another header.
    #[error("the partial file belongs to another plan: {0} differs")]
    HeaderDiffers(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn malformed(what: impl Into<String>, at: u64, cause: impl Into<String>) -> Error {
        Error::Malformed {
            what: what.into(),
            at,
            cause: cause.into(),
        }
    }

    /// Memory that was within the documented bound and still could not be had.
    pub(crate) fn out_of_memory(bytes: usize) -> Error {
        Error::Io {
            what: format!("{bytes} bytes of memory"),
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        }
    }

    /// Whether the environment, not the data, is at fault.
    pub fn is_environment(&self) -> bool {
        matches!(self, Error::Io { .. })
    }
}

/// An empty buffer with room for `bytes`, or the error that says they could not be had.
pub(crate) fn reserve(bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(bytes)
        .map_err(|_| Error::out_of_memory(bytes))?;
    Ok(buffer)
}

/// Makes `buffer` exactly `bytes` long, growing it only if memory allows.
pub(crate) fn resize(buffer: &mut Vec<u8>, bytes: usize) -> Result<()> {
    buffer
        .try_reserve(bytes.saturating_sub(buffer.len()))
        .map_err(|_| Error::out_of_memory(bytes))?;
    buffer.resize(bytes, 0);
    Ok(())
}

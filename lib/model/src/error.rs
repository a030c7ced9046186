//! What can be wrong with a model directory or a call, each named by what is wrong.

use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no; the operating system's error is the source.
    #[error("{}: {cause}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// A file of the model directory is malformed or over a limit.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: String },
    /// config.json describes something this crate does not compute.
    #[error("config.json: {0}")]
    Config(String),
    /// A tensor is missing, foreign, mis-shaped, of an unread type, or holds a value that is not finite.
    #[error("tensor {name}: {cause}")]
    Tensor { name: String, cause: String },
    /// The tokenizer refused its own file or a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template failed or ran over its bounds.
    #[error("chat template: {0}")]
    Template(String),
    /// One sequence cannot be run: empty, too long, or with an id outside the vocabulary.
    #[error("sequence {index}: {cause}")]
    Sequence { index: usize, cause: String },
    /// A site that this family does not have, or a layer beyond the last.
    #[error("site {0}")]
    Site(String),
    /// A device that is absent or not compiled in.
    #[error("device {0}")]
    Device(String),
    #[cfg(feature = "decoder")]
    #[error("{0}")]
    Candle(#[source] candle_core::Error),
}

#[cfg(feature = "decoder")]
impl From<candle_core::Error> for Error {
    /// Without the backtrace that RUST_BACKTRACE adds: a refusal is one line.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error => Self::Candle(error),
        }
    }
}

impl Error {
    pub(crate) fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            cause,
        }
    }

    pub(crate) fn file(path: &Path, cause: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_owned(),
            cause: cause.to_string(),
        }
    }

    pub(crate) fn tensor(name: &str, cause: impl std::fmt::Display) -> Self {
        Self::Tensor {
            name: name.to_owned(),
            cause: cause.to_string(),
        }
    }
}

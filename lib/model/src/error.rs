//! What can be wrong with a model directory or a call, each named by what is wrong.
//!
//! The caller knows which path it asked for and says so; an error here names only the place within it.

use std::fmt::Display;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no; the operating system's error is the source.
    #[error("{}{cause}", prefix(place))]
    Io {
        place: String,
        #[source]
        cause: std::io::Error,
    },
    /// A file is malformed, of a kind that is not read, or over a limit.
    #[error("{}{cause}", prefix(place))]
    File { place: String, cause: String },
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
    /// What is wrong with an adapter.
    #[error("adapter {path}: {cause}")]
    Adapter {
        path: String,
        #[source]
        cause: Box<Error>,
    },
    #[cfg(feature = "decoder")]
    #[error("{0}")]
    Candle(#[source] candle_core::Error),
}

/// What failed beside the files of a model: a rank that is gone, say, which the cause names.
impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        Self::Io {
            place: String::new(),
            cause,
        }
    }
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

/// A text from data, quoted; BOUND: of a long one, its beginning.
#[cfg(feature = "decoder")]
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// `place: `, or nothing where the place is the path that the caller named.
fn prefix(place: &str) -> String {
    match place.is_empty() {
        true => String::new(),
        false => format!("{place}: "),
    }
}

impl Error {
    pub(crate) fn io(place: &str, cause: std::io::Error) -> Self {
        Self::Io {
            place: place.to_owned(),
            cause,
        }
    }

    pub(crate) fn file(place: &str, cause: impl Display) -> Self {
        Self::File {
            place: place.to_owned(),
            cause: cause.to_string(),
        }
    }

    pub(crate) fn tensor(name: &str, cause: impl Display) -> Self {
        Self::Tensor {
            name: name.to_owned(),
            cause: cause.to_string(),
        }
    }
}

//! The formats in which data sets come.

use std::fmt;
use std::str::FromStr;

/// `--input-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputFormat {
    /// By extension (`.gz`, `.zst` set aside), then by the first bytes.
    #[default]
    Auto,
    /// An object a line; our own record streams too.
    Jsonl,
    /// An array of objects, or objects one after another with any white space.
    Json,
    /// A header line, then rows; quoted fields may hold line ends. All values are text.
    Csv,
    /// As CSV, with tabs.
    Tsv,
    Parquet,
    /// A line a row, as `{"text": line}`; blank lines are left out.
    Text,
}

impl InputFormat {
    /// The words that a flag takes, in the order of the variants.
    pub const NAMES: [&str; 7] = ["auto", "jsonl", "json", "csv", "tsv", "parquet", "text"];
    const ALL: [InputFormat; 7] = [
        Self::Auto,
        Self::Jsonl,
        Self::Json,
        Self::Csv,
        Self::Tsv,
        Self::Parquet,
        Self::Text,
    ];
}

impl FromStr for InputFormat {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<InputFormat, String> {
        let index = Self::NAMES.iter().position(|known| *known == name);
        index
            .map(|index| Self::ALL[index])
            .ok_or_else(|| format!("not one of {}", Self::NAMES.join(", ")))
    }
}

impl fmt::Display for InputFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Self::NAMES[*self as usize])
    }
}

//! The rows of one input, by type, under the name the pictures show. A row that a figure needs is read into a struct here;
//! every other row and key is left alone.

use process::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `NAME=FILE`, `SERIES@X=FILE` or `FILE`. `x` places a source on the horizontal axis of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub series: String,
    pub x: Option<f64>,
}

pub struct Source {
    pub name: Name,
    /// As typed, for messages.
    pub path: String,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub line: u64,
    pub kind: String,
    pub value: Value,
}

impl Source {
    /// All rows of one type as structs; a row with a missing or mistyped key is refused with its line.
    pub fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        self.rows
            .iter()
            .filter(|row| row.kind == kind)
            .map(|row| {
                T::deserialize(&row.value).map_err(|cause| {
                    Error::input(format!("{}:{}", self.path, row.line), format!("{kind} record: {cause}"))
                })
            })
            .collect()
    }

    pub fn has(&self, kind: &str) -> bool {
        self.rows.iter().any(|row| row.kind == kind)
    }
}

/// The legend entry of one group of one source: the source is named only where there are several, the group only where it has a name.
pub fn series_name(sources: &[Source], source: &Source, group: &str) -> String {
    let named = sources.len() > 1 && !source.name.series.is_empty();
    match (named, group.is_empty()) {
        (true, false) => format!("{} · {}", source.name.series, plain(group)),
        (true, true) => source.name.series.clone(),
        (false, false) => plain(group),
        (false, true) => source.name.series.clone(),
    }
}

/// Names come from data; a control character has no place in a picture.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

/// The first letter of a title.
pub fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

/// Stable series indices in order of first use, so that one name has one colour in every panel.
#[derive(Default)]
pub struct Series(Vec<String>);

impl Series {
    pub fn index(&mut self, name: &str) -> usize {
        match self.0.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.0.push(name.to_string());
                self.0.len() - 1
            }
        }
    }
}

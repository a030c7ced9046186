//! The rows of one input, by type, under the name the pictures show.

use process::{Error, Result};
use records::{Record, Row};

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
    /// Those of a type of ours.
    pub rows: Vec<Row>,
    /// Blocks of the model where the rows do not say it: as many as the largest layer index implies.
    pub layer_count_seen: usize,
}

impl Source {
    /// All rows of one type; a row with a missing or mistyped key is refused with its line.
    pub fn all<T: Record>(&self) -> Result<Vec<T>> {
        let refuse = |row: &Row, cause: records::Fault| {
            Error::input(
                format!("{}:{}", self.path, row.line),
                format!("{} record: {cause}", T::TYPE),
            )
        };
        self.of_type(T::TYPE)
            .map(|row| row.decode().map_err(|error| refuse(row, error.fault)))
            .collect()
    }

    pub fn of_type<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Row> {
        self.rows.iter().filter(move |row| row.kind.as_deref() == Some(kind))
    }

    /// The depth of a layer, as its row says it.
    pub fn depth(&self, layer_index: usize, said: Option<f64>) -> f64 {
        said.unwrap_or((layer_index as f64 + 1.0) / self.layer_count_seen as f64)
    }

    pub fn has(&self, kind: &str) -> bool {
        self.of_type(kind).next().is_some()
    }
}

/// A number of a row, by its key or a path of keys ("c_k.4").
pub fn number(row: &Row, path: &str) -> Option<f64> {
    let mut keys = path.split('.');
    let first = row.value.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))?.as_f64()
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

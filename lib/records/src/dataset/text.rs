//! Plain text: a line a row.

use std::io::Read;

use serde_json::Map;

use super::{Found, Rows};
use crate::error::Result;
use crate::lines::Lines;

pub(super) struct TextLines<R> {
    pub(super) lines: Lines<R>,
}

impl<R: Read + Send> Rows for TextLines<R> {
    fn next_row(&mut self, _index: u64) -> Result<Option<Found>> {
        while let Some(line) = self.lines.next_line()? {
            if !line.is_blank() {
                return Ok(Some((
                    Some(line.number),
                    Map::from_iter([("text".to_owned(), line.text.into())]),
                )));
            }
        }
        Ok(None)
    }
}

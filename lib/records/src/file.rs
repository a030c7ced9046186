//! Plain rows of a file, all at once: for what passes between two tools of one run.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;

use serde::Serialize;

use crate::error::{Fault, Result};
use crate::record::Record;
use crate::stream::{Reader, Writer};

/// Writes rows as plain lines, without marks, into a new file.
pub fn write_rows(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    let file = File::create(path).map_err(|error| Fault::Io(error).whole())?;
    let mut writer = Writer::new(BufWriter::new(file));
    for row in rows {
        writer.row(row)?;
    }
    writer.into_output().map(drop)
}

/// Reads every `T` of a file; a partial stream is refused.
pub fn read_rows<T: Record>(path: &Path) -> Result<Vec<T>> {
    all(File::open(path).map_err(|error| Fault::Io(error).whole())?)
}

/// Every `T` of a container's table of rows, which is empty in a shard without any.
pub fn table_rows<T: Record>(table: &[u8]) -> Result<Vec<T>> {
    match table.is_empty() {
        true => Ok(Vec::new()),
        false => all(table),
    }
}

fn all<T: Record>(input: impl Read) -> Result<Vec<T>> {
    let mut reader = Reader::new(input);
    let mut rows = Vec::new();
    while let Some(row) = reader.next_record()? {
        rows.push(row);
    }
    Ok(rows)
}

//! CSV and TSV with a header line. Fields are the csv crate's; what it leaves open is checked here: unbounded records, an unclosed quote at
//! the end (a cut file), ragged rows, repeated columns, encoding.

use std::io::Read;

use serde_json::Map;

use super::{Found, Options, Rows};
use crate::error::{Fault, Result};
use crate::limits::Limits;
use crate::lines::checked_text;

pub(super) struct Table<R> {
    reader: csv::Reader<Bounded<R>>,
    /// Column number and name of what is built.
    columns: Vec<(usize, String)>,
    column_count: usize,
    record: csv::ByteRecord,
    /// A whole record was read; what is wrong with it is wrong with it alone.
    has_record: bool,
}

impl<R: Read> Table<R> {
    pub(super) fn new(input: R, delimiter: u8, options: &Options) -> Result<Table<R>> {
        let limits = &options.limits;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .has_headers(false)
            .buffer_capacity(256 << 10)
            .from_reader(Bounded::new(input, delimiter, limits.line_bytes));
        let names = match &options.columns {
            Some(names) => names.clone(),
            None => header(&mut reader, limits)?,
        };
        let mut seen = std::collections::HashSet::with_capacity(names.len());
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Fault::ColumnDuplicate { key: twice.into() }.at_line(1));
        }
        let is_wanted = |name: &String| options.fields.as_ref().is_none_or(|fields| fields.contains(name));
        let column_count = names.len();
        let columns = names
            .into_iter()
            .enumerate()
            .filter(|(_, name)| is_wanted(name))
            .collect();
        Ok(Table {
            reader,
            columns,
            column_count,
            record: csv::ByteRecord::new(),
            has_record: false,
        })
    }
}

fn header<R: Read>(reader: &mut csv::Reader<Bounded<R>>, limits: &Limits) -> Result<Vec<String>> {
    let mut record = csv::ByteRecord::new();
    if !reader
        .read_byte_record(&mut record)
        .map_err(|error| fault_of(error).at_line(1))?
    {
        return Err(Fault::InputEmpty.whole());
    }
    let limit = limits.json.key_count;
    if record.len() > limit {
        return Err(Fault::from(::json::Fault::KeyCountExceeded { limit }).at_line(1));
    }
    record
        .iter()
        .map(|name| checked_text(name).map(str::to_owned).map_err(|fault| fault.at_line(1)))
        .collect()
}

impl<R: Read + Send> Rows for Table<R> {
    fn next_row(&mut self, _index: u64) -> Result<Option<Found>> {
        self.has_record = false;
        let start = self.reader.position().line();
        let is_row = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|error| match fault_of(error) {
                fault @ Fault::Io(_) => fault.whole(),
                fault => fault.at_line(start),
            })?;
        // The reader looks ahead by a buffer; only at the end does an open quote say that the text was cut.
        if !is_row || self.reader.is_done() {
            if self.reader.get_ref().state == State::Quoted {
                return Err(Fault::Truncated("a quote is not closed".into()).at_line(start));
            }
            if !is_row {
                return Ok(None);
            }
        }
        self.has_record = true;
        let line = self.record.position().map_or(start, csv::Position::line);
        if self.record.len() != self.column_count {
            return Err(Fault::ColumnCountMismatch {
                found: self.record.len(),
                expected: self.column_count,
            }
            .at_line(line));
        }
        let mut value = Map::with_capacity(self.columns.len());
        for (index, name) in &self.columns {
            let text = checked_text(&self.record[*index]).map_err(|fault| {
                let column = ::json::KeyName::from(name);
                Fault::Unacceptable {
                    reason: format!("column `{column}`: {fault}"),
                }
                .at_line(line)
            })?;
            value.insert(name.clone(), text.into());
        }
        Ok(Some((Some(line), value)))
    }

    fn is_past_error(&self) -> bool {
        self.has_record
    }
}

fn fault_of(error: csv::Error) -> Fault {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.downcast::<RecordTooLong>() {
            Ok(RecordTooLong(limit)) => Fault::LineTooLong { limit },
            Err(error) => Fault::from_read(error),
        },
        other => Fault::Damaged(format!("{other:?}").into()),
    }
}

/// Follows the quotes of the bytes that pass, as the csv crate does, to know where records end.
struct Bounded<R> {
    input: R,
    delimiter: u8,
    state: State,
    record_bytes: usize,
    record_bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote inside a quoted field: its end, or half of a doubled quote.
    QuoteSeen,
}

#[derive(Debug, thiserror::Error)]
#[error("record too long")]
struct RecordTooLong(usize);

impl<R> Bounded<R> {
    fn new(input: R, delimiter: u8, record_bytes_max: usize) -> Bounded<R> {
        Bounded {
            input,
            delimiter,
            state: State::FieldStart,
            record_bytes: 0,
            record_bytes_max,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        let mut at = 0;
        while at < read {
            let step = match self.state {
                State::Quoted => memchr::memchr(b'"', &buffer[at..read]),
                State::Unquoted => memchr::memchr3(b'\n', b'\r', self.delimiter, &buffer[at..read]),
                State::FieldStart | State::QuoteSeen => Some(0),
            };
            let step = step.unwrap_or(read - at);
            self.record_bytes += step;
            at += step;
            if at < read {
                self.record_bytes += 1;
                self.state = match (self.state, buffer[at]) {
                    (State::Quoted, _) => State::QuoteSeen,
                    (State::FieldStart | State::QuoteSeen, b'"') => State::Quoted,
                    (_, b'\n' | b'\r') => {
                        self.record_bytes = 0;
                        State::FieldStart
                    }
                    (_, byte) if byte == self.delimiter => State::FieldStart,
                    _ => State::Unquoted,
                };
                at += 1;
            }
            if self.record_bytes > self.record_bytes_max {
                return Err(std::io::Error::other(RecordTooLong(self.record_bytes_max)));
            }
        }
        Ok(read)
    }
}

//! Plain JSON lines, cut into blocks of whole lines: cutting is quick and has an order, parsing is neither and may run on other threads.
//!
//! Every line stands for itself. A line that is no row is one error, and the lines after it are read; so is a line beyond the limit, of
//! which no more than the limit is ever held.

use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Dataset, InputFormat, Options, Row, source};
use crate::error::{Fault, Result};
use crate::limits::Limits;
use crate::lines::{checked_text, retry_interrupted};
use crate::stream;

/// A block is cut once it holds so much.
const BLOCK_BYTES: usize = 512 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An input that is open: plain JSON lines in blocks, anything else in rows.
pub enum Source {
    Lines(Blocks),
    Rows(Dataset),
}

/// Cuts plain JSON lines into [`Block`]s.
pub struct Blocks {
    input: source::Input,
    rules: Arc<Rules>,
    /// Read and not handed out, from the start of a line.
    pending: Vec<u8>,
    /// What comes next from `input` belongs to a line that was refused as too long.
    is_skipping: bool,
    at_end: bool,
    /// Why nothing more can be read, to be told after the last whole line.
    fault: Option<Fault>,
    line_count: u64,
    row_count: u64,
}

/// What all blocks of an input share.
struct Rules {
    limits: Limits,
    fields: Option<Vec<String>>,
}

/// Whole lines of one input, not yet parsed.
pub struct Block {
    rules: Arc<Rules>,
    text: Vec<u8>,
    /// Lines and rows of the input before this block.
    line_count_before: u64,
    row_count_before: u64,
    row_count: u64,
}

impl Options {
    /// Opens a file, or standard input for `-`, for reading in blocks where it holds plain JSON lines.
    pub fn open_source(&self, path: impl AsRef<Path>) -> Result<Source> {
        source::open_source(self, path.as_ref())
    }

    /// Reads from anything, in blocks where it holds plain JSON lines.
    pub fn read_source(&self, input: impl Read + Send + 'static) -> Result<Source> {
        source::read_source(self, Box::new(input), None)
    }
}

impl Source {
    /// Looks at the first line: a record stream of ours has an order to be checked, and is read in rows.
    pub(super) fn of_lines(options: &Options, input: source::Input) -> Result<Source> {
        let fields = options.fields.as_ref();
        let mut blocks = Blocks {
            input,
            rules: Arc::new(Rules {
                limits: options.limits,
                fields: fields.map(|fields| fields.iter().cloned().chain(["type".to_owned()]).collect()),
            }),
            pending: Vec::new(),
            is_skipping: false,
            at_end: false,
            fault: None,
            line_count: 0,
            row_count: 0,
        };
        blocks.fill(0);
        if blocks.pending.is_empty() && blocks.fault.is_none() {
            return Err(Fault::InputEmpty.whole());
        }
        if !blocks.begins_a_stream() {
            if blocks.pending.starts_with(BYTE_ORDER_MARK) {
                blocks.pending.drain(..BYTE_ORDER_MARK.len());
            }
            return Ok(Source::Lines(blocks));
        }
        let rest: source::Input = match blocks.fault.take() {
            None => blocks.input,
            Some(fault) => Box::new(Failing(Some(fault))),
        };
        let input: source::Input = Box::new(Cursor::new(blocks.pending).chain(rest));
        Ok(Source::Rows(source::dataset_of(options, InputFormat::Jsonl, input)?))
    }
}

/// An input that has failed, and says so again.
struct Failing(Option<Fault>);

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.take() {
            None => Ok(0),
            Some(Fault::Io(error)) => Err(error),
            Some(Fault::Truncated(cause)) => Err(std::io::Error::new(ErrorKind::UnexpectedEof, cause)),
            Some(Fault::Damaged(cause)) => Err(std::io::Error::other(cause)),
            Some(fault) => Err(std::io::Error::other(fault)),
        }
    }
}

impl Blocks {
    /// The next block, of at most `row_count_max` rows; `None` at the end. After an error about one line the next call goes on behind
    /// that line; after any other there is nothing more.
    pub fn next_block(&mut self, row_count_max: u64) -> Result<Option<Block>> {
        if row_count_max == 0 {
            return Ok(None);
        }
        self.skip_refused_line();
        // Who wants few rows need not wait until a block is full.
        self.fill(if row_count_max == u64::MAX { BLOCK_BYTES } else { 0 });
        let (mut end, mut lines, mut rows) = (0, 0, 0);
        while end < self.pending.len() && rows < row_count_max {
            let rest = &self.pending[end..];
            let length = match memchr::memchr(b'\n', rest) {
                Some(at) => at + 1,
                // A last line without line end counts, but not one in which the input broke off.
                None if self.at_end => rest.len(),
                None => break,
            };
            lines += 1;
            rows += u64::from(!rest[..length].trim_ascii_start().is_empty());
            end += length;
        }
        if end > 0 {
            let rest = self.pending[end..].to_vec();
            self.pending.truncate(end);
            let block = Block {
                rules: self.rules.clone(),
                text: std::mem::replace(&mut self.pending, rest),
                line_count_before: self.line_count,
                row_count_before: self.row_count,
                row_count: rows,
            };
            self.line_count += lines;
            self.row_count += rows;
            return Ok(Some(block));
        }
        let line = self.line_count + 1;
        if let Some(fault) = self.fault.take() {
            self.at_end = true;
            self.pending.clear();
            return Err(match fault {
                fault @ Fault::Io(_) => fault.whole(),
                fault => fault.at_line(line),
            });
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        // All that may be held is one line, and it goes on.
        self.pending = Vec::new();
        self.is_skipping = true;
        self.line_count += 1;
        self.row_count += 1;
        let limit = self.rules.limits.line_bytes;
        Err(Fault::LineTooLong { limit }.at_line(line))
    }

    /// Rows so far, bad ones included.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    fn can_read(&self) -> bool {
        !self.at_end && self.fault.is_none()
    }

    /// Appends to what is pending what one read gives.
    fn read_once(&mut self) {
        let start = self.pending.len();
        self.pending.resize(start + BLOCK_BYTES, 0);
        let read = retry_interrupted(|| self.input.read(&mut self.pending[start..]));
        self.pending.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(read) => self.at_end = read == 0,
            Err(error) => self.fault = Some(Fault::from_read(error)),
        }
    }

    /// Reads until so many bytes, and a line that is not blank, are pending. BOUND: the line limit, with byte order mark and line end.
    fn fill(&mut self, wanted_bytes: usize) {
        let longest = self.rules.limits.line_bytes + BYTE_ORDER_MARK.len() + 2;
        let mut has_line = first_line(&self.pending).is_some();
        while self.can_read() && self.pending.len() < if has_line { wanted_bytes } else { longest } {
            self.read_once();
            has_line = has_line || first_line(&self.pending).is_some();
        }
    }

    fn skip_refused_line(&mut self) {
        while self.is_skipping && self.can_read() {
            self.pending.clear();
            self.read_once();
            if let Some(at) = memchr::memchr(b'\n', &self.pending) {
                self.pending.drain(..=at);
                self.is_skipping = false;
            }
        }
        if self.is_skipping {
            self.pending.clear();
        }
    }

    fn begins_a_stream(&self) -> bool {
        let line = match first_line(&self.pending) {
            Some(line) => line,
            None => &self.pending,
        };
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let Ok(text) = checked_text(line.trim_ascii()) else {
            return false;
        };
        stream::may_be_mark(text)
            && ::json::object(text, &self.rules.limits.json)
                .is_ok_and(|value| value.get("type").is_some_and(|kind| kind == "begin"))
    }
}

/// The first line that is not blank, if it is whole.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let length = memchr::memchr(b'\n', &bytes[start..])?;
    Some(&bytes[start..start + length])
}

impl Block {
    /// The index of its first row in the input.
    pub fn first_row(&self) -> u64 {
        self.row_count_before
    }

    /// Its rows, bad ones included.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Parses it: a row, or an error, for every line that is not blank.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row>> {
        // Almost always the whole block is text, and then no line need be looked at again.
        let whole = checked_text(&self.text).ok();
        let (mut at, mut line, mut index) = (0, self.line_count_before, self.row_count_before);
        std::iter::from_fn(move || {
            while at < self.text.len() {
                let rest = &self.text[at..];
                let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                let bytes = &rest[..length];
                let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                let start = at;
                at += length + 1;
                line += 1;
                if bytes.trim_ascii_start().is_empty() {
                    continue;
                }
                let row_index = index;
                index += 1;
                let text = match whole {
                    Some(whole) => Ok(&whole[start..start + bytes.len()]),
                    None => checked_text(bytes),
                };
                let value = text.and_then(|text| self.rules.parse(text));
                return Some(match value {
                    Ok(value) => Ok(Row {
                        index: row_index,
                        line: Some(line),
                        value,
                    }),
                    Err(fault) => Err(fault.at_line(line)),
                });
            }
            None
        })
    }
}

impl Rules {
    fn parse(&self, text: &str) -> std::result::Result<Map<String, Value>, Fault> {
        let limit = self.limits.line_bytes;
        if text.len() > limit {
            return Err(Fault::LineTooLong { limit });
        }
        let value = match &self.fields {
            Some(fields) => ::json::object_fields(text, &self.limits.json, fields)?,
            None => ::json::object(text, &self.limits.json)?,
        };
        match value.get("type").and_then(Value::as_str) {
            Some("begin") => Err(Fault::MarkMisplaced {
                mark: "begin",
                reason: "after plain rows",
            }),
            Some("end") => Err(Fault::MarkMisplaced {
                mark: "end",
                reason: "without a `begin`",
            }),
            _ => Ok(value),
        }
    }
}

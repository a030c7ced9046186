//! Streams of records: the `begin` … `end` discipline around checked lines, both ways. `man 5 records` is the specification.

use std::io::{Read, Write};

use json::KeyName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Fault, Result};
use crate::limits::Limits;
use crate::lines::{Line, Lines};
use crate::record::Record;
use crate::{decode, encode};

/// The schema that this build reads and writes; the number is the major version.
pub const SCHEMA: &str = "flowlens/1";

/// How a stream ended, as its `end` record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Complete,
    /// Some items failed under `--keep-going`.
    Partial,
}

impl Status {
    pub fn partial_if(is_partial: bool) -> Status {
        if is_partial { Status::Partial } else { Status::Complete }
    }

    pub fn is_partial(self) -> bool {
        self == Status::Partial
    }
}

/// The first record of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Begin {
    pub tool: String,
    pub version: String,
    /// `sha256:…` of the plan; absent where a tool has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Keys of one tool alone.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Begin {
    pub fn new(tool: &str, version: &str) -> Begin {
        Begin {
            tool: tool.into(),
            version: version.into(),
            ..Begin::default()
        }
    }

    pub fn plan_digest(mut self, digest: impl Into<String>) -> Begin {
        self.plan_digest = Some(digest.into());
        self
    }
}

/// The last record of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    #[serde(deserialize_with = "crate::number::exact_u64")]
    pub row_count: u64,
    pub status: Status,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Writes records, one line each: UTF-8, LF, keys in the order of the struct.
///
/// A row is anything that serialises to an object whose first key is `type`, which `#[serde(tag = "type")]` provides:
///
/// ```
/// #[derive(serde::Serialize)]
/// #[serde(tag = "type", rename = "entropy")]
/// struct Entropy {
///     group: String,
///     h1: f64,
/// }
///
/// let mut writer = records::Writer::new(Vec::new());
/// writer.begin(&records::Begin::new("ds-entropy", "0.1.0"), &())?;
/// writer.row(&Entropy { group: "safety".into(), h1: 9.18 })?;
/// let bytes = writer.end(records::Status::Complete, &())?;
/// assert_eq!(
///     String::from_utf8(bytes).unwrap(),
///     concat!(
///         r#"{"type":"begin","schema":"flowlens/1","tool":"ds-entropy","version":"0.1.0"}"#, "\n",
///         r#"{"type":"entropy","group":"safety","h1":9.18}"#, "\n",
///         r#"{"type":"end","row_count":1,"status":"complete"}"#, "\n",
///     )
/// );
/// # Ok::<(), records::Error>(())
/// ```
///
/// Dropping a writer that began without [`Writer::end`] leaves the stream without its end mark, which every reader refuses: right for a
/// producer that failed.
pub struct Writer<W> {
    output: W,
    line: Vec<u8>,
    row_count: u64,
    line_bytes_max: usize,
    has_begun: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "begin")]
struct BeginLine<'a, E> {
    schema: &'static str,
    #[serde(flatten)]
    begin: &'a Begin,
    #[serde(flatten)]
    extra: &'a E,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "end")]
struct EndLine<'a, E> {
    row_count: u64,
    status: Status,
    #[serde(flatten)]
    extra: &'a E,
}

impl<W: Write> Writer<W> {
    /// A writer of rows over `output`, which should be buffered. Without [`Writer::begin`] the rows are plain lines.
    pub fn new(output: W) -> Writer<W> {
        Writer {
            output,
            line: Vec::new(),
            row_count: 0,
            line_bytes_max: Limits::default().line_bytes,
            has_begun: false,
        }
    }

    /// Continues a stream whose `begin` and first `row_count` rows are in the output already.
    pub fn resume(output: W, row_count: u64) -> Writer<W> {
        Writer {
            row_count,
            has_begun: true,
            ..Writer::new(output)
        }
    }

    /// Opens the stream. `extra` adds keys: any struct or map, `&()` for none.
    pub fn begin(&mut self, begin: &Begin, extra: &impl Serialize) -> Result<()> {
        assert!(
            !self.has_begun && self.row_count == 0,
            "`begin` is the first record of a stream"
        );
        self.has_begun = true;
        self.write(&BeginLine {
            schema: SCHEMA,
            begin,
            extra,
        })
    }

    /// Writes one row.
    pub fn row(&mut self, row: &impl Serialize) -> Result<()> {
        self.row_count += 1;
        self.write(row)?;
        debug_assert!(
            !self.line.starts_with(br#"{"type":"begin""#) && !self.line.starts_with(br#"{"type":"end""#),
            "a mark is not a row"
        );
        Ok(())
    }

    /// Passes on a row that a [`Reader`] has checked, byte for byte.
    pub fn row_text(&mut self, row: &Row) -> Result<()> {
        self.row_count += 1;
        self.line.clear();
        self.line.extend_from_slice(row.text.as_bytes());
        self.flush_line()
    }

    /// Rows written so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// What is written to.
    pub fn output(&self) -> &W {
        &self.output
    }

    /// Closes the stream, flushes, and gives the output back (so that `process::Stdout::finish` can be called).
    pub fn end(mut self, status: Status, extra: &impl Serialize) -> Result<W> {
        assert!(self.has_begun, "a stream without `begin` has no `end`");
        self.write(&EndLine {
            row_count: self.row_count,
            status,
            extra,
        })?;
        self.into_output()
    }

    /// Flushes and gives the output back: the end of plain lines.
    pub fn into_output(mut self) -> Result<W> {
        self.output.flush().map_err(|error| Fault::Io(error).whole())?;
        Ok(self.output)
    }

    /// Hands buffered lines on, for a reader that waits.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(|error| Fault::Io(error).whole())
    }

    fn write(&mut self, record: &impl Serialize) -> Result<()> {
        self.line.clear();
        encode::append(&mut self.line, record).map_err(|fault| fault.at_row(self.row_count.saturating_sub(1)))?;
        assert!(
            self.line.starts_with(br#"{"type":""#),
            "a record is an object whose first key is `type` (serde: tag = \"type\")"
        );
        self.flush_line()
    }

    fn flush_line(&mut self) -> Result<()> {
        if self.line.len() > self.line_bytes_max {
            return Err(Fault::LineTooLong {
                limit: self.line_bytes_max,
            }
            .at_row(self.row_count.saturating_sub(1)));
        }
        self.line.push(b'\n');
        self.output
            .write_all(&self.line)
            .map_err(|error| Fault::Io(error).whole())
    }
}

/// One row of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// 1-based line of the input.
    pub line: u64,
    /// The record type. `None` for a plain row that names none of ours, whatever else its `type` key may hold.
    pub kind: Option<String>,
    /// All keys, in input order, `type` among them.
    pub value: Map<String, Value>,
    /// The line as it was, for filters that pass it on.
    pub text: String,
}

impl Row {
    /// Whether a reader of `T` reads this row: its type is `T`'s, or it is a plain row without one of our types.
    pub fn is<T: Record>(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == T::TYPE)
    }

    /// The row as a typed record. A missing or mistyped key is named, with the line.
    pub fn decode<T: Record>(&self) -> Result<T> {
        let mut value = self.value.clone();
        // `type` is the tag of the struct, never one of its unknown keys.
        value.shift_remove("type");
        decode::typed(&value).map_err(|fault| fault.at_line(self.line))
    }

    /// An error about this row, for checks that a tool makes itself.
    pub fn refuse(&self, reason: impl Into<String>) -> Error {
        Fault::Unacceptable { reason: reason.into() }.at_line(self.line)
    }
}

/// Reads records from anyone: our own streams, one or several in a row, or plain JSON lines.
///
/// Tolerated: a byte order mark, CRLF, blank lines, trailing spaces, a last line without LF. Refused: everything else that is not one
/// JSON object a line without duplicate keys within the [`Limits`], a stream of ours without `end`, and an input of no byte at all.
///
/// ```
/// let input = br#"{"id":"1","prompt":"Hello"}
/// {"id":"2","prompt":"How do I kill a process?","note":"kept"}"#;
/// let mut reader = records::Reader::new(&input[..]);
/// while let Some(prompt) = reader.next_record::<records::Prompt>()? {
///     assert!(prompt.prompt.is_some());
/// }
/// assert_eq!(reader.status(), records::Status::Complete);
/// # Ok::<(), records::Error>(())
/// ```
pub struct Reader<R> {
    lines: Lines<R>,
    limits: Limits,
    fields: Option<Vec<String>>,
    is_strict: bool,
    accepts_partial: bool,
    state: State,
    begin: Option<Begin>,
    end: Option<End>,
    /// Rows of the current stream.
    row_count: u64,
    is_partial: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but blank lines so far.
    Fresh,
    /// Plain lines: no marks may follow.
    Plain,
    /// After a `begin`.
    Begun,
    /// After an `end`.
    Ended,
    /// At the end of input, or after an error: only `None` follows.
    Done,
}

impl<R: Read> Reader<R> {
    pub fn new(input: R) -> Reader<R> {
        Reader::with_limits(input, Limits::default())
    }

    pub fn with_limits(input: R, limits: Limits) -> Reader<R> {
        Reader {
            lines: Lines::with_limits(input, &limits),
            limits,
            fields: None,
            is_strict: false,
            accepts_partial: false,
            state: State::Fresh,
            begin: None,
            end: None,
            row_count: 0,
            is_partial: false,
        }
    }

    /// `--strict`: also compares `row_count` of the `end` record.
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// `--keep-going`: a stream that ended `partial` is read, and [`Reader::status`] says so. By default it is refused.
    pub fn accept_partial(mut self, accepts: bool) -> Self {
        self.accepts_partial = accepts;
        self
    }

    /// Builds only these top-level keys of a row (and `type`); the others are checked for grammar alone. Faster where rows are large.
    pub fn fields(mut self, fields: &[&str]) -> Self {
        self.fields = Some(fields.iter().copied().chain(["type"]).map(str::to_owned).collect());
        self
    }

    /// The `begin` of the stream that the last row came from; `None` for plain lines.
    pub fn begin(&self) -> Option<&Begin> {
        self.begin.as_ref()
    }

    /// The last `end` read.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether any stream read so far ended `partial`.
    pub fn status(&self) -> Status {
        if self.is_partial {
            Status::Partial
        } else {
            Status::Complete
        }
    }

    /// The next row of any type.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        self.step(|line, is_record, value| Row {
            line: line.number,
            kind: is_record.then(|| type_of(&value).unwrap_or_default().to_owned()),
            text: line.text.to_owned(),
            value,
        })
    }

    /// The next row's line and keys; where it is a record, `record` keeps it.
    pub(crate) fn next_value(&mut self, record: &mut LastRecord) -> Result<Option<(u64, Map<String, Value>)>> {
        self.step(|line, is_record, value| {
            record.keep(is_record, &line, &value);
            (line.number, value)
        })
    }

    /// The next row that [`Row::is`] a `T`, decoded; rows of other types are skipped.
    pub fn next_record<T: Record>(&mut self) -> Result<Option<T>> {
        while let Some(row) = self.next_row()? {
            if row.is::<T>() {
                return row.decode().map(Some);
            }
        }
        Ok(None)
    }

    fn step<T>(&mut self, build: impl FnOnce(Line<'_>, bool, Map<String, Value>) -> T) -> Result<Option<T>> {
        let step = self.advance(build);
        if !matches!(step, Ok(Some(_))) {
            self.state = State::Done;
        }
        step
    }

    fn advance<T>(&mut self, build: impl FnOnce(Line<'_>, bool, Map<String, Value>) -> T) -> Result<Option<T>> {
        if self.state == State::Done {
            return Ok(None);
        }
        loop {
            let Some(line) = self.lines.next_line()? else {
                return self.finish().map(|()| None);
            };
            if line.is_blank() {
                continue;
            }
            let number = line.number;
            // A mark carries keys that no projection may drop.
            let is_mark = self.state != State::Plain && may_be_mark(line.text);
            let value = match &self.fields {
                Some(fields) if !is_mark => json::object_fields(line.text, &self.limits.json, fields),
                _ => json::object(line.text, &self.limits.json),
            }
            .map_err(|fault| Fault::from(fault).at_line(number))?;
            let kind = type_of(&value);
            match (kind, self.state) {
                (Some("begin"), State::Fresh | State::Ended) => {
                    self.open(value).map_err(|fault| fault.at_line(number))?;
                    continue;
                }
                (Some("end"), State::Begun) => {
                    self.close(value).map_err(|fault| fault.at_line(number))?;
                    continue;
                }
                (Some("begin"), State::Begun) => {
                    return Err(misplaced("begin", "before the `end` of the stream before it", number));
                }
                (Some("begin"), _) => return Err(misplaced("begin", "after plain rows", number)),
                (Some("end"), State::Ended) => return Err(misplaced("end", "twice", number)),
                (Some("end"), _) => return Err(misplaced("end", "without a `begin`", number)),
                (_, State::Ended) => return Err(Fault::RowAfterEnd.at_line(number)),
                (None, State::Begun) => {
                    let fault = match value.get("type") {
                        None => Fault::KeyMissing { key: "type".into() },
                        Some(other) => Fault::KeyMismatch {
                            key: "type".into(),
                            found: json::kind(other).into(),
                            expected: "a string".into(),
                        },
                    };
                    return Err(fault.at_line(number));
                }
                (_, State::Fresh) => self.state = State::Plain,
                _ => {}
            }
            self.row_count += 1;
            let is_ours = self.state == State::Begun;
            let is_record = kind.is_some_and(|kind| is_ours || crate::record::TYPES.contains(&kind));
            return Ok(Some(build(line, is_record, value)));
        }
    }

    fn open(&mut self, mut value: Map<String, Value>) -> std::result::Result<(), Fault> {
        value.shift_remove("type");
        match value.shift_remove("schema") {
            Some(Value::String(schema)) if schema == SCHEMA || schema.starts_with("flowlens/1.") => {}
            Some(Value::String(schema)) => return Err(Fault::SchemaUnknown { found: schema.into() }),
            Some(other) => {
                return Err(Fault::KeyMismatch {
                    key: "schema".into(),
                    found: json::kind(&other).into(),
                    expected: "a string".into(),
                });
            }
            None => return Err(Fault::KeyMissing { key: "schema".into() }),
        }
        self.begin = Some(decode::typed(&value)?);
        self.end = None;
        self.row_count = 0;
        self.state = State::Begun;
        Ok(())
    }

    fn close(&mut self, mut value: Map<String, Value>) -> std::result::Result<(), Fault> {
        value.shift_remove("type");
        let end: End = decode::typed(&value)?;
        if self.is_strict && end.row_count != self.row_count {
            return Err(Fault::RowCountMismatch {
                declared: end.row_count,
                counted: self.row_count,
            });
        }
        if end.status == Status::Partial {
            if !self.accepts_partial {
                return Err(Fault::PartialInput { tool: self.producer() });
            }
            self.is_partial = true;
        }
        self.end = Some(end);
        self.state = State::Ended;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        match self.state {
            State::Begun => Err(Fault::EndMissing { tool: self.producer() }.at_line(self.lines.line_count())),
            State::Fresh if self.lines.line_count() == 0 => Err(Fault::InputEmpty.whole()),
            _ => Ok(()),
        }
    }

    fn producer(&self) -> KeyName {
        self.begin.as_ref().map_or("", |begin| &begin.tool).into()
    }
}

fn type_of(value: &Map<String, Value>) -> Option<&str> {
    value.get("type").and_then(Value::as_str)
}

/// The last row, if it is a record, for a filter that passes it on. Its memory serves every row.
#[derive(Default)]
pub(crate) struct LastRecord {
    is_there: bool,
    kind: String,
    text: String,
}

impl LastRecord {
    fn keep(&mut self, is_record: bool, line: &Line<'_>, value: &Map<String, Value>) {
        self.is_there = is_record;
        if is_record {
            type_of(value).unwrap_or_default().clone_into(&mut self.kind);
            line.text.clone_into(&mut self.text);
        }
    }

    /// Its type and its line.
    pub(crate) fn get(&self) -> Option<(&str, &str)> {
        self.is_there.then_some((&self.kind, &self.text))
    }
}

/// Cheap and generous: a mark of ours starts with its type, one that jq rewrote may not.
pub(crate) fn may_be_mark(text: &str) -> bool {
    text.contains(r#""begin""#) || text.contains(r#""end""#)
}

fn misplaced(mark: &'static str, reason: &'static str, line: u64) -> Error {
    Fault::MarkMisplaced { mark, reason }.at_line(line)
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.next_row().transpose()
    }
}

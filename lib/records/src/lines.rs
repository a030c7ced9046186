//! Bytes to lines: bounded, UTF-8, without NUL, without byte order mark or carriage return. Knows nothing of JSON.
//! The borrowed fast path of the crate: a line is a slice of the read buffer, and [`Line::parse`] builds only what the target type asks for.

use std::io::Read;

use serde::Deserialize;

use crate::error::{Error, Fault, Result};
use crate::limits::Limits;

/// One line of an input.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// 1-based.
    pub number: u64,
    /// Without line end; checked to be UTF-8 without NUL.
    pub text: &'a str,
}

impl<'a> Line<'a> {
    pub fn is_blank(&self) -> bool {
        self.text.bytes().all(|byte| byte.is_ascii_whitespace())
    }

    /// Parses JSON straight into `T`, skipping the keys it does not name.
    ///
    /// Checked: length, UTF-8, NUL, JSON grammar, the types and the uniqueness of the keys that `T` names. **Not** checked: duplicates
    /// among skipped keys, depth and number limits inside skipped values. [`crate::Reader`] checks everything.
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T> {
        crate::decode::typed_text(self.text).map_err(|fault| fault.at_line(self.number))
    }
}

/// Cuts an input into [`Line`]s. Memory: one buffer, at most the line limit and 64 KiB.
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    number: u64,
    line_bytes_max: usize,
    at_end: bool,
}

/// First allocation, and the most that is asked of the input at once.
const BUFFER_BYTES: usize = 256 << 10;

impl<R: Read> Lines<R> {
    pub fn new(input: R) -> Lines<R> {
        Lines::with_limits(input, &Limits::default())
    }

    pub fn with_limits(input: R, limits: &Limits) -> Lines<R> {
        Lines {
            input,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            number: 0,
            line_bytes_max: limits.line_bytes,
            at_end: false,
        }
    }

    /// Lines handed out so far.
    pub fn line_count(&self) -> u64 {
        self.number
    }

    /// The next line, blank ones included; `None` at the end. A last line without line end counts.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        let number = self.number + 1;
        let mut searched = 0;
        let length = loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(found) = memchr::memchr(b'\n', &unread[searched..]) {
                break searched + found;
            }
            searched = unread.len();
            // The byte order mark and a carriage return do not count; they are at most four bytes.
            if searched > self.line_bytes_max + 4 {
                return Err(Fault::LineTooLong {
                    limit: self.line_bytes_max,
                }
                .at_line(number));
            }
            if self.at_end {
                if searched == 0 {
                    return Ok(None);
                }
                break searched;
            }
            self.fill().map_err(|error| error_at(error, number))?;
        };
        let (from, to) = (self.start, self.start + length);
        self.start = (to + 1).min(self.end);
        self.number = number;

        let mut bytes = &self.buffer[from..to];
        if number == 1 {
            bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        }
        bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() > self.line_bytes_max {
            return Err(Fault::LineTooLong {
                limit: self.line_bytes_max,
            }
            .at_line(number));
        }
        let text = checked_text(bytes).map_err(|fault| fault.at_line(number))?;
        Ok(Some(Line { number, text }))
    }

    /// Reads once more. BOUND: the buffer doubles up to the line limit, whatever the input claims.
    fn fill(&mut self) -> std::io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let bytes = (self.buffer.len() * 2).clamp(BUFFER_BYTES, self.line_bytes_max.max(BUFFER_BYTES) + (64 << 10));
            self.buffer.reserve_exact(bytes - self.buffer.len());
            self.buffer.resize(bytes, 0);
        }
        let read = retry_interrupted(|| self.input.read(&mut self.buffer[self.end..]))?;
        self.end += read;
        self.at_end = read == 0;
        Ok(())
    }
}

pub(crate) fn retry_interrupted(mut read: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn error_at(error: std::io::Error, line: u64) -> Error {
    match Fault::from_read(error) {
        fault @ Fault::Io(_) => fault.whole(),
        fault => fault.at_line(line),
    }
}

/// UTF-8 without NUL, or the fault with its 1-based byte.
pub(crate) fn checked_text(bytes: &[u8]) -> std::result::Result<&str, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault::NotUtf8 {
        column: error.valid_up_to() + 1,
    })?;
    match memchr::memchr(0, bytes) {
        Some(at) => Err(Fault::NulByte { column: at + 1 }),
        None => Ok(text),
    }
}

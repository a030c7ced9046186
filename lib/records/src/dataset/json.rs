//! An array of objects, or objects one after another, cut into elements without ever holding more than one.

use std::io::BufRead;

use super::{Found, Rows};
use crate::error::{Fault, Result};
use crate::limits::Limits;
use crate::lines::checked_text;

pub(super) struct Elements<R> {
    input: R,
    limits: Limits,
    fields: Option<Vec<String>>,
    layout: Layout,
    element: Vec<u8>,
    /// A whole element was read; what is wrong with it is wrong with it alone.
    has_element: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Nothing read yet.
    Unknown,
    /// Inside `[` … `]`; whether an element came before.
    Array { is_first: bool },
    /// Objects with white space between them.
    Sequence,
    /// After `]`.
    Closed,
}

impl<R: BufRead> Elements<R> {
    pub(super) fn new(input: R, limits: Limits, fields: Option<Vec<String>>) -> Elements<R> {
        Elements {
            input,
            limits,
            fields,
            layout: Layout::Unknown,
            element: Vec::new(),
            has_element: false,
        }
    }

    /// The next byte that is not white space, not consumed.
    fn peek(&mut self) -> std::result::Result<Option<u8>, Fault> {
        loop {
            let bytes = fill(&mut self.input)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            match bytes
                .iter()
                .position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            {
                Some(at) => {
                    let byte = bytes[at];
                    self.input.consume(at);
                    return Ok(Some(byte));
                }
                None => {
                    let blank = bytes.len();
                    self.input.consume(blank);
                }
            }
        }
    }

    /// Moves to the first byte of the next element; `None` at the proper end.
    fn seek_element(&mut self) -> std::result::Result<Option<()>, Fault> {
        loop {
            let byte = self.peek()?;
            match (self.layout, byte) {
                (Layout::Unknown, Some(b'[')) => {
                    self.input.consume(1);
                    self.layout = Layout::Array { is_first: true };
                }
                (Layout::Unknown, Some(_)) => self.layout = Layout::Sequence,
                (Layout::Unknown, None) => return Err(Fault::InputEmpty),
                (Layout::Sequence | Layout::Closed, None) => return Ok(None),
                (Layout::Sequence, Some(_)) => return Ok(Some(())),
                (Layout::Closed, Some(_)) => return Err(syntax("data after the array")),
                (Layout::Array { .. }, None) => return Err(cut_off()),
                (Layout::Array { .. }, Some(b']')) => {
                    self.input.consume(1);
                    self.layout = Layout::Closed;
                }
                (Layout::Array { is_first: true }, Some(_)) => {
                    self.layout = Layout::Array { is_first: false };
                    return Ok(Some(()));
                }
                (Layout::Array { is_first: false }, Some(b',')) => {
                    self.input.consume(1);
                    return match self.peek()? {
                        Some(b']' | b',') => Err(syntax("an element is missing after a comma")),
                        None => Err(cut_off()),
                        Some(_) => Ok(Some(())),
                    };
                }
                (Layout::Array { is_first: false }, Some(_)) => {
                    return Err(syntax("a comma is missing between elements"));
                }
            }
        }
    }

    /// Copies one element: brackets are balanced and strings skipped here, the grammar is the decoder's. BOUND: the line limit.
    fn read_element(&mut self) -> std::result::Result<(), Fault> {
        self.element.clear();
        let mut depth = 0_usize;
        let mut in_string = false;
        let mut is_escaped = false;
        loop {
            let bytes = fill(&mut self.input)?;
            if bytes.is_empty() {
                // A bare scalar may end the input; the decoder says that it is no object.
                return if depth > 0 || in_string { Err(cut_off()) } else { Ok(()) };
            }
            let mut at = 0;
            let mut is_complete = false;
            while at < bytes.len() && !is_complete {
                if is_escaped {
                    is_escaped = false;
                    at += 1;
                    continue;
                }
                if in_string {
                    match memchr::memchr2(b'"', b'\\', &bytes[at..]) {
                        None => at = bytes.len(),
                        Some(step) => {
                            let byte = bytes[at + step];
                            at += step + 1;
                            in_string = byte == b'\\';
                            is_escaped = byte == b'\\';
                        }
                    }
                    continue;
                }
                match bytes[at] {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 0 => {
                        is_complete = true;
                        continue;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        is_complete = depth == 0;
                    }
                    b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                        is_complete = true;
                        continue;
                    }
                    _ => {}
                }
                at += 1;
            }
            if self.element.len() + at > self.limits.line_bytes {
                return Err(Fault::LineTooLong {
                    limit: self.limits.line_bytes,
                });
            }
            self.element.extend_from_slice(&bytes[..at]);
            self.input.consume(at);
            if is_complete {
                // In a sequence a stray bracket would not be consumed by anyone.
                return if self.element.is_empty() {
                    Err(syntax("unexpected bracket"))
                } else {
                    Ok(())
                };
            }
        }
    }
}

fn fill(input: &mut impl BufRead) -> std::result::Result<&[u8], Fault> {
    // The borrow checker cannot see through a loop that returns what it borrowed: ask once to retry, once to return.
    crate::lines::retry_interrupted(|| input.fill_buf().map(<[u8]>::len)).map_err(Fault::from_read)?;
    input.fill_buf().map_err(Fault::from_read)
}

fn syntax(reason: &str) -> Fault {
    let reason = reason.to_owned();
    ::json::Fault::NotJson { column: 1, reason }.into()
}

fn cut_off() -> Fault {
    Fault::Truncated(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
}

impl<R: BufRead + Send> Rows for Elements<R> {
    fn next_row(&mut self, index: u64) -> Result<Option<Found>> {
        self.has_element = false;
        (|| {
            if self.seek_element()?.is_none() {
                return Ok(None);
            }
            self.read_element()?;
            self.has_element = true;
            let text = checked_text(&self.element)?;
            let value = match &self.fields {
                Some(fields) => ::json::object_fields(text, &self.limits.json, fields)?,
                None => ::json::object(text, &self.limits.json)?,
            };
            Ok(Some((None, value)))
        })()
        .map_err(|fault: Fault| match fault {
            Fault::Io(_) | Fault::InputEmpty => fault.whole(),
            fault => fault.at_row(index),
        })
    }

    fn is_past_error(&self) -> bool {
        self.has_element
    }
}

//! Where completions go: back into the order of the input, line by line into the output, each marked in the journal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use process::{Journal, Output, Progress, Result, ResultExt};
use records::{Begin, Completion, Finish, Status, Writer};

use crate::report::{BeginKeys, Mark};
use crate::resume::Start;

/// Puts completions back into the order of the input.
pub struct Sink {
    writer: Writer<Ledger>,
    /// Done, but not their turn.
    waiting: BTreeMap<u64, Completion>,
    next: u64,
    is_partial: bool,
    token_count: u64,
}

/// What was written, before it is committed.
pub struct Written {
    pub ledger: Ledger,
    pub is_partial: bool,
    /// Of this process, without what a stopped run had done.
    pub token_count: u64,
}

impl Sink {
    /// Goes on where `start` says; a fresh output is begun.
    pub fn open(start: Start, begin: &Begin, keys: &BeginKeys, input_status: Status) -> Result<Sink> {
        let ledger = Ledger {
            end: if start.has_begun {
                start.output.resumed_bytes()?
            } else {
                0
            },
            output: start.output,
            journal: start.journal,
        };
        let mut writer = match start.has_begun {
            true => Writer::resume(ledger, start.done_count),
            false => Writer::new(ledger),
        };
        if !start.has_begun {
            writer.begin(begin, keys).at("output")?;
        }
        Ok(Sink {
            writer,
            waiting: BTreeMap::new(),
            next: start.done_count,
            is_partial: input_status == Status::Partial,
            token_count: 0,
        })
    }

    /// Records that are written.
    pub fn done_count(&self) -> u64 {
        self.next
    }

    pub fn take(&mut self, order: u64, completion: Completion, progress: &Progress) -> Result<()> {
        self.waiting.insert(order, completion);
        while let Some(completion) = self.waiting.remove(&self.next) {
            self.is_partial |= completion.finish == Some(Finish::Error);
            self.token_count += completion.token_count.unwrap_or(0);
            self.writer.row(&completion).at("output")?;
            self.next += 1;
            progress.advance(1);
        }
        Ok(())
    }

    pub fn end(self) -> Result<Written> {
        let status = match self.is_partial {
            true => Status::Partial,
            false => Status::Complete,
        };
        Ok(Written {
            ledger: self.writer.end(status, &()).at("output")?,
            is_partial: self.is_partial,
            token_count: self.token_count,
        })
    }
}

/// The output and its journal: a record that was handed on whole is marked.
pub struct Ledger {
    output: Output,
    journal: Option<Journal>,
    /// Bytes so far.
    end: u64,
}

impl Ledger {
    pub fn is_file(&self) -> bool {
        self.output.is_file()
    }

    pub fn commit(self) -> Result<()> {
        self.output.commit()?;
        match self.journal {
            Some(journal) => journal.remove(),
            None => Ok(()),
        }
    }
}

impl Write for Ledger {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.write_all(line)?;
        self.end += line.len() as u64;
        if let Some(journal) = &mut self.journal
            && line.starts_with(br#"{"type":"completion""#)
        {
            // The line reaches the file before its mark does.
            self.output.flush()?;
            journal
                .mark(&Mark {
                    end: self.end,
                    digest: process::sha256(line),
                })
                .map_err(|cause| io::Error::other(cause.to_string()))?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

//! The input of `score`: answers, and records of other types, which a filter passes on as they are.

use std::collections::HashSet;
use std::path::Path;

use process::{Error, Result, ResultExt};
use records::dataset::{Dataset, Row};
use records::{Completion, JoinKey, Status};
use serde_json::Value;

use crate::cli::{Bench, Source};
use crate::lm_eval;

pub enum Entry {
    /// With the row's 0-based place in the input.
    Answer(u64, Box<Completion>),
    Foreign(records::Row),
}

pub struct Rows {
    rows: Dataset,
    /// How messages name the input.
    pub subject: String,
    from: Source,
    bench: Option<Bench>,
    /// The task in a log's name.
    task: Option<String>,
    logged: HashSet<u64>,
    seen: HashSet<JoinKey>,
}

impl Rows {
    pub fn new(rows: Dataset, path: &Path, from: Source, bench: Option<Bench>) -> Rows {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        Rows {
            rows,
            subject: process::input_name(path),
            from,
            bench,
            task: lm_eval::task_of(stem).map(str::to_owned),
            logged: HashSet::new(),
            seen: HashSet::new(),
        }
    }

    /// The next answer or foreign record. The inner error is about this row alone.
    pub fn next_entry(&mut self) -> Result<Option<records::Result<Entry>>> {
        while let Some(row) = self.rows.next() {
            let row = row.at(&self.subject)?;
            if let Some((kind, text)) = self.rows.record()
                && is_foreign(kind)
            {
                return Ok(Some(Ok(Entry::Foreign(records::Row {
                    line: row.line.unwrap_or(row.index),
                    kind: Some(kind.to_owned()),
                    text: text.to_owned(),
                    value: row.value,
                }))));
            }
            // A record of ours in a JSON array has no line to pass on.
            let kind = row.value.get("type").and_then(Value::as_str);
            if kind.is_some_and(|kind| is_foreign(kind) && records::TYPES.contains(&kind)) {
                continue;
            }
            if let Some(answer) = self.answer(&row).transpose() {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The answer in a row, `None` where it was there under another filter of lm-evaluation-harness.
    fn answer(&mut self, row: &Row) -> records::Result<Option<Entry>> {
        let completion = match (self.from, self.bench) {
            (Source::LmEval, Some(bench)) => lm_eval::completion(row, bench, self.task.as_deref(), &mut self.logged)?,
            _ => Some(row.decode::<Completion>()?),
        };
        let Some(completion) = completion else {
            return Ok(None);
        };
        if !self.seen.insert(completion.key()) {
            return Err(row.refuse("second row for the same bench, id and attempt"));
        }
        Ok(Some(Entry::Answer(row.index, Box::new(completion))))
    }

    pub fn status(&self) -> Status {
        self.rows.status()
    }

    pub fn digest(&self) -> Option<String> {
        self.rows.digest()
    }

    /// A refusal of a row that was read but cannot be scored.
    pub fn refuse(&self, index: u64, why: &str) -> Error {
        Error::input(&self.subject, format!("row index {index}: {why}"))
            .hint("--keep-going leaves such rows out and exits 6")
    }
}

fn is_foreign(kind: &str) -> bool {
    kind != "completion" && kind != "prompt"
}

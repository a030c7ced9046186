//! Taking up a partial output: what is sound in it, and what is already finished.
//!
//! The journal beside the partial file marks every record that was written: where it ends and the digest of its line. A record counts
//! as done only where both agree; from the first that does not, the file is cut and computed again. Without a journal all is computed
//! again, to the same bytes.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use process::{Error, Existing, Journal, Output, Result, ResultExt};
use serde::Serialize;

use crate::report::Mark;

/// Where a run stands when it begins.
pub struct Start {
    pub output: Output,
    pub journal: Option<Journal>,
    /// Records that are in the output already.
    pub done_count: u64,
    /// Whether `begin` is in it.
    pub has_begun: bool,
}

/// Whether the finished output at `path` is of this plan and shard: then there is nothing left to do.
pub fn is_finished(path: &Path, plan_digest: &str, shard: Option<&str>) -> Result<bool> {
    let Ok(file) = std::fs::File::open(path) else {
        return Ok(false);
    };
    if !file.metadata().at(path.display())?.is_file() {
        return Ok(false);
    }
    let mut lines = records::Lines::new(file);
    let begin: serde_json::Value = match lines.next_line().at(path.display())? {
        Some(line) => line.parse().at(path.display())?,
        None => serde_json::Value::Null,
    };
    let same = begin.get("plan_digest").and_then(serde_json::Value::as_str) == Some(plan_digest)
        && begin.get("shard").and_then(serde_json::Value::as_str) == shard;
    if same {
        return Ok(true);
    }
    Err(
        Error::conflict(path.display(), "exists, and is the output of another plan or shard")
            .hint("--force replaces it"),
    )
}

/// Opens the output, fresh or where the last run left it.
pub fn open(
    path: &Path,
    existing: Existing,
    inputs: &[std::path::PathBuf],
    plan: &impl Serialize,
    begin_line: &str,
) -> Result<Start> {
    let mut output = Output::create(path, existing, inputs)?;
    if !output.is_file() {
        return Ok(Start {
            output,
            journal: None,
            done_count: 0,
            has_begun: false,
        });
    }
    output.keep_partial();
    let (mut journal, marks) = match existing {
        Existing::Resume => Journal::resume::<Mark>(path, plan)?,
        _ => (Journal::create(path, plan)?, Vec::new()),
    };
    let file = output
        .partial_file()
        .ok_or_else(|| Error::bug("output", "a file has a partial file"))?;
    file.seek(SeekFrom::Start(0)).at(path.display())?;
    let mut head = vec![0; begin_line.len()];
    let has_begun = file.read_exact(&mut head).is_ok() && head == begin_line.as_bytes();
    let mut end = if has_begun { begin_line.len() as u64 } else { 0 };
    let mut sound = Vec::new();
    if has_begun {
        for mark in marks {
            let Some(length) = mark.end.checked_sub(end).filter(|&length| length > 0) else {
                break;
            };
            // BOUND: a record is at most a line long.
            if length > records::Limits::default().line_bytes as u64 + 1 {
                break;
            }
            let mut line = vec![0; length as usize];
            if file.read_exact(&mut line).is_err() || process::sha256(&line) != mark.digest {
                break;
            }
            end = mark.end;
            sound.push(mark);
        }
    }
    file.set_len(end).at(path.display())?;
    file.seek(SeekFrom::Start(end)).at(path.display())?;
    if existing == Existing::Resume {
        // What the journal says beyond the sound part is void.
        journal = Journal::create(path, plan)?;
        for mark in &sound {
            journal.mark(mark)?;
        }
    }
    Ok(Start {
        output,
        journal: Some(journal),
        done_count: sound.len() as u64,
        has_begun,
    })
}

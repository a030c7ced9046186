//! Taking up a partial output: what is sound in it, and what is already finished.
//!
//! The journal beside the partial file marks every record that was written: where it ends and the digest of its line. A record counts
//! as done only where both agree; from the first that does not, the file is cut and computed again. Without a journal all is computed
//! again, to the same bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use process::{Error, Existing, Journal, MixedCompute, Output, Result, ResultExt};
use serde::Serialize;
use serde_json::Value;

use crate::plan::Target;
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

/// What an output must agree in with the run that takes it up.
#[derive(Clone, Copy)]
pub struct Wanted<'r> {
    /// The `begin` record, as this run would write it.
    pub begin_line: &'r str,
    pub mixed: MixedCompute,
}

impl Wanted<'_> {
    /// The first place where a `begin` record differs from ours.
    fn difference(self, line: &str) -> Option<String> {
        let [was, is] = [line, self.begin_line].map(|line| serde_json::from_str(line).unwrap_or(Value::Null));
        match was.is_object() {
            true => process::plan::difference(&self.mixed.comparable(was), &self.mixed.comparable(is)),
            false => Some("it has no begin record".into()),
        }
    }
}

/// Whether the finished output at `path` is of this run: then there is nothing left to do.
pub fn is_finished(path: &Path, wanted: Wanted) -> Result<bool> {
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    if !file.metadata().at(path.display())?.is_file() {
        return Ok(false);
    }
    let mut lines = records::Lines::new(file);
    let line = lines.next_line().at(path.display())?;
    match wanted.difference(line.map_or("", |line| line.text)) {
        None => Ok(true),
        Some(difference) => Err(Error::conflict(
            path.display(),
            format!("exists, and is the output of another plan or shard: {difference}"),
        )
        .hint("--force replaces it")),
    }
}

/// Opens the output, fresh or where the last run left it.
pub fn open(target: &Target, plan: &impl Serialize, wanted: Wanted) -> Result<Start> {
    let (path, existing) = (&target.path, target.existing);
    let mut output = Output::create(path, existing, &target.inputs)?;
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
        Existing::Resume => Journal::resume::<Mark>(path, plan, wanted.mixed)?,
        _ => (Journal::create(path, plan)?, Vec::new()),
    };
    let file = output
        .partial_file()
        .ok_or_else(|| Error::bug("output", "a file has a partial file"))?;
    let (end, sound) = sound(file, marks, wanted).at(path.display())?;
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
        has_begun: end > 0,
    })
}

/// How much of a partial output holds, and the marks of the records in it.
fn sound(file: &mut File, marks: Vec<Mark>, wanted: Wanted) -> io::Result<(u64, Vec<Mark>)> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut begin = Vec::new();
    // BOUND: a line is at most so long.
    let line_bytes_max = records::Limits::default().line_bytes as u64 + 1;
    reader.by_ref().take(line_bytes_max).read_until(b'\n', &mut begin)?;
    let begins_ours =
        begin.ends_with(b"\n") && std::str::from_utf8(&begin).is_ok_and(|line| wanted.difference(line).is_none());
    if !begins_ours {
        return Ok((0, Vec::new()));
    }
    let mut end = begin.len() as u64;
    let mut sound = Vec::new();
    for mark in marks {
        let Some(length) = mark
            .end
            .checked_sub(end)
            .filter(|length| (1..=line_bytes_max).contains(length))
        else {
            break;
        };
        let mut line = vec![0; length as usize];
        if reader.read_exact(&mut line).is_err() || process::sha256(&line) != mark.digest {
            break;
        }
        end = mark.end;
        sound.push(mark);
    }
    Ok((end, sound))
}

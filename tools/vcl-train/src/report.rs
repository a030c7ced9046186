//! What the tool says: one row per step on stdout, the same bytes in metrics.jsonl, and the answer of --probe.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use process::{Error, Result, ResultExt, Stdout};
use records::{Begin, Eval, Metric, Reader, Status, Writer};
use serde::Serialize;

use crate::trainer::Phases;

/// stdout, the file in the run's directory, and what a checkpoint keeps of it.
struct Tee {
    stdout: Stdout,
    file: File,
    bytes: Vec<u8>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write_all(bytes)?;
        self.file.write_all(bytes)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// The record stream of a run.
pub struct Log {
    writer: Writer<Tee>,
}

impl Log {
    /// Begins the stream, repeating the rows that a checkpoint kept (a whole stream but for its end).
    pub fn begin(path: &Path, plan_digest: &str, kept: Option<&[u8]>) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(path)
            .at(path.display())?;
        let tee = Tee {
            stdout: process::stdout().tolerant(),
            file,
            bytes: Vec::new(),
        };
        let mut log = Self {
            writer: Writer::new(tee),
        };
        let begin = Begin::new("vcl-train", process::VERSION).plan_digest(plan_digest);
        log.writer.begin(&begin, &()).at("stdout")?;
        // the first kept line is the `begin` that was just written
        for line in kept
            .unwrap_or_default()
            .split(|&byte| byte == b'\n')
            .skip(1)
            .filter(|line| !line.is_empty())
        {
            let mut plain = Reader::new(line);
            while let Some(row) = plain.next_row().at(path.display())? {
                log.writer.row_text(&row).at("stdout")?;
            }
        }
        log.flush()?;
        Ok(log)
    }

    pub fn metric(&mut self, metric: &Metric) -> Result<()> {
        self.writer.row(metric).at("stdout")?;
        self.flush()
    }

    pub fn eval(&mut self, eval: &Eval) -> Result<()> {
        self.writer.row(eval).at("stdout")?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().at("stdout")
    }

    /// Everything said so far.
    pub fn bytes(&self) -> &[u8] {
        &self.writer.output().bytes
    }

    /// Ends the stream; the file is synced, stdout still to be finished.
    pub fn end(self) -> Result<Stdout> {
        let tee = self.writer.end(Status::Complete, &()).at("stdout")?;
        tee.file.sync_all().at("metrics.jsonl")?;
        Ok(tee.stdout)
    }
}

/// The answer of --probe.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "probe")]
pub struct Probe {
    pub probed_step_count: u64,
    pub seconds_per_step: f64,
    pub tokens_per_second: f64,
    pub steps: u64,
    pub estimated_seconds: f64,
    /// Of the timed steps together.
    pub phase_seconds: Phases,
    pub peak_rss_bytes: u64,
    pub planned_memory_bytes: u64,
}

impl Probe {
    pub fn print(&self) -> Result<()> {
        let mut out = process::stdout();
        let text = serde_json::to_string(self).map_err(|cause| Error::bug("probe", cause))?;
        writeln!(out, "{text}").at("stdout")?;
        out.finish()
    }
}

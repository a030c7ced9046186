//! The run manifest, `OUT.run.json`: everything about a run that may differ between two runs of one plan.
//!
//! Time, host, rates, paths and thread counts live here so that outputs themselves stay the same bytes.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::exit::{Error, Result, ResultExt};
use crate::output::{Existing, Output};
use crate::usage::Usage;

/// Notes facts while a run goes on; written beside the output when it is committed.
pub struct Manifest {
    started: SystemTime,
    clock: Instant,
    facts: Map<String, Value>,
}

impl Default for Manifest {
    fn default() -> Self {
        Manifest::start()
    }
}

impl Manifest {
    pub fn start() -> Manifest {
        Manifest {
            started: SystemTime::now(),
            clock: Instant::now(),
            facts: Map::new(),
        }
    }

    /// A fact of this run: a rate, an input path, a device name.
    pub fn note(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).map_err(|cause| Error::bug("manifest", cause))?;
        self.facts.insert(name.to_string(), value);
        Ok(())
    }

    /// Writes `OUT.run.json`.
    pub fn write(&self, output: &Path, plan: &impl Serialize) -> Result<()> {
        self.write_as(&run_path(output), plan)
    }

    /// Writes the manifest under a name of the tool's choice.
    pub fn write_as(&self, path: &Path, plan: &impl Serialize) -> Result<()> {
        let usage = Usage::now();
        let arguments: Vec<String> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut record = Map::new();
        let mut put = |name: &str, value: Value| record.insert(name.to_string(), value);
        put("tool", crate::tool_name().into());
        put("version", crate::VERSION.into());
        if let Some(revision) = crate::REVISION {
            put("revision", revision.into());
        }
        put("arguments", arguments.into());
        put("host", host().into());
        put(
            "started",
            humantime::format_rfc3339_seconds(self.started).to_string().into(),
        );
        put(
            "ended",
            humantime::format_rfc3339_seconds(SystemTime::now()).to_string().into(),
        );
        put("wall_seconds", self.clock.elapsed().as_secs_f64().into());
        put("cpu_seconds", usage.cpu_seconds.into());
        put("peak_rss_bytes", usage.peak_rss_bytes.into());
        put("thread_count", rayon::current_num_threads().into());
        for (name, value) in &self.facts {
            put(name, value.clone());
        }
        put(
            "plan",
            serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?,
        );
        let mut text = serde_json::to_vec_pretty(&record).map_err(|cause| Error::bug("manifest", cause))?;
        text.push(b'\n');
        let mut file = Output::create(path, Existing::Replace, &[])?;
        file.write_all(&text).at(path.display())?;
        file.commit()
    }
}

fn run_path(output: &Path) -> PathBuf {
    let mut name = OsString::from(output.file_name().unwrap_or_default());
    name.push(".run.json");
    output.with_file_name(name)
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_string())
        .unwrap_or_else(|_| "unknown".to_string())
}

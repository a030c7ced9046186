//! What comes out: a plan in its file, and the records that say what it was based on.

use std::path::{Path, PathBuf};

use acts::Header;
use process::{Existing, Output, OutputFlags, Result, ResultExt};
use records::{Begin, Status, Writer};
use serde::Serialize;
use serde_json::Value;

use crate::plan::Plan;

/// What a method found.
#[derive(Default)]
pub struct Found {
    /// Absent where nothing was good enough.
    pub plan: Option<steering::Plan>,
    pub rows: Vec<Value>,
}

impl Found {
    pub fn row(&mut self, row: &impl Serialize) -> Result<()> {
        self.rows.push(serde_json::to_value(row).at("record")?);
        Ok(())
    }
}

/// Writes both: the records to stdout, unless the plan goes there.
pub fn deliver(plan: &Plan, flags: &OutputFlags, inputs: &[PathBuf], found: &Found) -> Result<()> {
    let path = flags.output.as_deref().unwrap_or(Path::new("-"));
    let digest = process::plan::digest(plan)?;
    if let Some(steering) = &found.plan {
        let mut header = Header::new(process::tool_name(), process::VERSION, &digest, None);
        header.template_digest.clone_from(&plan.template_digest);
        header
            .meta
            .insert("plan".into(), serde_json::to_value(plan).at("plan")?);
        let output = Output::create_binary(path, Existing::from_flags(flags.force, false), inputs)?;
        steering.write(output, header)?.commit()?;
    }
    if path == Path::new("-") {
        return Ok(());
    }
    let stdout = Output::create(Path::new("-"), Existing::Refuse, &[])?.tolerant();
    let mut writer = Writer::new(stdout);
    let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(digest);
    writer.begin(&begin, &()).at("stdout")?;
    for row in &found.rows {
        writer.row(row).at("stdout")?;
    }
    writer.end(Status::Complete, &()).at("stdout")?.commit()
}

//! Keeping what verifies of a damaged container. Two passes over it: the first finds out what is missing, which the header of the result
//! must say before its first block; the second copies.

use crate::plan::Plan;
use crate::report::MissingRow;
use acts::{Header, Summary, Writer};
use process::{Error, Output, Result, ResultExt};

/// BOUND: missing ranges that the header lists; beyond them only their number is kept.
const LISTED_MAX: usize = 4096;

pub struct Salvage {
    pub header: Header,
    pub missing: Vec<MissingRow>,
    pub lost_bytes: u64,
}

/// Finds what can be kept.
pub fn survey(plan: &Plan) -> Result<Salvage> {
    let path = &plan.inputs[0];
    let name = path.display().to_string();
    let damaged = acts::salvage_header(path).at(&name)?;
    let mut next_row: Vec<u64> = vec![0; damaged.tensors.len()];
    let mut missing = Vec::new();
    let report = acts::salvage(path, plan.open.map, |block| {
        let spec = &damaged.tensors[block.tensor];
        let rows = block.raw.len() as u64 / spec.row_bytes()?;
        let next = &mut next_row[block.tensor];
        if block.first_row > *next {
            missing.push(MissingRow {
                tensor: spec.name.clone(),
                row_start: *next,
                row_count: block.first_row - *next,
            });
        }
        *next = block.first_row + rows;
        Ok(())
    })
    .at(&name)?;
    for (spec, next) in damaged.tensors.iter().zip(&next_row) {
        if let Some(declared) = spec.row_count.filter(|declared| declared > next) {
            missing.push(MissingRow {
                tensor: spec.name.clone(),
                row_start: *next,
                row_count: declared - next,
            });
        }
    }
    if report.block_count == 0 && damaged.tensors.iter().any(|spec| spec.row_count != Some(0)) {
        return Err(Error::input(name, "no block of it verifies"));
    }
    let mut header = damaged.clone();
    header.salvaged = true;
    header.file_id = acts::file_id(&format!("salvage of {}", damaged.file_id), damaged.shard);
    let listed: Vec<&MissingRow> = missing.iter().take(LISTED_MAX).collect();
    let facts = serde_json::json!({
        "file_id": damaged.file_id, "lost_bytes": report.lost_bytes, "missing_count": missing.len(), "missing": listed,
    });
    header.meta.insert("salvage".into(), facts);
    Ok(Salvage {
        header,
        missing,
        lost_bytes: report.lost_bytes,
    })
}

/// Copies every block that verifies.
pub fn write(plan: &Plan, salvage: &Salvage, out: Output, name: &str) -> Result<(Output, Summary)> {
    let path = &plan.inputs[0];
    let mut writer = Writer::new(out, salvage.header.clone(), plan.threads).at(name)?;
    let mut failure = None;
    let result = acts::salvage(path, plan.open.map, |block| {
        if writer.row_count(block.tensor) < block.first_row {
            writer.skip_to(block.tensor, block.first_row)?;
        }
        writer
            .push(block.tensor, &block.raw)
            .inspect_err(|_| failure = Some(()))
    });
    // An error of the output is the output's, not the damaged file's.
    result.at(if failure.is_some() {
        name.to_string()
    } else {
        path.display().to_string()
    })?;
    writer.finish().at(name)
}

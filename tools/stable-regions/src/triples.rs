//! Three prompts that span a plane, as `--slice` names them.

use crate::pairs::{self, Prompt};
use process::{Result, ResultExt};
use records::dataset::InputFormat;
use std::path::Path;

pub struct Triple {
    pub id: String,
    pub prompts: [Prompt; 3],
}

pub fn read(path: &Path, format: Option<InputFormat>, digests: &mut Vec<String>) -> Result<Vec<Triple>> {
    let rows = pairs::rows(path, format, digests)?;
    let triple = |row| -> records::Result<Triple> {
        let prompt = |key| pairs::prompt(row, key);
        Ok(Triple {
            id: row.id()?,
            prompts: [prompt("a")?, prompt("b")?, prompt("c")?],
        })
    };
    rows.iter().map(|row| triple(row).at(path.display())).collect()
}

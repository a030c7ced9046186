//! IFEval: prompts whose instructions a rule can check. Rows as published, with `key`, `prompt`, `instruction_id_list` and `kwargs`.

use std::path::Path;

use process::{Result, ResultExt};
use records::Prompt;

use super::{Made, open, row_count_max};
use crate::instructions::Instructions;
use crate::plan::Questions;

const NEW_TOKENS_MAX: u64 = 1280;
/// What an answer is checked by.
pub const COLUMNS: [&str; 2] = ["instruction_id_list", "kwargs"];

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    for row in open(questions, path)?.take(row_count_max(questions)) {
        let row = row.at(path.display())?;
        let place = made.next_place();
        let key = row
            .value
            .get("key")
            .map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
        Instructions::parse(&row.value)
            .map_err(|cause| row.refuse(cause))
            .at(path.display())?;
        let rest = COLUMNS
            .iter()
            .filter_map(|column| Some(((*column).to_owned(), row.value.get(*column)?.clone())));
        made.prompts.push(Prompt {
            id: key.unwrap_or(place),
            bench: Some(questions.bench.name().into()),
            prompt: Some(row.text("prompt").at(path.display())?.to_owned()),
            max_new_tokens: Some(NEW_TOKENS_MAX),
            rest: rest.collect(),
            ..Prompt::default()
        });
    }
    Ok(())
}

//! `tokens`: the tokens of every sample, as they would be counted.

use process::{Common, Outcome, Result, ResultExt, Shard, VERSION};
use records::{Begin, Status};
use serde_json::json;

use crate::cli::CorpusArgs;
use crate::input::{self, Shared};
use crate::intake::{Entry, Intake};
use crate::plan::{Budget, Reading, TokensKind};
use crate::report::TokensRow;

/// Tokens are printed as they come: this bounds what the workers remember.
const MEMORY_BYTES: u64 = 1 << 30;

pub fn run(args: &CorpusArgs, common: &Common) -> Result<Outcome> {
    let reading = Reading::new(args)?;
    if common.plan {
        return process::plan::print(&reading.corpus);
    }
    let budget = Budget::new(MEMORY_BYTES, common.thread_count())?;
    let mut intake = Intake::new(&reading.corpus, common);
    let mut writer = records::Writer::new(process::stdout());
    let begin = Begin::new(process::tool_name(), VERSION).plan_digest(process::plan::digest(&reading.corpus)?);
    writer.begin(&begin, &json!({})).at("stdout")?;
    let has_ids = matches!(reading.corpus.tokens.kind, TokensKind::Files(_));
    input::read(Shared::new(&reading, Shard::WHOLE)?, budget, |shared, batch| {
        let strings = shared.tokenizer.strings_of(&batch.tokens);
        intake.take(shared, batch, &mut |entry| {
            let Entry::Sample(sample) = entry else { return Ok(()) };
            let row = TokensRow {
                id: sample.id.map_or_else(|| format!("#{}", sample.index), str::to_owned),
                sample_index: sample.index,
                group: sample.group.to_owned(),
                tokens: sample.tokens.iter().map(|id| strings[id].clone()).collect(),
                token_ids: has_ids.then(|| sample.tokens.to_vec()),
            };
            writer.row(&row).at("stdout")
        })
    })?;
    let outcome = intake.outcome();
    let status = Status::partial_if(outcome == Outcome::Partial);
    writer.end(status, &json!({})).at("stdout")?.finish()?;
    Ok(outcome)
}

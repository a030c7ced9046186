//! Records in, token ids out: what the model is asked, in the words of its template.

use std::collections::HashSet;
use std::path::Path;

use model::{Bos, Slot, Template, Tokenizer};
use process::{Error, Result, ResultExt, Shard};
use records::dataset::{self, Row};
use records::{Completion, Prompt, Status};
use serde_json::Value;

use crate::cli::Args;

/// A record as it came, and what it asks for.
pub struct Item {
    /// 0-based in the whole input.
    pub sample_index: u64,
    pub prompt: Prompt,
    pub text_digest: String,
    /// The completion to be scored.
    pub given: Option<String>,
}

/// The whole input, and the part of it that is ours.
pub struct Input {
    pub items: Vec<Item>,
    pub digest: String,
    /// Records before shard and limit took theirs.
    pub count: u64,
    pub status: Status,
}

/// Reads all prompts, so that the plan covers them.
pub fn read(path: &Path, args: &Args, shard: Shard) -> Result<Input> {
    let subject = process::input_name(path);
    let mut rows = dataset::Options::new()
        .format(args.input_format)
        .digest(true)
        .accept_partial(args.keep_going)
        .open(path)
        .at(&subject)?;
    let mut items = Vec::new();
    let mut seen = HashSet::new();
    let mut count = 0;
    for row in rows.by_ref() {
        let row = row.at(&subject)?;
        if is_other_record(&row) {
            continue;
        }
        let item = item(&row, count, args.score).at(&subject)?;
        count += 1;
        if !seen.insert((item.prompt.bench.clone(), item.prompt.id.clone())) {
            let (id, bench) = (&item.prompt.id, item.prompt.bench.as_deref().unwrap_or_default());
            let cause = format!("the id {id} of bench {bench:?} is there twice");
            return Err(row.refuse(cause)).at(&subject);
        }
        let is_ours = records::bucket(&item.text_digest).is_some_and(|bucket| shard.owns(bucket));
        if is_ours && args.limit.is_none_or(|limit| item.sample_index < limit) {
            items.push(item);
        }
    }
    let digest = rows
        .digest()
        .ok_or_else(|| Error::bug("input", "has no digest after its last row"))?;
    Ok(Input {
        items,
        digest,
        count,
        status: rows.status(),
    })
}

/// A record of ours that is no prompt: a summary between completions, say.
fn is_other_record(row: &Row) -> bool {
    let kind = row.value.get("type").and_then(Value::as_str);
    kind.is_some_and(|kind| records::TYPES.contains(&kind) && kind != "prompt" && kind != "completion")
}

fn item(row: &Row, sample_index: u64, scores: bool) -> records::Result<Item> {
    let mut prompt: Prompt = row.decode()?;
    // Keys that this tool writes are not carried over from another run.
    let mut given = prompt.take_answer();
    if scores && given.is_none() {
        given = prompt.take_last_answer();
    }
    let text_digest = prompt
        .text_digest()
        .ok_or_else(|| row.refuse("neither prompt nor messages"))?;
    if scores && given.is_none() && prompt.choices.is_none() {
        return Err(row.refuse("--score wants a completion, or messages that end with the assistant's"));
    }
    Ok(Item {
        sample_index,
        prompt,
        text_digest,
        given,
    })
}

/// How prompts become token ids.
pub struct Speech<'m> {
    pub tokenizer: &'m Tokenizer,
    pub template: Option<&'m Template>,
    pub system: Option<&'m str>,
    /// Where a soft prompt stands, which is then the system message.
    pub slot: Option<&'m Slot>,
}

impl Speech<'_> {
    /// The text before the completion, and whether the tokenizer's own start token goes before it: a template writes its own.
    fn text(&self, prompt: &Prompt) -> model::Result<(String, Bos)> {
        match self.template {
            Some(template) => {
                if let Some(slot) = self.slot {
                    let turns = prompt.turns(Some(slot.text()));
                    return Ok((slot.render(&turns, template, self.tokenizer)?, Bos::Off));
                }
                let text = template.render(&prompt.turns(self.system), self.tokenizer, true)?;
                Ok((text, Bos::Off))
            }
            None => {
                let text = prompt.bare(self.system);
                let text = text.map_err(|cause| model::Error::Template(cause.into()))?;
                Ok((text.to_owned(), Bos::Auto))
            }
        }
    }

    fn encode(&self, text: &str, bos: Bos) -> model::Result<Vec<u32>> {
        match self.slot {
            Some(slot) => slot.encode(text, self.tokenizer),
            None => self.tokenizer.encode(text, bos),
        }
    }

    /// The ids before the completion. A model that starts from nothing starts from its start or end token.
    pub fn ids(&self, prompt: &Prompt) -> model::Result<Vec<u32>> {
        let (text, bos) = self.text(prompt)?;
        let mut ids = self.encode(&text, bos)?;
        if ids.is_empty() {
            let start = self.tokenizer.bos().or(self.tokenizer.eos());
            ids.push(start.ok_or_else(|| {
                model::Error::Tokenizer("the prompt has no tokens, and there is no start token".into())
            })?);
        }
        Ok(ids)
    }

    /// The ids of the prompt followed by `continuation`, and how many belong to the prompt.
    pub fn ids_with(&self, prompt: &Prompt, continuation: &str) -> model::Result<(Vec<u32>, usize)> {
        let alone = self.ids(prompt)?;
        let (text, bos) = self.text(prompt)?;
        let mut whole = self.encode(&format!("{text}{continuation}"), bos)?;
        if text.is_empty() && whole.first() != alone.first() {
            whole.insert(0, alone[0]);
        }
        let common = alone.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        // The model needs one token to predict from.
        Ok((whole, common.max(1)))
    }
}

/// The record of an item, ready for what the model says.
pub fn completion(item: &Item, model_digest: &str, attempt_index: u64) -> Completion {
    Completion {
        prompt: item.prompt.clone(),
        sample_index: Some(item.sample_index),
        text_digest: Some(item.text_digest.clone()),
        model_digest: Some(model_digest.to_string()),
        attempt_index,
        ..Completion::default()
    }
}

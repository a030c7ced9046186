//! Records in, token ids out: what the model is asked, in the words of its template.

use std::path::Path;

use model::{Bos, Message, Template, Tokenizer};
use process::{Error, Result, ResultExt, Shard};
use records::dataset::{self, InputFormat};
use records::{Completion, Prompt, Status};
use serde_json::Value;

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
pub fn read(
    path: &Path,
    format: InputFormat,
    limit: Option<u64>,
    shard: Shard,
    scores: bool,
    keep_going: bool,
) -> Result<Input> {
    let subject = if path.as_os_str() == "-" {
        "stdin".to_string()
    } else {
        path.display().to_string()
    };
    let mut rows = dataset::Options::new()
        .format(format)
        .digest(true)
        .accept_partial(keep_going)
        .open(path)
        .at(&subject)?;
    let mut items = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut count = 0;
    for row in rows.by_ref() {
        let row = row.at(&subject)?;
        if let Some(kind) = row.value.get("type").and_then(Value::as_str)
            && records::TYPES.contains(&kind)
            && kind != "prompt"
            && kind != "completion"
        {
            continue;
        }
        let place = || {
            row.line
                .map_or_else(|| format!("row {}", row.index), |line| format!("line {line}"))
        };
        let mut prompt = row.decode::<Prompt>().at(&subject)?;
        let sample_index = count;
        count += 1;
        if !seen.insert((prompt.bench.clone(), prompt.id.clone())) {
            return Err(Error::input(
                &subject,
                format!(
                    "{}: the id {} of bench {:?} is there twice",
                    place(),
                    prompt.id,
                    prompt.bench.unwrap_or_default()
                ),
            ));
        }
        let Some(text) = question(&prompt) else {
            return Err(Error::input(
                &subject,
                format!("{}: neither prompt nor messages", place()),
            ));
        };
        let text_digest = records::text_digest(text);
        let bucket = records::bucket(&text_digest).ok_or_else(|| Error::bug("text_digest", "is no digest"))?;
        // Keys that this tool writes are not carried over from another run.
        let given = prompt.take_answer();
        if scores && given.is_none() && prompt.choices.is_none() {
            return Err(Error::input(
                &subject,
                format!("{}: --score wants a completion", place()),
            ));
        }
        if limit.is_none_or(|limit| sample_index < limit) && shard.owns(bucket) {
            items.push(Item {
                sample_index,
                prompt,
                text_digest,
                given,
            });
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

/// The text that stands for the prompt in `text_digest`: the prompt, or the last user's turn.
fn question(prompt: &Prompt) -> Option<&str> {
    match (&prompt.prompt, &prompt.messages) {
        (Some(text), _) => Some(text),
        (None, Some(messages)) => messages
            .iter()
            .rev()
            .find(|message| message.role == "user")
            .or(messages.last())
            .map(|message| message.content.as_str()),
        (None, None) => None,
    }
}

/// How prompts become token ids.
pub struct Speech<'m> {
    pub tokenizer: &'m Tokenizer,
    pub template: Option<Template>,
    pub system: Option<String>,
}

impl Speech<'_> {
    /// The text before the completion, and whether the tokenizer's own start token goes before it.
    pub fn text(&self, prompt: &Prompt) -> model::Result<(String, Bos)> {
        let system = prompt.system.as_deref().or(self.system.as_deref());
        let Some(template) = &self.template else {
            let text = match (&prompt.prompt, &prompt.messages) {
                (Some(text), _) => text.clone(),
                (None, _) => {
                    return Err(model::Error::Template(
                        "the record has messages, and there is no chat template".into(),
                    ));
                }
            };
            if system.is_some() {
                return Err(model::Error::Template(
                    "the record has a system message, and there is no chat template".into(),
                ));
            }
            return Ok((text, Bos::Auto));
        };
        let mut messages = Vec::new();
        let has_own = prompt
            .messages
            .as_ref()
            .is_some_and(|messages| messages.first().is_some_and(|message| message.role == "system"));
        if let Some(system) = system.filter(|_| !has_own) {
            messages.push(Message::new("system", system));
        }
        match (&prompt.messages, &prompt.prompt) {
            (Some(turns), _) => messages.extend(turns.iter().map(|turn| Message::new(&turn.role, &turn.content))),
            (None, Some(text)) => messages.push(Message::new("user", text)),
            (None, None) => {}
        }
        // A template writes its own start token.
        Ok((template.render(&messages, self.tokenizer, true)?, Bos::Off))
    }

    /// The ids before the completion. A model that starts from nothing starts from its start or end token.
    pub fn ids(&self, prompt: &Prompt) -> model::Result<Vec<u32>> {
        let (text, bos) = self.text(prompt)?;
        let mut ids = self.tokenizer.encode(&text, bos)?;
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
        let mut whole = self.tokenizer.encode(&format!("{text}{continuation}"), bos)?;
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

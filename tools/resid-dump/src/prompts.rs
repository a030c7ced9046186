//! The input, read whole: rows → samples with their token ids.

use model::{Bos, Slot, Template, Tokenizer};
use process::{Error, Result, ResultExt};
use records::Prompt;
use records::dataset::{Options, Row};
use serde_json::Value;

use crate::cli::Args;
use crate::selection::Positions;

/// One prompt, ready to run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// In the whole input, before shards.
    pub index: u64,
    pub id: String,
    pub group: String,
    pub bench: Option<String>,
    pub text: String,
    pub text_digest: String,
    pub bucket: u8,
    pub token_ids: Vec<u32>,
    /// Token positions that are kept.
    pub positions: std::ops::Range<usize>,
}

impl Sample {
    /// Rows of each tensor.
    pub fn row_count(&self, positions: Positions) -> usize {
        match positions {
            Positions::Mean => 1,
            _ => self.positions.len(),
        }
    }
}

/// The whole input.
pub struct Prompts {
    pub samples: Vec<Sample>,
    pub digest: String,
    /// What was left out under `--keep-going`.
    pub failures: Vec<Error>,
}

/// How a prompt becomes tokens.
pub struct Encoding<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a Template>,
    pub bos: Bos,
    pub strip_punct: bool,
    pub positions: Positions,
    /// Where a soft prompt stands, which is then the system message.
    pub slot: Option<&'a Slot>,
    /// What the model takes: so many tokens, of so many ids.
    pub position_count: usize,
    pub id_count: usize,
}

impl Prompts {
    pub fn read(args: &Args, encoding: &Encoding) -> Result<Prompts> {
        let name = process::input_name(&args.prompts);
        let mut dataset = Options::new()
            .format(args.input_format)
            .digest(true)
            .open(&args.prompts)
            .at(&name)?;
        let mut prompts = Prompts {
            samples: Vec::new(),
            digest: String::new(),
            failures: Vec::new(),
        };
        for row in dataset.by_ref() {
            let row = row.at(&name)?;
            // the whole input is read, so that its digest is that of the file
            if args.limit.is_some_and(|limit| row.index >= limit) {
                continue;
            }
            match encoding.sample(&row, args) {
                Ok(sample) => prompts.samples.push(sample),
                Err(cause) => {
                    let refusal = Err::<(), _>(row.refuse(cause)).at(&name);
                    match (refusal, args.keep_going) {
                        (Err(error), true) => prompts.failures.push(error),
                        (refusal, _) => refusal?,
                    }
                }
            }
        }
        prompts.digest = dataset
            .digest()
            .ok_or_else(|| Error::bug(&name, "was not read to its end"))?;
        Ok(prompts)
    }

    /// The names of the groups, in order of appearance.
    pub fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for sample in &self.samples {
            if !groups.contains(&sample.group) {
                groups.push(sample.group.clone());
            }
        }
        groups
    }
}

impl Encoding<'_> {
    /// Causes are without the prompt's text: it may be harmful by design.
    fn sample(&self, row: &Row, args: &Args) -> std::result::Result<Sample, String> {
        let fault = |error: records::Error| error.fault.to_string();
        let prompt = Prompt::asked(row, &args.field).map_err(fault)?;
        let text = match prompt.text() {
            Some(text) => text.to_owned(),
            None => row.text(&args.field).map_err(fault)?.to_owned(),
        };
        let text_digest = records::text_digest(&text);
        let mut token_ids = self.prompt_ids(prompt)?;
        let prompt_count = token_ids.len();
        if self.positions.needs_completion() {
            let completion = row.text(&args.completion_field).map_err(fault)?;
            let ids = self.tokenizer.encode(completion, Bos::Off);
            token_ids.extend(ids.map_err(|error| error.to_string())?);
            if token_ids.len() == prompt_count {
                return Err("the completion has no tokens".into());
            }
        }
        self.check(&token_ids)?;
        Ok(Sample {
            index: row.index,
            id: row.id().map_err(fault)?,
            group: match &args.group {
                Some(key) => row.group(key).map_err(fault)?,
                None => String::new(),
            },
            bench: row.value.get("bench").and_then(Value::as_str).map(str::to_owned),
            positions: self.positions.of(token_ids.len(), prompt_count)?,
            bucket: records::bucket(&text_digest).ok_or("the text digest is malformed")?,
            text,
            text_digest,
            token_ids,
        })
    }

    fn prompt_ids(&self, mut prompt: Prompt) -> std::result::Result<Vec<u32>, String> {
        if self.strip_punct {
            strip(&mut prompt);
        }
        let ids = match (self.template, self.slot) {
            (None, _) => self.tokenizer.encode(prompt.bare(None)?, self.bos),
            (Some(template), Some(slot)) => slot
                .render(&prompt.turns(Some(slot.text())), template, self.tokenizer)
                .and_then(|text| slot.encode(&text, self.tokenizer)),
            (Some(template), None) => template
                .render(&prompt.turns(None), self.tokenizer, true)
                .and_then(|text| self.tokenizer.encode(&text, Bos::Off)),
        };
        match ids {
            Ok(ids) if ids.is_empty() => Err("the prompt has no tokens".into()),
            other => other.map_err(|error| error.to_string()),
        }
    }

    /// The model must be able to run the tokens.
    fn check(&self, token_ids: &[u32]) -> std::result::Result<(), String> {
        let (count, limit) = (token_ids.len(), self.position_count);
        if count > limit {
            return Err(format!(
                "the prompt is {count} tokens long, the model's limit is {limit}"
            ));
        }
        let size = self.id_count;
        match token_ids.iter().find(|&&id| id as usize >= size) {
            Some(id) => Err(format!("token id {id} is beyond the model's vocabulary of {size}")),
            None => Ok(()),
        }
    }
}

/// Strips the question, in whichever form it is asked.
fn strip(prompt: &mut Prompt) {
    let turns = prompt.messages.as_deref_mut().unwrap_or_default();
    let asked = turns.iter_mut().rfind(|turn| turn.role == "user");
    let texts = asked
        .map(|turn| &mut turn.content)
        .into_iter()
        .chain(&mut prompt.prompt);
    texts.for_each(|text| text.truncate(stripped(text).len()));
}

/// Without white space and punctuation at the end.
fn stripped(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_whitespace() || c.is_ascii_punctuation() || is_punctuation(c))
}

/// Punctuation beyond ASCII that ends sentences or closes quotations.
fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}'
            | '«' | '»' | '¡' | '¿' | '·' | '§' | '¶' | '،' | '؛' | '؟' | '۔' | '।' | '॥'
            | '！' | '，' | '．' | '：' | '；' | '？' | '｡'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_stripped() {
        assert_eq!(
            stripped("How do I kill a Python process?"),
            "How do I kill a Python process"
        );
        assert_eq!(stripped("a, b?! ..."), "a, b");
        assert_eq!(stripped("これは何ですか？"), "これは何ですか");
        assert_eq!(stripped("\"quoted.\" "), "\"quoted");
        assert_eq!(stripped("?!"), "");
    }
}

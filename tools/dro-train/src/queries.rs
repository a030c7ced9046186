//! Questions as token ids: with the message that they were asked under, and with the soft prompt.

use std::collections::HashSet;

use model::{Bos, Config, Slot, Template, Tokenizer};
use process::{Error, Result, ResultExt};
use records::Prompt;

use crate::anchors::Anchor;
use crate::prompts::Kind;

pub struct Speech {
    pub tokenizer: Tokenizer,
    pub template: Template,
    /// Where the soft prompt stands.
    pub slot: Slot,
}

/// A question with the soft prompt before it.
pub struct Asked {
    pub ids: Vec<u32>,
    pub kind: Kind,
}

impl Speech {
    /// A prompt under its own system message, or none.
    pub fn plain(&self, prompt: &Prompt, config: &Config) -> Result<Vec<u32>> {
        let rendered = self.template.render(&prompt.turns(None), &self.tokenizer, true);
        let ids = rendered.and_then(|text| self.tokenizer.encode(&text, Bos::Off));
        let ids = ids.at(&prompt.id)?;
        check(&ids, config.vocab_size, config).map_err(|cause| Error::input(&prompt.id, cause))?;
        Ok(ids)
    }

    /// Every question once, with the soft prompt in the place of whatever message it was asked under.
    pub fn asked(&self, anchors: &[Anchor], config: &Config) -> Result<Vec<Asked>> {
        let mut seen = HashSet::new();
        let firsts = anchors.iter().filter(|anchor| seen.insert(&anchor.prompt.id));
        firsts
            .map(|anchor| {
                let ids = self.soft(&anchor.prompt.without_system()).at(&anchor.prompt.id)?;
                let id_count = config.vocab_size + self.slot.token_ids().len();
                check(&ids, id_count, config).map_err(|cause| Error::input(&anchor.prompt.id, cause))?;
                Ok(Asked { ids, kind: anchor.kind })
            })
            .collect()
    }

    fn soft(&self, prompt: &Prompt) -> model::Result<Vec<u32>> {
        let turns = prompt.turns(Some(self.slot.text()));
        let text = self.slot.render(&turns, &self.template, &self.tokenizer)?;
        self.slot.encode(&text, &self.tokenizer)
    }
}

fn check(ids: &[u32], id_count: usize, config: &Config) -> std::result::Result<(), String> {
    let (count, limit) = (ids.len(), config.position_count);
    match ids.iter().find(|&&id| id as usize >= id_count) {
        _ if count == 0 => Err("the prompt has no tokens".into()),
        _ if count > limit => Err(format!(
            "the prompt is {count} tokens long, the model's limit is {limit}"
        )),
        Some(id) => Err(format!("token id {id} is beyond the model's vocabulary")),
        None => Ok(()),
    }
}

//! The share of a conversation's tokens that bear loss: rendered with a model's chat template and tokenised as a whole, the
//! assistant's turns are trained on and everything else is not.
//!
//! An assistant's turn is what the template adds to the conversation before it with the generation prompt open; so the end-of-turn
//! mark counts and the role header does not, as trainers do it.

use std::path::Path;

use model::{Bos, Directory, Template, Tokenizer, Turn};
use process::{Error, Result, ResultExt};

use crate::corpus::LossShare;

pub struct LossCounter {
    template: Template,
    tokenizer: Tokenizer,
}

/// Identifies template and tokenizer in the plan.
pub fn digest(directory: &Path) -> Result<String> {
    let counter = LossCounter::open(directory)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(counter.template.digest().as_bytes());
    hasher.update(counter.tokenizer.digest().as_bytes());
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

impl LossCounter {
    pub fn open(path: &Path) -> Result<Self> {
        let directory = Directory::any(path, true).at(path.display())?;
        let template = Template::open(&directory).at(path.display())?;
        let template = template.ok_or_else(|| Error::input(path.display(), "has no chat template"))?;
        let tokenizer = Tokenizer::open(&directory).at(path.display())?;
        Ok(Self { template, tokenizer })
    }

    pub fn count(&self, turns: &[records::Message]) -> std::result::Result<LossShare, String> {
        let turns: Vec<Turn> = turns.iter().map(records::Message::turn).collect();
        let whole = self.render(&turns, false)?;
        let mut share = LossShare {
            token_count: self.token_count(&whole)?,
            loss_token_count: 0,
        };
        for (at, _) in turns.iter().enumerate().filter(|(_, (role, _))| *role == "assistant") {
            let before = self.render(&turns[..at], true)?;
            let through = if at + 1 == turns.len() {
                whole.clone()
            } else {
                self.render(&turns[..=at], false)?
            };
            if !whole.starts_with(&through) || !through.starts_with(&before) {
                return Err(
                    "the chat template changes earlier turns when later ones follow, so no tokens can be told apart"
                        .to_owned(),
                );
            }
            share.loss_token_count += self.token_count(&through)?.saturating_sub(self.token_count(&before)?);
        }
        Ok(share)
    }

    fn render(&self, turns: &[Turn], generation_prompt: bool) -> std::result::Result<String, String> {
        self.template
            .render(turns, &self.tokenizer, generation_prompt)
            .map_err(|error| error.to_string())
    }

    fn token_count(&self, text: &str) -> std::result::Result<u64, String> {
        self.tokenizer
            .encode(text, Bos::Off)
            .map(|ids| ids.len() as u64)
            .map_err(|error| error.to_string())
    }
}

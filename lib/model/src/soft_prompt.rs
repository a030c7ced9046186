//! A learned system message: rows of its own in the place of the embeddings of a text.
//!
//! A batch names row i of a soft prompt by the id `vocab_size + i`, which no tokenizer gives. So packing, caches and prefixes need know
//! nothing of it, and where its rows are those of the text's tokens, every bit is that of the text.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::safetensors::Safetensors;
use crate::template::{Template, Turn};
use crate::tokenizer::Tokenizer;
use crate::weights::Source;

/// The name of its only tensor, (rows, hidden).
pub const TENSOR: &str = "soft_prompt";
/// A question that no system message holds.
const QUESTION: &str = "Which way is north?";

/// Where a soft prompt stands: in the place of a text that is the system message of a chat template.
#[derive(Clone, Debug)]
pub struct Slot {
    text: String,
    /// What the text's tokens are in that place.
    token_ids: Vec<u32>,
    /// The id of the soft prompt's first row.
    first_id: u32,
}

impl Slot {
    /// The place of `text` in a template. A template that has none for system messages is refused.
    pub fn find(text: &str, template: &Template, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        let mut slot = Self {
            text: text.to_owned(),
            token_ids: Vec::new(),
            first_id: vocab_size as u32,
        };
        let rendered = slot.render(&[("system", text), ("user", QUESTION)], template, tokenizer)?;
        let tokens = tokenizer.spans(&rendered)?;
        let among = slot.among(&rendered, &tokens)?;
        slot.token_ids = tokens[among].iter().map(|(id, _)| *id).collect();
        Ok(slot)
    }

    /// The text in whose place it stands.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tokens in whose place it stands.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// A conversation that opens with the text, as the template has it.
    pub fn render(&self, turns: &[Turn], template: &Template, tokenizer: &Tokenizer) -> Result<String> {
        if turns.first() != Some(&("system", self.text.as_str())) {
            let cause = "a system message of the prompt's own stands where the soft prompt belongs";
            return Err(Error::Template(cause.into()));
        }
        let rendered = template.render(turns, tokenizer, true)?;
        match rendered.matches(&self.text).count() {
            1 => Ok(rendered),
            0 => Err(Error::Template(
                "has no place for a system message, where the soft prompt would stand (--template FILE brings one that has)".into(),
            )),
            count => Err(Error::Template(format!(
                "the text that the soft prompt stands for is there {count} times"
            ))),
        }
    }

    /// The ids of a text that `render` gave, perhaps with more behind it: rows of the soft prompt in the place of the text's tokens.
    pub fn encode(&self, rendered: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let tokens = tokenizer.spans(rendered)?;
        let among = self.among(rendered, &tokens)?;
        let mut ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        if let Some(id) = ids.iter().find(|&&id| id >= self.first_id) {
            let cause = format!("gives the id {id}, the model's vocabulary has {}", self.first_id);
            return Err(Error::Tokenizer(cause));
        }
        if ids[among.clone()] != self.token_ids {
            let cause = "the text that the soft prompt stands for has other tokens in this conversation";
            return Err(Error::Template(cause.into()));
        }
        let rows = (self.first_id..).take(among.len());
        ids.splice(among, rows);
        Ok(ids)
    }

    /// Which tokens the text's bytes have a part in.
    fn among(&self, rendered: &str, tokens: &[(u32, Range<usize>)]) -> Result<Range<usize>> {
        let start = rendered.find(&self.text).unwrap_or(rendered.len());
        let end = start + self.text.len();
        let is_inside = |(_, bytes): &(u32, Range<usize>)| bytes.start < end && bytes.end > start;
        let ends = [tokens.iter().position(is_inside), tokens.iter().rposition(is_inside)];
        match ends {
            [Some(first), Some(last)] => Ok(first..last + 1),
            _ => Err(Error::Template("the system message has no tokens".into())),
        }
    }
}

/// What a file says of a soft prompt.
#[derive(Clone, Debug)]
pub struct SoftPrompt {
    /// (rows, hidden), as rows of the embedding table.
    pub embeddings: Tensor,
    /// The text in whose place it stands.
    pub text: String,
    /// Of the model that it was learned on.
    pub model_digest: String,
    pub tokenizer_digest: String,
}

impl SoftPrompt {
    /// Reads a safetensors file; a value that is not finite is refused.
    pub fn read(path: &Path, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = Directory::any(parent.unwrap_or(Path::new(".")), true)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = Safetensors::of(&directory, vec![name], dtype, device)?;
        file.refuse_unused(&[TENSOR])?;
        let &[rows, found] = file.shape(TENSOR).ok_or_else(|| Error::tensor(TENSOR, "is missing"))? else {
            return Err(Error::tensor(TENSOR, "is no matrix"));
        };
        if found != width || rows == 0 {
            let cause = format!("has shape {:?}, the model's width is {width}", [rows, found]);
            return Err(Error::tensor(TENSOR, cause));
        }
        let metadata = file.metadata();
        Ok(Self {
            embeddings: file.tensor(TENSOR, &[rows, width])?,
            text: said(&metadata, "text")?,
            model_digest: said(&metadata, "model_digest")?,
            tokenizer_digest: said(&metadata, "tokenizer_digest")?,
        })
    }
}

fn said(metadata: &Map<String, Value>, key: &str) -> Result<String> {
    let value = metadata.get(key).and_then(Value::as_str);
    let missing = || {
        Error::file(
            "",
            format!("its metadata has no `{key}`: this is no soft prompt of dro-train"),
        )
    };
    value
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .ok_or_else(missing)
}

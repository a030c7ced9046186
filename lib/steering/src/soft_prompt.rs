//! `--soft-prompt`: a learned system message, read for the model and the template that will take it.

use std::path::Path;

use model::{Checkpoint, Slot, SoftPrompt, Template, Tokenizer};
use process::{Error, Result, ResultExt};

/// A soft prompt that its model has taken.
pub struct OpenedSoftPrompt {
    /// Of the file: part of the plan.
    pub digest: String,
    /// Where prompts have it.
    pub slot: Slot,
}

/// Who reads the prompts.
pub struct Reader<'m> {
    pub tokenizer: Option<&'m Tokenizer>,
    pub template: Option<&'m Template>,
}

pub fn open(
    path: &Path,
    checkpoint: &mut Checkpoint,
    reader: &Reader<'_>,
    allow_other_model: bool,
) -> Result<OpenedSoftPrompt> {
    let (Some(tokenizer), Some(template)) = (reader.tokenizer, reader.template) else {
        let cause = "takes the place of a system message, and prompts without a chat template have none";
        return Err(Error::usage("--soft-prompt", cause).hint("--chat, or --template, is needed"));
    };
    let subject = path.display();
    let (config, compute) = (checkpoint.config(), checkpoint.compute());
    let (width, vocab_size) = (config.hidden_size, config.vocab_size);
    let dtype = model::device::dtype(&compute.dtype).at("--dtype")?;
    let read = SoftPrompt::read(path, width, dtype, checkpoint.device()).at(&subject)?;
    let refuse = |cause: String| Err(Error::input(&subject, cause));
    let digest = format!("blake3:{}", tokenizer.digest().to_hex());
    if read.tokenizer_digest != digest {
        return refuse(format!(
            "was learned under the tokenizer {}, the model has {digest}",
            read.tokenizer_digest
        ));
    }
    if read.model_digest != checkpoint.digest() && !allow_other_model {
        return refuse(format!(
            "was learned on the model {}, this is {}; --allow-other-model takes it all the same",
            read.model_digest,
            checkpoint.digest()
        ));
    }
    let slot = Slot::find(&read.text, template, tokenizer, vocab_size).at(&subject)?;
    let (rows, tokens) = (read.embeddings.dims()[0], slot.token_ids().len());
    if rows != tokens {
        return refuse(format!(
            "has {rows} rows, and the text that it stands for is {tokens} tokens in this template"
        ));
    }
    checkpoint.take_soft_prompt(read.embeddings);
    let bytes = std::fs::read(path).at(&subject)?;
    Ok(OpenedSoftPrompt {
        digest: process::sha256(&bytes),
        slot,
    })
}

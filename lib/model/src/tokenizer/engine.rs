//! The tokenizers crate behind a border: a file is checked before the crate reads it, a text before the crate grows it,
//! and a panic of the crate is a refusal.

use std::ops::Range;

use tokenizers::{Model, NormalizedString, Normalizer};

use super::check::{self, Growth};
use crate::error::{Error, Result};

/// BOUND: bytes that a text may have once it is normalised and written in the vocabulary's alphabet.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Bytes of text that are normalised at a time where the size is found out by trial.
const TRIAL_BYTES: usize = 16 << 10;

/// A tokenizer of the crate that is safe to ask.
pub struct Engine {
    inner: tokenizers::Tokenizer,
    growth: Growth,
}

impl Engine {
    /// Reads a `tokenizer.json`; what it says of padding and truncation is left out.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut file = json::document(bytes).map_err(|cause| Error::Tokenizer(format!("tokenizer.json: {cause}")))?;
        file.remove("padding");
        file.remove("truncation");
        let growth = check::file(&file).map_err(|cause| Error::Tokenizer(format!("tokenizer.json: {cause}")))?;
        let inner = guarded(|| serde_json::from_value(file.into()).map_err(Into::into))?;
        Ok(Self { inner, growth })
    }

    /// A tokenizer made of parts that grow a text as byte-level ones do.
    pub fn of(make: impl FnOnce() -> tokenizers::Result<tokenizers::Tokenizer>) -> Result<Self> {
        Ok(Self {
            inner: guarded(make)?,
            growth: Growth::BYTE_LEVEL,
        })
    }

    /// The crate's own object, for what cannot fail.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Adds a token that a file beside the tokenizer names.
    pub fn add(&mut self, token: tokenizers::AddedToken) -> Result<()> {
        check::token(&token.content).map_err(Error::Tokenizer)?;
        let inner = &mut self.inner;
        guarded(|| match token.special {
            true => inner.add_special_tokens([token]),
            false => inner.add_tokens([token]),
        })
        .map(|_| ())
    }

    /// The ids of a text, with the tokens that the model wants around it if `special`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        guarded(|| {
            self.fits(text)?;
            Ok(self.inner.encode_fast(text, special)?.get_ids().to_vec())
        })
    }

    /// The ids of a text, each with the bytes of the text that it stands for.
    pub fn spans(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        guarded(|| {
            self.fits(text)?;
            let encoding = self.inner.encode(text, false)?;
            let bytes = encoding.get_offsets().iter().map(|&(start, end)| start..end);
            Ok(encoding.get_ids().iter().copied().zip(bytes).collect())
        })
    }

    /// The ids of one word that is normalised and written in the vocabulary's alphabet.
    pub fn word(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        let tokens = guarded(|| self.inner.get_model().tokenize(word))?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special))
    }

    /// Refuses a text that would grow too large: by the bound of its growth, or where that is too wide by trial.
    fn fits(&self, text: &str) -> tokenizers::Result<()> {
        if self.growth.bound(text.len()) <= TEXT_BYTES_MAX as f64 {
            return Ok(());
        }
        let mut size = 0.0;
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(TRIAL_BYTES));
            let mut normalized = NormalizedString::from(piece);
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut normalized)?;
            }
            size += normalized.len() as f64 * self.growth.cutting;
            if size > TEXT_BYTES_MAX as f64 {
                return Err(format!(
                    "a text takes more than {} MiB once it is normalised",
                    TEXT_BYTES_MAX >> 20
                )
                .into());
            }
            rest = after;
        }
        Ok(())
    }
}

/// Runs a call of the crate; a panic becomes an error.
pub fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match foreign::guarded(call) {
        Some(result) => result.map_err(|cause| Error::Tokenizer(cause.to_string())),
        None => Err(Error::Tokenizer(
            "the file contradicts itself (its reader panicked)".into(),
        )),
    }
}

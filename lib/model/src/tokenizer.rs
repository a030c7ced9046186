//! Text ↔ token ids, from whichever form a model directory keeps its tokenizer in.
//!
//! `tokenizer.json` first; else a byte-level BPE as `vocab.json` + `merges.txt` (GPT-2, Qwen2) or `encoder.json` +
//! `vocab.bpe` (the original GPT-2 names). Padding and truncation that a file may ask for are switched off: a prompt is
//! what it is.

mod check;
mod engine;

use std::collections::HashMap;
use std::ops::Range;

pub use engine::{Engine, guarded};
use serde_json::{Map, Value};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::directory::Directory;
use crate::error::{Error, Result};

/// Whether a beginning-of-sequence token stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Bos {
    /// As the tokenizer itself does it.
    #[default]
    Auto,
    /// Exactly one, also where the tokenizer would add none.
    On,
    /// No special token is added.
    Off,
}

/// A model's tokenizer.
pub struct Tokenizer {
    engine: Engine,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
    /// `add_bos_token` of classes that obey it.
    add_bos: Option<bool>,
    special: HashMap<String, String>,
    digest: blake3::Hash,
}

impl Tokenizer {
    /// Whether a directory holds a tokenizer of any form, be it one that is not read.
    pub fn exists(directory: &Directory) -> Result<bool> {
        const FORMS: [&str; 5] = [
            "tokenizer.json",
            "tokenizer.model",
            "vocab.json",
            "vocab.bpe",
            "encoder.json",
        ];
        for name in FORMS {
            if directory.has(name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the tokenizer of a model directory.
    pub fn open(directory: &Directory) -> Result<Self> {
        let mut files = Files {
            directory,
            hasher: blake3::Hasher::new(),
        };
        let settings = files.object("tokenizer_config.json")?;
        let specials = files.object("special_tokens_map.json")?;
        let added = files.object("added_tokens.json")?;
        let class = settings
            .get("tokenizer_class")
            .and_then(Value::as_str)
            .unwrap_or("")
            .trim_end_matches("Fast");
        let mut engine = files.tokenizer(class)?;
        add_tokens(&mut engine, &settings, &added)?;

        let text_of = |key: &str| -> Option<String> {
            let value = settings.get(key).or_else(|| specials.get(key))?;
            value
                .as_str()
                .or_else(|| value.get("content")?.as_str())
                .map(str::to_owned)
        };
        let token = |text: String| engine.inner().token_to_id(&text).map(|id| (text, id));
        // GPT-2's class has its one special token built in
        let built_in = (class == "GPT2Tokenizer").then_some("<|endoftext|>");
        let special_token = |key: &str| {
            let named = text_of(key).and_then(token);
            named.or_else(|| token(built_in?.to_owned()))
        };
        let obeys = matches!(class, "LlamaTokenizer" | "CodeLlamaTokenizer" | "GemmaTokenizer");
        let special = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), text_of(key)?)))
            .collect();
        Ok(Self {
            bos: special_token("bos_token"),
            eos: special_token("eos_token"),
            add_bos: settings.get("add_bos_token").and_then(Value::as_bool).filter(|_| obeys),
            special,
            digest: files.hasher.finalize(),
            engine,
        })
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, bos: Bos) -> Result<Vec<u32>> {
        let own = bos == Bos::Auto && self.add_bos != Some(false);
        let mut ids = self.engine.encode(text, own)?;
        let wanted = match bos {
            Bos::Auto => self.add_bos == Some(true),
            Bos::On => true,
            Bos::Off => false,
        };
        match (&self.bos, wanted) {
            (_, false) => {}
            (Some((_, id)), true) => {
                if ids.first() != Some(id) {
                    ids.insert(0, *id);
                }
            }
            (None, true) => return Err(Error::Tokenizer("has no beginning-of-sequence token".into())),
        }
        Ok(ids)
    }

    /// The ids of a text without special tokens around it, each with the bytes of the text that it stands for.
    pub fn spans(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        self.engine.spans(text)
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.engine.decode(ids, skip_special)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.engine.inner().id_to_token(id)
    }

    /// Whether an id is a special token, which no text means.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.engine.inner().get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }

    /// The id of a token, as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.engine.inner().token_to_id(token)
    }

    /// Entries, added tokens included.
    pub fn size(&self) -> usize {
        self.engine.inner().get_vocab_size(true)
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos.as_ref().map(|(_, id)| *id)
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos.as_ref().map(|(_, id)| *id)
    }

    /// The texts of the special tokens by role (`bos_token`, …), for templates.
    pub fn special_texts(&self) -> &HashMap<String, String> {
        &self.special
    }

    /// BLAKE3 over the names and bytes of the files it was read from.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }
}

/// The files a tokenizer is read from, and the digest over those that were there.
struct Files<'d> {
    directory: &'d Directory,
    hasher: blake3::Hasher,
}

impl Files<'_> {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = self.directory.read_optional(name)?;
        if let Some(bytes) = &bytes {
            self.hasher
                .update(name.as_bytes())
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        }
        Ok(bytes)
    }

    /// A file that is not there is an empty object.
    fn object(&mut self, name: &str) -> Result<Map<String, Value>> {
        let bytes = self.read(name)?;
        let parse =
            |bytes: Vec<u8>| json::document(&bytes).map_err(|cause| Error::Tokenizer(format!("{name}: {cause}")));
        Ok(bytes.map(parse).transpose()?.unwrap_or_default())
    }

    fn tokenizer(&mut self, class: &str) -> Result<Engine> {
        if let Some(bytes) = self.read("tokenizer.json")? {
            return Engine::read(&bytes);
        }
        let forms = [
            ("vocab.json", "merges.txt", class),
            ("encoder.json", "vocab.bpe", "GPT2Tokenizer"),
        ];
        for (vocab, merges, class) in forms {
            if let (Some(vocab), Some(merges)) = (self.read(vocab)?, self.read(merges)?) {
                return byte_level_bpe(&vocab, &merges, class);
            }
        }
        Err(Error::Tokenizer(
            "neither tokenizer.json nor vocab.json and merges.txt is there".into(),
        ))
    }
}

fn byte_level_bpe(vocab: &[u8], merges: &[u8], class: &str) -> Result<Engine> {
    let malformed = |cause: String| Error::Tokenizer(cause);
    let vocab: HashMap<String, u32> = json::document(vocab)
        .map_err(|cause| malformed(format!("vocabulary: {cause}")))?
        .into_iter()
        .map(|(token, id)| Some((token, u32::try_from(id.as_u64()?).ok()?)))
        .collect::<Option<_>>()
        .ok_or_else(|| malformed("vocabulary: an id is not a 32-bit integer".into()))?;
    let merges = std::str::from_utf8(merges).map_err(|_| malformed("merges: not UTF-8".into()))?;
    let merges = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| malformed("merges: a line is not two tokens".into()))?;
    Engine::of(|| {
        let bpe = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<ahash::AHashMap<_, _>>(), merges);
        let mut inner = tokenizers::Tokenizer::new(bpe.build()?);
        cut_as(class, &mut inner)?;
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        inner.with_post_processor(Some(ByteLevel::new(false, false, false)));
        if class == "GPT2Tokenizer" && inner.token_to_id("<|endoftext|>").is_some() {
            inner.add_special_tokens([AddedToken::from("<|endoftext|>", true)])?;
        }
        Ok(inner)
    })
}

/// How a class whose file is not there cuts a text into words.
fn cut_as(class: &str, inner: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    match class {
        "GPT2Tokenizer" => {
            inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        }
        "Qwen2Tokenizer" => {
            const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
            let split = Split::new(
                SplitPattern::Regex(WORDS.into()),
                SplitDelimiterBehavior::Isolated,
                false,
            )?;
            inner.with_normalizer(Some(NFC))?;
            inner.with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::Split(split),
                PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
            ])));
        }
        other => {
            return Err(format!(
                "tokenizer_class {other:?} without tokenizer.json is not read (only GPT2Tokenizer and Qwen2Tokenizer)"
            )
            .into());
        }
    }
    Ok(())
}

/// Adds the tokens that only `tokenizer_config.json` or `added_tokens.json` names; each must get the id it claims.
fn add_tokens(engine: &mut Engine, settings: &Map<String, Value>, added: &Map<String, Value>) -> Result<()> {
    let mut tokens: Vec<(u64, AddedToken)> = Vec::new();
    if let Some(Value::Object(decoder)) = settings.get("added_tokens_decoder") {
        for (id, token) in decoder {
            let content = token.get("content").and_then(Value::as_str);
            let (Ok(id), Some(content)) = (id.parse(), content) else {
                return Err(Error::Tokenizer(format!(
                    "added_tokens_decoder: entry {id:?} is malformed"
                )));
            };
            let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
            let added = AddedToken::from(content, flag("special"))
                .lstrip(flag("lstrip"))
                .rstrip(flag("rstrip"))
                .single_word(flag("single_word"))
                .normalized(flag("normalized"));
            tokens.push((id, added));
        }
    }
    for (content, id) in added {
        let id = id
            .as_u64()
            .ok_or_else(|| Error::Tokenizer(format!("added_tokens.json: {content:?} has no id")))?;
        if !tokens.iter().any(|(_, token)| token.content == *content) {
            tokens.push((id, AddedToken::from(content.clone(), false)));
        }
    }
    tokens.sort_by_key(|(id, _)| *id);
    let known = engine.inner().get_added_tokens_decoder();
    for (id, token) in tokens {
        if known.get(&(id as u32)) == Some(&token) {
            continue;
        }
        let content = token.content.clone();
        engine.add(token)?;
        let given = engine.inner().token_to_id(&content);
        if given.map(u64::from) != Some(id) {
            return Err(Error::Tokenizer(format!(
                "added token {content:?} claims id {id} but gets {given:?}"
            )));
        }
    }
    Ok(())
}

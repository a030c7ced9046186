//! A file's vocabulary → tokenizer.json and tokenizer_config.json, as a Hugging Face directory of the same model has them.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::file::{File, Value};
use crate::error::{Error, Result};

/// `tokenizer.json` and `tokenizer_config.json`; none where the file has no vocabulary.
pub fn files(file: &File) -> Result<Option<(Json, Json)>> {
    let keys = Keys(file);
    let Some(model) = keys.text("model")? else {
        return Ok(None);
    };
    let vocabulary = Vocabulary::read(&keys)?;
    let mut tokenizer = match model {
        "gpt2" => byte_level(&keys, &vocabulary)?,
        "llama" => pieces(&keys, &vocabulary)?,
        other => {
            return Err(refuse(format!(
                "tokenizer.ggml.model = {other:?} is not read (read: gpt2, llama)"
            )));
        }
    };
    if keys.flag("add_eos_token")?.unwrap_or(false) {
        return Err(refuse("tokenizer.ggml.add_eos_token = true is not read".into()));
    }
    let adds_bos = match keys.flag("add_bos_token")? {
        Some(adds) => adds,
        None => model == "llama" || keys.text("pre")?.is_some_and(|pre| LLAMA3.contains(&pre)),
    };
    tokenizer["version"] = json!("1.0");
    tokenizer["added_tokens"] = vocabulary.added();
    if adds_bos {
        let bos = keys.token("bos", &vocabulary)?;
        let (id, text) = bos.ok_or_else(|| refuse("tokenizer.ggml.add_bos_token without bos_token_id".into()))?;
        tokenizer["post_processor"] = starts_with(id, &text);
    }
    let mut settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    for role in ["bos", "eos", "unknown", "padding"] {
        if let Some((_, text)) = keys.token(role, &vocabulary)? {
            let role = match role {
                "unknown" => "unk",
                "padding" => "pad",
                same => same,
            };
            settings[format!("{role}_token")] = json!(text);
        }
    }
    if let Some(Value::Text(template)) = file.metadata().get("tokenizer.chat_template") {
        settings["chat_template"] = json!(template);
    }
    Ok(Some((tokenizer, settings)))
}

/// What `tokenizer.ggml.token_type` says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

struct Vocabulary<'f> {
    tokens: &'f [String],
    kinds: Vec<Kind>,
}

impl<'f> Vocabulary<'f> {
    fn read(keys: &Keys<'f>) -> Result<Self> {
        let tokens = keys
            .texts("tokens")?
            .ok_or_else(|| refuse("tokenizer.ggml.tokens is missing".into()))?;
        let kinds = match keys.get("token_type") {
            None => vec![Kind::Normal; tokens.len()],
            Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => {
                kinds.iter().map(|kind| kind_of(*kind)).collect::<Result<_>>()?
            }
            Some(_) => {
                return Err(refuse(
                    "tokenizer.ggml.token_type is no list of one integer a token".into(),
                ));
            }
        };
        Ok(Self { tokens, kinds })
    }

    /// Every token with its id; of one that stands twice, the first.
    fn ids(&self) -> HashMap<&'f str, usize> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            ids.entry(token.as_str()).or_insert(id);
        }
        ids
    }

    /// The tokens that are found whole in a text.
    fn added(&self) -> Json {
        let each = self.tokens.iter().zip(&self.kinds).enumerate();
        each.filter(|(_, (_, kind))| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown))
            .map(|(id, (token, kind))| {
                json!({"id": id, "content": token, "special": *kind != Kind::UserDefined, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false})
            })
            .collect()
    }
}

fn kind_of(code: i64) -> Result<Kind> {
    Ok(match code {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => return Err(refuse(format!("tokenizer.ggml.token_type holds {code}"))),
    })
}

const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT2: [&str; 5] = ["gpt-2", "phi-2", "mpt", "olmo", "jais"];
const LLAMA3: [&str; 5] = ["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"];
const QWEN2: [&str; 4] = ["qwen2", "deepseek-r1-qwen", "hunyuan", "megrez"];
const DIGITS: [&str; 6] = ["smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"];

/// BPE over bytes, its words split as `tokenizer.ggml.pre` says.
fn byte_level(keys: &Keys, vocabulary: &Vocabulary) -> Result<Json> {
    let pre = keys.text("pre")?.unwrap_or("default");
    let split =
        |words: &str| json!({"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let (words, normalizer) = match pre {
        _ if GPT2.contains(&pre) => (vec![split(GPT2_WORDS)], Json::Null),
        "dbrx" | "olmo2" | "smaug-bpe" => (vec![split(LLAMA3_WORDS)], Json::Null),
        _ if LLAMA3.contains(&pre) => (vec![split(LLAMA3_WORDS)], Json::Null),
        _ if QWEN2.contains(&pre) => (vec![split(QWEN2_WORDS)], json!({"type": "NFC"})),
        _ if DIGITS.contains(&pre) => (vec![digits, split(GPT2_WORDS)], Json::Null),
        other => {
            let known: Vec<_> = GPT2
                .iter()
                .chain(&LLAMA3)
                .chain(&QWEN2)
                .chain(&DIGITS)
                .chain(&["dbrx"])
                .copied()
                .collect();
            return Err(refuse(format!(
                "tokenizer.ggml.pre = {other:?} is not read (read: {})",
                known.join(", ")
            )));
        }
    };
    let merges = keys
        .texts("merges")?
        .ok_or_else(|| refuse("tokenizer.ggml.merges is missing".into()))?;
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| [left, right]))
        .collect::<Option<_>>()
        .ok_or_else(|| refuse("tokenizer.ggml.merges holds what is not two tokens".into()))?;
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let pre_tokenizers: Vec<Json> = words.into_iter().chain([byte_level.clone()]).collect();
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary.ids(), "merges": merges,
            "ignore_merges": LLAMA3.contains(&pre)},
    }))
}

/// SentencePiece: pieces with scores, of which the best pair is merged first; unknown characters fall back to their bytes.
fn pieces(keys: &Keys, vocabulary: &Vocabulary) -> Result<Json> {
    let scores = match keys.get("scores") {
        Some(Value::Floats(scores)) if scores.len() == vocabulary.tokens.len() => scores,
        _ => return Err(refuse("tokenizer.ggml.scores is no list of one number a token".into())),
    };
    if scores.iter().any(|score| score.is_nan()) {
        return Err(refuse("tokenizer.ggml.scores holds a NaN".into()));
    }
    let unknown = vocabulary.kinds.iter().position(|kind| *kind == Kind::Unknown);
    let prefixes = keys.flag("add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefixes {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}),
        false => replace,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefixes {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": Json::Null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "vocab": vocabulary.ids(), "merges": merges(vocabulary, scores), "byte_fallback": true,
            "fuse_unk": true, "unk_token": unknown.map(|id| &vocabulary.tokens[id])},
    }))
}

/// Every way to make a piece of two others, the pieces with the highest scores first: with these ranks BPE merges what
/// SentencePiece would.
fn merges<'f>(vocabulary: &Vocabulary<'f>, scores: &[f32]) -> Vec<[&'f str; 2]> {
    let ids = vocabulary.ids();
    let mut found: Vec<(f32, usize, usize, [&str; 2])> = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if !matches!(vocabulary.kinds[id], Kind::Normal | Kind::UserDefined) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                found.push((scores[id], left_id, right_id, [left, right]));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    found.into_iter().map(|(.., pair)| pair).collect()
}

fn starts_with(id: usize, text: &str) -> Json {
    let special = json!({"SpecialToken": {"id": text, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A", 0)],
        "pair": [special, sequence("A", 0), sequence("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
    })
}

/// The keys below `tokenizer.ggml`.
struct Keys<'f>(&'f File);

impl<'f> Keys<'f> {
    fn get(&self, suffix: &str) -> Option<&'f Value> {
        self.0.metadata().get(&format!("tokenizer.ggml.{suffix}"))
    }

    fn text(&self, suffix: &str) -> Result<Option<&'f str>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(refuse(format!("tokenizer.ggml.{suffix} is no text"))),
        }
    }

    fn texts(&self, suffix: &str) -> Result<Option<&'f [String]>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(_) => Err(refuse(format!("tokenizer.ggml.{suffix} is no list of texts"))),
        }
    }

    fn flag(&self, suffix: &str) -> Result<Option<bool>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(refuse(format!("tokenizer.ggml.{suffix} is neither true nor false"))),
        }
    }

    /// The token of a role, which must be one of the vocabulary.
    fn token(&self, role: &str, vocabulary: &Vocabulary) -> Result<Option<(usize, String)>> {
        let Some(value) = self.get(&format!("{role}_token_id")) else {
            return Ok(None);
        };
        let found = match value {
            Value::Integer(id) => usize::try_from(*id)
                .ok()
                .and_then(|id| Some((id, vocabulary.tokens.get(id)?.clone()))),
            _ => None,
        };
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(refuse(format!(
                "tokenizer.ggml.{role}_token_id is no id of the vocabulary"
            ))),
        }
    }
}

fn refuse(cause: String) -> Error {
    Error::Tokenizer(cause)
}

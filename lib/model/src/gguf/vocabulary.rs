//! A file's vocabulary → tokenizer.json, tokenizer_config.json and generation_config.json, as a Hugging Face directory of the same
//! model has them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::file::{File, Value};
use super::words::{self, Words};
use crate::error::{Error, Result, shown};

/// Control tokens that end a turn, whatever else the file says: not every converter notes them all.
const TURN_ENDS: [&str; 11] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|EOT|>",
    "<EOT>",
    "<end_of_utterance>",
];

/// The files by name; none where the file has no vocabulary.
pub fn files(file: &File) -> Result<Vec<(&'static str, Json)>> {
    let keys = Keys::new(file);
    let model = match keys.text("model")? {
        None | Some("none" | "no_vocab") => return Ok(Vec::new()),
        Some(model) => model,
    };
    let vocabulary = Vocabulary::read(&keys)?;
    let mut tokenizer = match model {
        "gpt2" => byte_level(&keys, &vocabulary)?,
        "llama" => pieces(&keys, &vocabulary)?,
        other => {
            return Err(refuse(format!(
                "tokenizer.ggml.model = {} is not read (read: gpt2, llama)",
                shown(other)
            )));
        }
    };
    tokenizer["version"] = json!("1.0");
    tokenizer["added_tokens"] = vocabulary.added();
    if keys.adds_bos(model)? {
        let bos = keys.token("bos", &vocabulary)?;
        let (id, text) = bos.ok_or_else(|| refuse("tokenizer.ggml.add_bos_token without bos_token_id".into()))?;
        tokenizer["post_processor"] = starts_with(id, &text);
    }
    let ends = ends(&keys, &vocabulary)?;
    let settings = settings(&keys, &vocabulary)?;
    keys.refuse_unread()?;
    Ok(vec![
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("generation_config.json", json!({"eos_token_id": ends})),
    ])
}

fn settings(keys: &Keys, vocabulary: &Vocabulary) -> Result<Json> {
    let mut settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    for (role, name) in [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")] {
        if let Some((_, text)) = keys.token(role, vocabulary)? {
            settings[format!("{name}_token")] = json!(text);
        }
    }
    if let Some(Value::Text(template)) = keys.file.metadata().get("tokenizer.chat_template") {
        settings["chat_template"] = json!(template);
    }
    Ok(settings)
}

/// Each of these ids ends a completion.
fn ends(keys: &Keys, vocabulary: &Vocabulary) -> Result<Vec<usize>> {
    let mut ends: Vec<usize> = Vec::new();
    for role in ["eos", "eot", "eom"] {
        ends.extend(keys.token(role, vocabulary)?.map(|(id, _)| id));
    }
    let each = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
    let by_text = each.filter(|(_, (token, kind))| **kind == Kind::Control && TURN_ENDS.contains(&token.as_str()));
    ends.extend(by_text.map(|(id, _)| id));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
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
    /// White space after a control token belongs to it.
    strips_right: bool,
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
        Ok(Self {
            tokens,
            kinds,
            strips_right: keys.is_phi3(),
        })
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
        const UNSTRIPPED: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];
        let each = self.tokens.iter().zip(&self.kinds).enumerate();
        each.filter(|(_, (token, kind))| match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => !is_spaces(token),
            _ => false,
        })
        .map(|(id, (token, kind))| {
            let strips_right = self.strips_right && !UNSTRIPPED.contains(&token.as_str());
            json!({"id": id, "content": token, "special": *kind != Kind::UserDefined, "single_word": false,
                "lstrip": false, "rstrip": strips_right, "normalized": false})
        })
        .collect()
    }
}

/// Tokens with their ids, in the order of these: the same bytes whenever the file is read.
fn by_id(ids: &HashMap<&str, usize>) -> Json {
    let mut pairs: Vec<_> = ids.iter().collect();
    pairs.sort_unstable_by_key(|(_, id)| **id);
    let named = pairs.into_iter().map(|(token, id)| ((*token).to_owned(), json!(id)));
    Json::Object(named.collect())
}

/// Runs of spaces are made by merging, not found.
fn is_spaces(token: &str) -> bool {
    token.bytes().all(|byte| byte == b' ')
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

/// BPE over bytes, its words split as `tokenizer.ggml.pre` says.
fn byte_level(keys: &Keys, vocabulary: &Vocabulary) -> Result<Json> {
    let words = keys.words()?;
    let merges = keys
        .texts("merges")?
        .ok_or_else(|| refuse("tokenizer.ggml.merges is missing".into()))?;
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| [left, right]))
        .collect::<Option<_>>()
        .ok_or_else(|| refuse("tokenizer.ggml.merges holds what is not two tokens".into()))?;
    keys.flag("add_space_prefix")?; // of SentencePiece alone
    Ok(json!({
        "normalizer": words.normalizer(),
        "pre_tokenizer": words.pre_tokenizer(),
        "decoder": words::byte_level(),
        "model": {"type": "BPE", "vocab": by_id(&vocabulary.ids()), "merges": merges, "ignore_merges": words.ignores_merges},
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
    let pieces: Vec<String> = vocabulary.tokens.iter().map(|token| piece(token)).collect();
    let mut ids = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        ids.entry(piece.as_str()).or_insert(id);
    }
    let unknown = vocabulary.kinds.iter().position(|kind| *kind == Kind::Unknown);
    keys.text("pre")?; // of byte-level BPE alone
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
        "model": {"type": "BPE", "vocab": by_id(&ids), "merges": merges(&pieces, &ids, vocabulary, scores),
            "byte_fallback": true, "fuse_unk": true, "unk_token": unknown.map(|id| &pieces[id])},
    }))
}

/// A token as normalised texts spell it.
fn piece(token: &str) -> String {
    match is_spaces(token) {
        true => token.replace(' ', "▁"),
        false => token.to_owned(),
    }
}

/// Every way to make a piece of two others, the pieces with the highest scores first: with these ranks BPE merges what
/// SentencePiece would.
fn merges<'p>(
    pieces: &'p [String],
    ids: &HashMap<&str, usize>,
    vocabulary: &Vocabulary,
    scores: &[f32],
) -> Vec<[&'p str; 2]> {
    let mut found: Vec<(f32, usize, usize, [&str; 2])> = Vec::new();
    for (id, piece) in pieces.iter().enumerate() {
        if !matches!(vocabulary.kinds[id], Kind::Normal | Kind::UserDefined) {
            continue;
        }
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
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

/// The keys below `tokenizer.ggml`, which remember what was asked of them.
struct Keys<'f> {
    file: &'f File,
    read: RefCell<HashSet<String>>,
}

const PREFIX: &str = "tokenizer.ggml.";

impl<'f> Keys<'f> {
    fn new(file: &'f File) -> Self {
        let read = RefCell::default();
        Self { file, read }
    }

    fn get(&self, suffix: &str) -> Option<&'f Value> {
        let key = format!("{PREFIX}{suffix}");
        let value = self.file.metadata().get(&key);
        self.read.borrow_mut().insert(key);
        value
    }

    fn text(&self, suffix: &str) -> Result<Option<&'f str>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(refuse(format!("{PREFIX}{suffix} is no text"))),
        }
    }

    fn texts(&self, suffix: &str) -> Result<Option<&'f [String]>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(_) => Err(refuse(format!("{PREFIX}{suffix} is no list of texts"))),
        }
    }

    fn flag(&self, suffix: &str) -> Result<Option<bool>> {
        match self.get(suffix) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(refuse(format!("{PREFIX}{suffix} is neither true nor false"))),
        }
    }

    fn words(&self) -> Result<&'static Words> {
        Words::of(self.text("pre")?).map_err(refuse)
    }

    fn adds_bos(&self, model: &str) -> Result<bool> {
        match (self.flag("add_bos_token")?, model) {
            (Some(adds), _) => Ok(adds),
            (None, "llama") => Ok(true),
            (None, _) => Ok(self.words()?.adds_bos),
        }
    }

    /// Whether the vocabulary is that of Phi-3, whose control tokens take the white space that follows; no key says so.
    fn is_phi3(&self) -> bool {
        let is = |key: &str, word: &str| self.file.metadata().get(key) == Some(&Value::Text(word.into()));
        is("general.architecture", "phi3") && is("tokenizer.ggml.model", "llama")
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
            None => Err(refuse(format!("{PREFIX}{role}_token_id is no id of the vocabulary"))),
        }
    }

    fn refuse_unread(&self) -> Result<()> {
        let read = self.read.borrow();
        let is_silent = |suffix: &str| suffix.ends_with("_token_id") || ["scores", "merges"].contains(&suffix);
        let is_unread = |key: &str, value: &Value| {
            let suffix = key.strip_prefix(PREFIX);
            suffix.is_some_and(|suffix| !is_silent(suffix)) && !value.is_nothing() && !read.contains(key)
        };
        let all = self.file.metadata().iter();
        match all
            .filter(|(key, value)| is_unread(key, value))
            .map(|(key, _)| key)
            .min()
        {
            None => Ok(()),
            Some(key) => Err(refuse(format!("{key} is not known here and may change the tokens"))),
        }
    }
}

fn refuse(cause: String) -> Error {
    Error::Tokenizer(cause)
}

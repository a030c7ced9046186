//! What a `tokenizer.json` may ask for, checked before the tokenizers crate builds it.
//!
//! The parts of a file are told by their keys: the crate reads parts without a `type` too.

use base64::Engine;
use serde_json::{Map, Value};

/// BOUND: the largest id; the largest vocabularies known have 262,144 tokens.
const ID_MAX: u64 = 1 << 24;
/// BOUND: bytes of one token, and of what stands before every text.
const TOKEN_BYTES_MAX: usize = 4096;
/// BOUND: times a text may grow while it is normalised, and again while it is cut or decoded.
const NORMALIZING_MAX: f64 = 4096.0;
const CUTTING_MAX: f64 = 16.0;
/// BOUND: characters of a word that WordPiece compares with its vocabulary, at the cube of its length (100 is usual).
const WORD_CHARS_MAX: u64 = 256;
/// BOUND: pieces of a post-processor's template, and ids of one of its tokens.
const PIECES_MAX: usize = 64;

type Checked<T = ()> = std::result::Result<T, String>;

/// How much longer, in bytes, a text can become before its tokens are looked up.
pub struct Growth {
    normalizing: f64,
    prepended: f64,
    pub cutting: f64,
}

impl Growth {
    pub const BYTE_LEVEL: Self = Self {
        normalizing: 3.0,
        prepended: 0.0,
        cutting: 4.0,
    };

    /// The most bytes that a text of `bytes` can take.
    pub fn bound(&self, bytes: usize) -> f64 {
        (bytes as f64 + self.prepended) * self.normalizing * self.cutting
    }
}

/// Checks a whole file.
pub fn file(file: &Map<String, Value>) -> Checked<Growth> {
    let part = |name: &str| file.get(name).unwrap_or(&Value::Null);
    vocabulary(part("model"))?;
    model(part("model"))?;
    for added in part("added_tokens").as_array().into_iter().flatten() {
        id(&added["id"])?;
        token(added["content"].as_str().unwrap_or_default())?;
    }
    post_processor(part("post_processor"))?;
    growth(part("decoder"), "decoders", rewriting, "decoder", CUTTING_MAX)?;
    let normalizer = part("normalizer");
    Ok(Growth {
        normalizing: growth(normalizer, "normalizers", rewriting, "normalizer", NORMALIZING_MAX)?,
        prepended: prepended(normalizer)? as f64,
        cutting: growth(
            part("pre_tokenizer"),
            "pretokenizers",
            cutting,
            "pre_tokenizer",
            CUTTING_MAX,
        )?,
    })
}

/// Checks the text of a token.
pub fn token(text: &str) -> Checked {
    match text.len() > TOKEN_BYTES_MAX {
        true => Err(format!(
            "a token of {} bytes is longer than {TOKEN_BYTES_MAX}",
            text.len()
        )),
        false => Ok(()),
    }
}

fn id(value: &Value) -> Checked {
    match value.as_u64() {
        Some(id) if id <= ID_MAX => Ok(()),
        _ => Err(format!("the id {value} is not a number up to {ID_MAX}")),
    }
}

fn vocabulary(model: &Value) -> Checked {
    match &model["vocab"] {
        Value::Object(ids) => ids.iter().try_for_each(|(text, value)| token(text).and(id(value))),
        // Unigram: pairs of a token and its score, numbered as they stand
        Value::Array(pairs) => pairs
            .iter()
            .try_for_each(|pair| token(pair[0].as_str().unwrap_or_default())),
        _ => Ok(()),
    }
}

fn model(model: &Value) -> Checked {
    if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
        return Err("has BPE dropout: its tokens are random".into());
    }
    if let Some(chars) = model["max_input_chars_per_word"]
        .as_u64()
        .filter(|&chars| chars > WORD_CHARS_MAX)
    {
        return Err(format!(
            "max_input_chars_per_word is {chars}, more than {WORD_CHARS_MAX}"
        ));
    }
    // the crate cuts the prefix off by its length alone
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let bare = |merge: &&Value| {
        let second = merge.as_str().map_or(merge[1].as_str(), |pair| pair.split(' ').nth(1));
        second.is_some_and(|second| !second.starts_with(prefix))
    };
    match model["merges"].as_array().and_then(|merges| merges.iter().find(bare)) {
        Some(merge) => Err(format!("the merge {merge} goes on without the prefix {prefix:?}")),
        None => Ok(()),
    }
}

/// Every sequence stands once in a template, for each repetition copies it.
fn post_processor(part: &Value) -> Checked {
    if let Some(parts) = part["processors"].as_array() {
        return parts.iter().try_for_each(post_processor);
    }
    let pieces = part["single"].as_array().map_or(&[][..], Vec::as_slice);
    let sequences = pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count();
    if sequences > 1 || pieces.len() > PIECES_MAX {
        return Err(format!(
            "post_processor repeats its text, or has more than {PIECES_MAX} pieces"
        ));
    }
    let tokens = part["special_tokens"].as_object().into_iter().flatten();
    for ids in tokens.filter_map(|(_, token)| token["ids"].as_array()) {
        if ids.len() > PIECES_MAX {
            return Err(format!("post_processor has a token of more than {PIECES_MAX} ids"));
        }
        ids.iter().try_for_each(id)?;
    }
    Ok(())
}

/// How many times longer a text can become by a part, or by the parts of a sequence one after the other.
fn growth(part: &Value, list: &str, one: fn(&Value) -> Checked<f64>, name: &str, most: f64) -> Checked<f64> {
    fn product(part: &Value, list: &str, one: fn(&Value) -> Checked<f64>) -> Checked<f64> {
        match part[list].as_array() {
            Some(parts) => parts.iter().map(|part| product(part, list, one)).product(),
            None => one(part),
        }
    }
    match product(part, list, one)? {
        factor if factor > most => Err(format!(
            "{name} can make a text {factor} times longer, the limit is {most}"
        )),
        factor => Ok(factor),
    }
}

/// Growth by one normalizer or decoder; of the Unicode forms as Unicode states it.
fn rewriting(part: &Value) -> Checked<f64> {
    if let Some(content) = part["content"].as_str() {
        let replaced = part["pattern"]["String"].as_str().map_or(0, str::len);
        // an expression, or an empty pattern, also matches where no byte is
        return Ok(match replaced {
            0 => content.len() as f64 + 1.0,
            replaced => (content.len() as f64 / replaced as f64).max(1.0),
        });
    }
    if let Some(charsmap) = part["precompiled_charsmap"].as_str() {
        return replacement(charsmap);
    }
    Ok(match part["type"].as_str() {
        Some("NFKC" | "NFKD") => 11.0,
        Some("NFC" | "NFD") => 3.0,
        Some("BertNormalizer") => 8.0,
        Some("ByteLevel" | "Lowercase") => 2.0,
        None if !part.is_null() => 11.0,
        _ => 1.0,
    })
}

/// The longest text of a compiled map: a trie of the size that its first four bytes say, then texts that end in NUL.
fn replacement(charsmap: &str) -> Checked<f64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(charsmap);
    let bytes = bytes.map_err(|_| "precompiled_charsmap is not base64")?;
    let texts = bytes
        .split_first_chunk()
        .and_then(|(size, rest)| rest.get(u32::from_le_bytes(*size) as usize..));
    let texts = texts.ok_or("precompiled_charsmap is cut short")?;
    let longest = texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    Ok(longest.max(1) as f64)
}

/// Bytes that stand before every text.
fn prepended(part: &Value) -> Checked<usize> {
    if let Some(parts) = part["normalizers"].as_array() {
        return parts.iter().map(prepended).sum();
    }
    let text = part["prepend"].as_str().unwrap_or_default();
    token(text).map(|()| text.len())
}

/// Growth by one pre-tokenizer: a byte may become a character of two, a space or the mark of a word's start one of four.
fn cutting(part: &Value) -> Checked<f64> {
    Ok(match part["type"].as_str() {
        Some("ByteLevel") if part["add_prefix_space"] == false => 2.0,
        Some("ByteLevel") => 4.0,
        Some(
            "BertPreTokenizer" | "CharDelimiterSplit" | "Digits" | "FixedLength" | "Punctuation" | "Split"
            | "UnicodeScripts" | "Whitespace" | "WhitespaceSplit",
        ) => 1.0,
        _ if part.is_null() => 1.0,
        _ => 5.0,
    })
}

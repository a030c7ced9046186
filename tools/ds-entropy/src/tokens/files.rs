//! Tokenizers from files: `tokenizer.json`, a vocabulary with merges, or a tiktoken rank file.
//!
//! The ids are those of the `tokenizers` crate (of tiktoken's `encode_ordinary` for rank files), without the special tokens
//! a model would add around a text. Byte-level BPE takes a short way: text is cut into words here and only words not seen
//! before reach the crate. Every other kind of tokenizer goes through the crate whole.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use model::tokenizer::{Engine, guarded};
use process::{Error, Result, ResultExt};
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::{AddedToken, Tokenizer};

use super::bytelevel::{self, Pattern, byte_characters};
use super::cache::PieceCache;

/// Which files make one tokenizer, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    Json(PathBuf),
    Merges {
        vocabulary: PathBuf,
        merges: PathBuf,
        config: Option<PathBuf>,
    },
    Ranks(PathBuf),
}

impl Files {
    /// Looks at a path as given: a model directory, or one of its tokenizer files.
    pub fn find(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).at(path.display())?;
        if metadata.is_dir() {
            return Self::in_directory(path);
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        match name.as_str() {
            "vocab.json" | "merges.txt" | "encoder.json" | "vocab.bpe" => Self::merges_in(parent).ok_or_else(|| {
                Error::input(
                    path.display(),
                    "its other half (vocab.json with merges.txt) is not beside it",
                )
            }),
            _ if name.ends_with(".tiktoken") || name == "tokenizer.model" => Ok(Self::Ranks(path.to_owned())),
            _ => Ok(Self::Json(path.to_owned())),
        }
    }

    fn in_directory(directory: &Path) -> Result<Self> {
        let json = directory.join("tokenizer.json");
        if json.is_file() {
            return Ok(Self::Json(json));
        }
        if let Some(merges) = Self::merges_in(directory) {
            return Ok(merges);
        }
        let mut ranks: Vec<PathBuf> = fs::read_dir(directory)
            .at(directory.display())?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.extension().is_some_and(|extension| extension == "tiktoken")
                    || path.file_name().is_some_and(|name| name == "tokenizer.model")
            })
            .collect();
        ranks.sort();
        match <[PathBuf; 1]>::try_from(ranks) {
            Ok([path]) => Ok(Self::Ranks(path)),
            Err(found) if found.is_empty() => Err(Error::input(
                directory.display(),
                "holds no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, encoder.json with vocab.bpe, *.tiktoken",
            )),
            Err(_) => Err(Error::input(
                directory.display(),
                "holds several tiktoken files; name one",
            )),
        }
    }

    fn merges_in(directory: &Path) -> Option<Self> {
        [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]
            .iter()
            .find_map(|(vocabulary, merges)| {
                let (vocabulary, merges) = (directory.join(vocabulary), directory.join(merges));
                let config = directory.join("tokenizer_config.json");
                (vocabulary.is_file() && merges.is_file()).then(|| Self::Merges {
                    vocabulary,
                    merges,
                    config: config.is_file().then_some(config),
                })
            })
    }

    fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Json(path) | Self::Ranks(path) => vec![path],
            Self::Merges {
                vocabulary,
                merges,
                config,
            } => [Some(vocabulary), Some(merges), config.as_ref()]
                .into_iter()
                .flatten()
                .map(PathBuf::as_path)
                .collect(),
        }
    }

    /// Identifies the tokenizer in the plan, whatever its path.
    pub fn digest(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for path in self.paths() {
            let bytes = fs::read(path).at(path.display())?;
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
        Ok(format!("blake3:{}", hasher.finalize().to_hex()))
    }

    pub fn load(&self) -> Result<FileTokenizer> {
        match self {
            Self::Json(path) => load_json(path),
            Self::Merges {
                vocabulary,
                merges,
                config,
            } => load_merges(vocabulary, merges, config.as_deref()),
            Self::Ranks(path) => load_ranks(path),
        }
    }
}

/// A tokenizer as its files define it, shared by all threads.
pub struct FileTokenizer {
    merger: Merger,
    /// How text is cut into words that can be remembered; absent where only the crate knows.
    words: Option<Words>,
    byte_characters: [char; 256],
}

enum Merger {
    Crate(Box<Engine>),
    Ranks(Ranks),
}

struct Words {
    pattern: Pattern,
    /// A space is put before a text that does not start with one.
    add_prefix_space: bool,
    /// The tokenizer brings text to Unicode's form NFC first.
    nfc: bool,
    /// Added tokens, which stand for themselves wherever they occur: those matched before normalisation, then the others.
    added: [Option<Added>; 2],
}

struct Added {
    search: AhoCorasick,
    ids: Vec<u32>,
}

/// One thread's buffers.
#[derive(Default)]
pub struct Scratch {
    mapped: String,
    prefixed: String,
    merge: MergeScratch,
}

impl FileTokenizer {
    /// Appends the ids of `text`.
    pub fn append(
        &self,
        text: &str,
        cache: &mut PieceCache,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), String> {
        let Some(words) = &self.words else {
            return self.append_by_crate(text, out);
        };
        // Form NFC changes nothing in ASCII, and nothing where the quick check says so; anything else is for the crate.
        if words.nfc
            && !text.is_ascii()
            && unicode_normalization::is_nfc_quick(text.chars()) != unicode_normalization::IsNormalized::Yes
        {
            return self.append_by_crate(text, out);
        }
        self.append_segments(words, 0, text, cache, scratch, out)
    }

    pub fn token(&self, id: u32) -> String {
        match &self.merger {
            Merger::Crate(engine) => engine.inner().id_to_token(id).unwrap_or_else(|| format!("<id {id}>")),
            Merger::Ranks(ranks) => ranks.tokens[id as usize]
                .iter()
                .map(|&byte| self.byte_characters[usize::from(byte)])
                .collect(),
        }
    }

    /// One more than the largest id.
    pub fn id_count(&self) -> usize {
        match &self.merger {
            Merger::Crate(engine) => engine
                .inner()
                .get_vocab(true)
                .values()
                .max()
                .map_or(0, |&id| id as usize + 1),
            Merger::Ranks(ranks) => ranks.tokens.len(),
        }
    }

    fn append_by_crate(&self, text: &str, out: &mut Vec<u32>) -> std::result::Result<(), String> {
        let Merger::Crate(engine) = &self.merger else {
            unreachable!("a rank file always has a word pattern");
        };
        out.extend(engine.encode(text, false).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn append_segments(
        &self,
        words: &Words,
        level: usize,
        text: &str,
        cache: &mut PieceCache,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), String> {
        let Some(added) = words.added.get(level) else {
            return self.append_words(words, text, cache, scratch, out);
        };
        let mut start = 0;
        if let Some(added) = added {
            for found in added.search.find_iter(text) {
                if found.start() > start {
                    self.append_segments(words, level + 1, &text[start..found.start()], cache, scratch, out)?;
                }
                out.push(added.ids[found.pattern().as_usize()]);
                start = found.end();
            }
        }
        if start < text.len() {
            self.append_segments(words, level + 1, &text[start..], cache, scratch, out)?;
        }
        Ok(())
    }

    fn append_words(
        &self,
        words: &Words,
        text: &str,
        cache: &mut PieceCache,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), String> {
        let mut prefixed = std::mem::take(&mut scratch.prefixed);
        let mut rest = if words.add_prefix_space && !text.starts_with(' ') {
            prefixed.clear();
            prefixed.push(' ');
            prefixed.push_str(text);
            &prefixed
        } else {
            text
        };
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let (word, after) = rest.split_at(words.pattern.word_len(rest));
            result = cache.append(rest.as_bytes(), word.len(), 0, out, |out| {
                self.merge(word, scratch, out)
            });
            rest = after;
        }
        scratch.prefixed = prefixed;
        result
    }

    fn merge(&self, word: &str, scratch: &mut Scratch, out: &mut Vec<u32>) -> std::result::Result<(), String> {
        match &self.merger {
            Merger::Crate(engine) => {
                scratch.mapped.clear();
                scratch
                    .mapped
                    .extend(word.bytes().map(|byte| self.byte_characters[usize::from(byte)]));
                engine.word(&scratch.mapped, out).map_err(|error| error.to_string())
            }
            Merger::Ranks(ranks) => {
                let Ok(()) = ranks
                    .merge(word.as_bytes(), &mut scratch.merge, out)
                    .map_err(|never: Infallible| match never {});
                Ok(())
            }
        }
    }
}

fn load_json(path: &Path) -> Result<FileTokenizer> {
    let bytes = fs::read(path).at(path.display())?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let hint = "a SentencePiece model (binary) must be converted to tokenizer.json first";
        Error::input(path.display(), format!("is not a tokenizer.json: {error}")).hint(hint)
    })?;
    let engine = Engine::read(&bytes).at(path.display())?;
    let words = words_of(&json);
    Ok(FileTokenizer {
        merger: Merger::Crate(Box::new(engine)),
        words,
        byte_characters: byte_characters(),
    })
}

/// The short way for this `tokenizer.json`, where every part of it is of a known kind.
fn words_of(json: &Value) -> Option<Words> {
    let is_byte_level = |part: &Value| part["type"] == "ByteLevel";
    let nfc = match json["normalizer"]["type"].as_str() {
        None if json["normalizer"].is_null() => false,
        Some("NFC") => true,
        _ => return None,
    };
    if json["model"]["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return None;
    }
    let cutter = &json["pre_tokenizer"];
    let (pattern, add_prefix_space) = if is_byte_level(cutter) {
        // `use_regex` is true where old files do not say.
        let pattern = (cutter["use_regex"] != false).then_some(Pattern::Gpt2)?;
        (pattern, cutter["add_prefix_space"] == true)
    } else {
        let [split, bytes] = cutter["pretokenizers"].as_array()?.as_slice() else {
            return None;
        };
        let isolated = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
        let plain = is_byte_level(bytes) && bytes["add_prefix_space"] == false && bytes["use_regex"] == false;
        if cutter["type"] != "Sequence" || !isolated || !plain {
            return None;
        }
        (Pattern::of(split["pattern"]["Regex"].as_str()?)?, false)
    };
    let tokens = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let mut lists: [Vec<(String, u32)>; 2] = Default::default();
    for token in tokens {
        if [&token["single_word"], &token["lstrip"], &token["rstrip"]]
            .into_iter()
            .any(|flag| flag != false)
        {
            return None;
        }
        let content = token["content"].as_str().filter(|content| !content.is_empty())?;
        let is_normalized = token["normalized"].as_bool()?;
        // Form NFC could change such a token itself.
        if is_normalized && nfc && !content.is_ascii() {
            return None;
        }
        lists[usize::from(is_normalized)].push((content.to_owned(), u32::try_from(token["id"].as_u64()?).ok()?));
    }
    let [raw, normalized] = lists;
    Some(Words {
        pattern,
        add_prefix_space,
        nfc,
        added: [search_for(raw)?, search_for(normalized)?],
    })
}

fn search_for(tokens: Vec<(String, u32)>) -> Option<Option<Added>> {
    if tokens.is_empty() {
        return Some(None);
    }
    let (contents, ids): (Vec<String>, Vec<u32>) = tokens.into_iter().unzip();
    let search = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(&contents)
        .ok()?;
    Some(Some(Added { search, ids }))
}

fn load_merges(vocabulary: &Path, merges: &Path, config: Option<&Path>) -> Result<FileTokenizer> {
    let subject = format!("{} with {}", vocabulary.display(), merges.display());
    let refused = |error: tokenizers::Error| Error::input(&subject, error);
    let (Some(vocabulary_text), Some(merges_text)) = (vocabulary.to_str(), merges.to_str()) else {
        return Err(Error::usage(vocabulary.display(), "is not UTF-8"));
    };
    let bpe = guarded(|| BPE::from_file(vocabulary_text, merges_text).build()).at(&subject)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let config: Value = match config {
        Some(path) => {
            let bytes = fs::read(path).at(path.display())?;
            serde_json::from_slice(&bytes).map_err(|error| Error::input(path.display(), error))?
        }
        None => Value::Null,
    };
    let class = config["tokenizer_class"]
        .as_str()
        .unwrap_or("GPT2Tokenizer")
        .trim_end_matches("Fast");
    let (pattern, nfc) = match class {
        "GPT2Tokenizer" | "CodeGenTokenizer" | "RobertaTokenizer" | "BartTokenizer" => (Pattern::Gpt2, false),
        "Qwen2Tokenizer" => (Pattern::Modern { digits_max: 1 }, true),
        other => {
            return Err(Error::input(
                vocabulary.display(),
                format!("is of class {other:?}, whose word pattern is in no file here"),
            )
            .hint("save it as tokenizer.json with transformers"));
        }
    };
    if nfc {
        tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
    }
    tokenizer.with_pre_tokenizer(Some(crate_cutter(pattern).map_err(refused)?));
    let mut added: Vec<(u32, AddedToken)> = Vec::new();
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let (Ok(id), Some(content)) = (id.parse(), token["content"].as_str()) else {
            return Err(Error::input(
                vocabulary.display(),
                "tokenizer_config.json lists an added token without id or content",
            ));
        };
        let token = AddedToken::from(content, token["special"] == true)
            .single_word(token["single_word"] == true)
            .lstrip(token["lstrip"] == true)
            .rstrip(token["rstrip"] == true)
            .normalized(token["normalized"] == true);
        added.push((id, token));
    }
    // The crate numbers added tokens by order; in order of their ids they get the ids they have.
    added.sort_by_key(|(id, _)| *id);
    for (id, token) in added {
        let content = token.content.clone();
        tokenizer.add_tokens([token]).map_err(refused)?;
        if tokenizer.token_to_id(&content) != Some(id) {
            return Err(Error::input(
                vocabulary.display(),
                format!("added token {content:?} cannot have the id {id}"),
            ));
        }
    }
    let text = tokenizer.to_string(false).map_err(refused)?;
    let json: Value = serde_json::from_str(&text).map_err(|error| Error::bug(vocabulary.display(), error))?;
    let words = words_of(&json);
    let engine = Engine::read(text.as_bytes()).at(&subject)?;
    Ok(FileTokenizer {
        merger: Merger::Crate(Box::new(engine)),
        words,
        byte_characters: byte_characters(),
    })
}

fn crate_cutter(pattern: Pattern) -> tokenizers::Result<tokenizers::PreTokenizerWrapper> {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::sequence::Sequence;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    let expression = match pattern {
        Pattern::Gpt2 => return Ok(ByteLevel::new(false, true, true).into()),
        Pattern::Modern { digits_max: 1 } => bytelevel::QWEN2,
        Pattern::Modern { .. } => bytelevel::CL100K,
    };
    let split = Split::new(
        SplitPattern::Regex(expression.to_owned()),
        tokenizers::SplitDelimiterBehavior::Isolated,
        false,
    )?;
    Ok(Sequence::new(vec![split.into(), ByteLevel::new(false, false, false).into()]).into())
}

/// A tiktoken vocabulary: byte strings by rank, lower ranks merged first.
struct Ranks {
    by_bytes: HashMap<Vec<u8>, u32>,
    tokens: Vec<Vec<u8>>,
}

#[derive(Default)]
struct MergeScratch {
    /// Start of each part, and the end.
    starts: Vec<usize>,
}

impl Ranks {
    /// tiktoken's merge: while any two neighbours join to a known token, join the pair of lowest rank, leftmost first.
    fn merge(
        &self,
        word: &[u8],
        scratch: &mut MergeScratch,
        out: &mut Vec<u32>,
    ) -> std::result::Result<(), Infallible> {
        if let Some(&id) = self.by_bytes.get(word) {
            out.push(id);
            return Ok(());
        }
        let starts = &mut scratch.starts;
        starts.clear();
        starts.extend(0..=word.len());
        loop {
            let best = starts
                .windows(3)
                .enumerate()
                .filter_map(|(at, part)| self.by_bytes.get(&word[part[0]..part[2]]).map(|&rank| (rank, at)))
                .min();
            let Some((_, at)) = best else { break };
            starts.remove(at + 1);
        }
        // Every single byte is a token (checked on loading), so every part is one.
        out.extend(starts.windows(2).map(|part| self.by_bytes[&word[part[0]..part[1]]]));
        Ok(())
    }
}

fn load_ranks(path: &Path) -> Result<FileTokenizer> {
    let bytes = fs::read(path).at(path.display())?;
    let refused = |line: usize, cause: &str| Error::input(format!("{}:{line}", path.display()), cause);
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Error::input(
            path.display(),
            "is not a tiktoken file (it may be a SentencePiece model)",
        )
        .hint("convert it to tokenizer.json with transformers")
    })?;
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for (index, line) in text.lines().filter(|line| !line.is_empty()).enumerate() {
        let (token, rank) = line
            .split_once(' ')
            .ok_or_else(|| refused(index + 1, "is not a base64 token and its rank"))?;
        if rank.parse::<usize>() != Ok(index) {
            return Err(refused(index + 1, "ranks are not 0, 1, 2, … in order"));
        }
        tokens.push(
            base64::engine::general_purpose::STANDARD
                .decode(token)
                .map_err(|_| refused(index + 1, "its token is not base64"))?,
        );
    }
    let by_bytes: HashMap<Vec<u8>, u32> = tokens.iter().cloned().zip(0..).collect();
    if by_bytes.len() != tokens.len() {
        return Err(Error::input(path.display(), "lists a token twice"));
    }
    if let Some(byte) = (0..=255u8).find(|&byte| !by_bytes.contains_key(&[byte][..])) {
        return Err(Error::input(
            path.display(),
            format!("has no token for the byte {byte:#04x}"),
        ));
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let pattern = match name.as_str() {
        name if name.contains("cl100k") || name == "tokenizer.model" => Pattern::Modern { digits_max: 3 },
        name if ["gpt2", "r50k", "p50k"].iter().any(|known| name.contains(known)) => Pattern::Gpt2,
        _ => {
            return Err(Error::input(
                path.display(),
                "its word pattern cannot be told from its name (known: cl100k, p50k, r50k, gpt2, tokenizer.model of Llama 3)",
            ));
        }
    };
    let words = Words {
        pattern,
        add_prefix_space: false,
        nfc: false,
        added: [None, None],
    };
    Ok(FileTokenizer {
        merger: Merger::Ranks(Ranks { by_bytes, tokens }),
        words: Some(words),
        byte_characters: byte_characters(),
    })
}

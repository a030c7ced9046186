//! How a text is split into words before bytes are merged: what `tokenizer.ggml.pre` names, as the tokenizers of the same models
//! split it.

use serde_json::{Value as Json, json};

use crate::error::shown;

/// What one name stands for.
pub struct Words {
    /// Expressions of which each match is a word, one after another.
    expressions: &'static [&'static str],
    /// Texts are composed first.
    composes: bool,
    /// A word that is a token is taken as it is.
    pub ignores_merges: bool,
    /// Where the file does not say whether a beginning-of-sequence token is added.
    pub adds_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const PUNCTUATION: &str = r"[\p{P}$+<=>^~|`]+";
const THREE_DIGITS: &str = "[0-9]{3}";

const PLAIN: Words = Words {
    expressions: &[GPT2],
    composes: false,
    ignores_merges: false,
    adds_bos: false,
};

const ALL: &[(&[&str], Words)] = &[
    (
        &["gpt-2", "phi-2", "mpt", "jais", "gigachat", "exaone4", "mellum"],
        PLAIN,
    ),
    (
        &["olmo"],
        Words {
            composes: true,
            ..PLAIN
        },
    ),
    (
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        Words {
            expressions: &[DIGIT, GPT2],
            ..PLAIN
        },
    ),
    (
        &["falcon"],
        Words {
            expressions: &[PUNCTUATION, GPT2, THREE_DIGITS],
            ..PLAIN
        },
    ),
    (
        &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        Words {
            expressions: &[LLAMA3],
            ..PLAIN
        },
    ),
    (
        &["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"],
        Words {
            expressions: &[LLAMA3],
            ignores_merges: true,
            adds_bos: true,
            ..PLAIN
        },
    ),
    (
        &["qwen2", "deepseek-r1-qwen", "megrez"],
        Words {
            expressions: &[QWEN2],
            composes: true,
            ..PLAIN
        },
    ),
    (
        &["tekken"],
        Words {
            expressions: &[TEKKEN],
            ignores_merges: true,
            adds_bos: true,
            ..PLAIN
        },
    ),
    (
        &["gpt-4o"],
        Words {
            expressions: &[GPT4O],
            ..PLAIN
        },
    ),
];

impl Words {
    /// What `name` stands for, or why it is refused.
    pub fn of(name: Option<&str>) -> Result<&'static Self, String> {
        let Some(name) = name else {
            return Err("tokenizer.ggml.pre is missing: how texts are split into words is not known".into());
        };
        let found = ALL.iter().find(|(names, _)| names.contains(&name));
        found.map(|(_, words)| words).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            format!(
                "tokenizer.ggml.pre = {} is not read (read: {})",
                shown(name),
                known.join(", ")
            )
        })
    }

    /// `normalizer` of tokenizer.json.
    pub fn normalizer(&self) -> Json {
        match self.composes {
            true => json!({"type": "NFC"}),
            false => Json::Null,
        }
    }

    /// `pre_tokenizer` of tokenizer.json.
    pub fn pre_tokenizer(&self) -> Json {
        let splits = self.expressions.iter().map(
            |expression| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false}),
        );
        let all: Vec<Json> = splits.chain([byte_level()]).collect();
        json!({"type": "Sequence", "pretokenizers": all})
    }
}

/// Every byte as a character: words are split before.
pub fn byte_level() -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

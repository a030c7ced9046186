//! Chat templates: messages → the text a chat model was trained on.
//!
//! A template is data from somebody else. It is rendered by minijinja with the settings transformers uses, without
//! files, clock or network, within a bound on steps and on output; the same messages always give the same text.

use std::io::{self, Write};
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as JinjaError, ErrorKind, context};
use serde_json::Value;

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// BOUND: instructions one rendering may take, and bytes it may give.
const STEPS_MAX: u64 = 10_000_000;
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// One turn of a conversation: who speaks, and what.
pub type Turn<'t> = (&'t str, &'t str);

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    source: String,
}

impl Template {
    /// The template of a model directory: `chat_template.jinja`, else `chat_template` of tokenizer_config.json (a text,
    /// or a list of which `default` is taken); none is `Ok(None)`.
    pub fn open(directory: &Directory) -> Result<Option<Self>> {
        if let Some(bytes) = directory.read_optional("chat_template.jinja")? {
            let text =
                String::from_utf8(bytes).map_err(|_| Error::Template("chat_template.jinja is not UTF-8".into()))?;
            return Self::parse(&text).map(Some);
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let Some(bytes) = directory.read_optional(name)? else {
                continue;
            };
            let map = json::document(&bytes).map_err(|cause| Error::Template(format!("{name}: {cause}")))?;
            let text = match map.get("chat_template") {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.as_str(),
                Some(Value::Array(list)) => list
                    .iter()
                    .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
                    .and_then(|entry| entry.get("template")?.as_str())
                    .ok_or_else(|| Error::Template(format!("{name}: no template is called \"default\"")))?,
                Some(_) => {
                    return Err(Error::Template(format!(
                        "{name}: chat_template is neither a text nor a list"
                    )));
                }
            };
            return Self::parse(text).map(Some);
        }
        Ok(None)
    }

    /// The template that `path` names: a file, or any directory that holds one.
    pub fn read(path: &Path, follow_links: bool) -> Result<Self> {
        if path.is_dir() {
            let found = Self::open(&Directory::any(path, follow_links)?)?;
            return found.ok_or_else(|| Error::file("", "holds no chat template"));
        }
        let bytes = std::fs::read(path).map_err(|cause| Error::io("", cause))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::file("", "is not UTF-8"))?;
        Self::parse(&text)
    }

    /// Compiles a template.
    pub fn parse(text: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(refuse)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |cause: String| -> std::result::Result<String, JinjaError> {
                Err(JinjaError::new(ErrorKind::InvalidOperation, cause))
            },
        );
        environment
            .add_template_owned("chat", text.to_owned())
            .map_err(refuse)?;
        Ok(Self {
            environment,
            source: text.to_owned(),
        })
    }

    /// The text of a conversation; `generation_prompt` opens the assistant's turn.
    pub fn render(&self, turns: &[Turn], tokenizer: &Tokenizer, generation_prompt: bool) -> Result<String> {
        let special = tokenizer.special_texts();
        let message = |&(role, content): &Turn| minijinja::Value::from_pairs([("role", role), ("content", content)]);
        let messages: Vec<_> = turns.iter().map(message).collect();
        let text = |role: &str| special.get(role).cloned().unwrap_or_default();
        let context = context! {
            messages => messages,
            add_generation_prompt => generation_prompt,
            bos_token => text("bos_token"),
            eos_token => text("eos_token"),
            unk_token => text("unk_token"),
            pad_token => text("pad_token"),
        };
        let mut output = Bounded(Vec::new());
        let template = self.environment.get_template("chat").map_err(refuse)?;
        template.render_captured_to(context, &mut output).map_err(refuse)?;
        String::from_utf8(output.0).map_err(|_| Error::Template("gave a text that is not UTF-8".into()))
    }

    /// BLAKE3 of the template's text.
    pub fn digest(&self) -> blake3::Hash {
        blake3::hash(self.source.as_bytes())
    }
}

fn refuse(cause: JinjaError) -> Error {
    // the innermost cause says most: what the template raised, or which bound it met
    let mut text = cause.to_string();
    let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(&cause);
    while let Some(error) = inner {
        text = format!("{text}: {error}");
        inner = error.source();
    }
    Error::Template(text)
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(format!("gives more than {OUTPUT_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

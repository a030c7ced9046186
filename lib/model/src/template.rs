//! Chat templates: messages → the text a chat model was trained on.
//!
//! A template is data from somebody else. It is rendered by minijinja with the settings transformers uses, without
//! files, clock or network; the same messages always give the same text. Steps are counted; what a step may build cannot
//! be bounded in the engine, so it runs in a confined process.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as JinjaError, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::confined::{Answer, Asker, Confined};
use crate::directory::{self, Directory};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// BOUND: instructions one rendering may take.
const STEPS_MAX: u64 = 10_000_000;
/// BOUND: characters of a refusal, which may quote the template's own values.
const REFUSAL_CHARS_MAX: usize = 1000;

/// One turn of a conversation: who speaks, and what.
pub type Turn<'t> = (&'t str, &'t str);

/// A chat template that compiles.
pub struct Template {
    source: String,
    /// Processes that wait to render: one, or as many as threads have rendered at once.
    idle: Mutex<Vec<Confined>>,
}

/// What a rendering depends on.
#[derive(Serialize, Deserialize)]
struct Request<'r> {
    turns: Vec<(Cow<'r, str>, Cow<'r, str>)>,
    special: Cow<'r, HashMap<String, String>>,
    generation_prompt: bool,
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
        let file = File::open(path).map_err(|cause| Error::io("", cause))?;
        let bytes = directory::read_text(file, "")?;
        let text = String::from_utf8(bytes).map_err(|_| Error::file("", "is not UTF-8"))?;
        Self::parse(&text)
    }

    /// Compiles a template.
    pub fn parse(text: &str) -> Result<Self> {
        let template = Self {
            source: text.to_owned(),
            idle: Mutex::default(),
        };
        let process = template.start()?;
        template.idle().push(process);
        Ok(template)
    }

    /// The text of a conversation; `generation_prompt` opens the assistant's turn.
    pub fn render(&self, turns: &[Turn], tokenizer: &Tokenizer, generation_prompt: bool) -> Result<String> {
        let request = Request {
            turns: turns
                .iter()
                .map(|&(role, content)| (role.into(), content.into()))
                .collect(),
            special: Cow::Borrowed(tokenizer.special_texts()),
            generation_prompt,
        };
        let request = serde_json::to_vec(&request).map_err(|cause| Error::Template(cause.to_string()))?;
        let waiting = self.idle().pop();
        let mut process = waiting.map_or_else(|| self.start(), Ok)?;
        let Ok(answer) = process.ask(&request) else {
            return Err(Error::Template(process.epitaph()));
        };
        self.idle().push(process);
        answer.map_err(Error::Template)
    }

    /// A process that has compiled the template.
    fn start(&self) -> Result<Confined> {
        let started = Confined::start(|asker| serve(&self.source, asker));
        let mut process = started.map_err(|cause| Error::io("chat template", cause))?;
        match process.answer() {
            Ok(compiled) => compiled.map(|_| process).map_err(Error::Template),
            Err(_) => Err(Error::Template(process.epitaph())),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Confined>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// BLAKE3 of the template's text.
    pub fn digest(&self) -> blake3::Hash {
        blake3::hash(self.source.as_bytes())
    }
}

/// The confined side: says whether the template compiles, then renders what it is asked.
fn serve(source: &str, mut asker: Asker) -> io::Result<()> {
    let environment = compile(source);
    asker.answer(environment.as_ref().map(|_| String::new()).map_err(refusal))?;
    let Ok(environment) = environment else {
        return Ok(());
    };
    while let Some(request) = asker.request() {
        let request: Request = serde_json::from_slice(&request)?;
        asker.answer(render(&environment, &request))?;
    }
    Ok(())
}

fn compile(source: &str) -> std::result::Result<Environment<'_>, JinjaError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(STEPS_MAX));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |cause: String| -> std::result::Result<String, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, cause))
        },
    );
    environment.add_template("chat", source)?;
    Ok(environment)
}

fn render(environment: &Environment, request: &Request) -> Answer {
    let message = |(role, content): &(Cow<str>, Cow<str>)| {
        minijinja::Value::from_pairs([("role", role.as_ref()), ("content", content.as_ref())])
    };
    let messages: Vec<_> = request.turns.iter().map(message).collect();
    let text = |role: &str| request.special.get(role).map_or("", String::as_str);
    let context = context! {
        messages => messages,
        add_generation_prompt => request.generation_prompt,
        bos_token => text("bos_token"),
        eos_token => text("eos_token"),
        unk_token => text("unk_token"),
        pad_token => text("pad_token"),
    };
    let template = environment.get_template("chat").map_err(|cause| refusal(&cause))?;
    template.render(context).map_err(|cause| refusal(&cause))
}

/// The innermost cause says most: what the template raised, or which bound it met.
fn refusal(cause: &JinjaError) -> String {
    let mut text = cause.to_string();
    let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(cause);
    while let Some(error) = inner {
        text = format!("{text}: {error}");
        inner = error.source();
    }
    text.chars().take(REFUSAL_CHARS_MAX).collect()
}

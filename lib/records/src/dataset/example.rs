//! What a row means: the schemas in which people keep conversations, brought to one form.

use ::json::{KeyName, kind};
use serde_json::{Map, Value};

use super::Row;
use crate::error::{Error, Fault, Result};
use crate::record::{Message, text_of_content};

/// The schema in which an [`Example`] was recognised, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schema {
    /// `--field`: one text.
    Field,
    /// `messages` of `role` and `content` (text, or a list of text parts).
    Messages,
    /// `conversations` of `from` and `value`, with `system`.
    Conversations,
    /// `chosen` and `rejected` answers to `prompt`, `instruction` or the turns before.
    ChosenRejected,
    /// `instruction`, `input` (or `context`), `output` (or `response`), with `system` and `history`.
    Instruction,
    /// `prompt` (or `question`) and `completion` (or `response`, `answer`, `output`).
    PromptCompletion,
    /// `text`.
    Text,
}

const EXPECTED: &str = "messages, conversations, chosen, instruction, prompt, question, completion, response, text";
const COMPLETION_KEYS: &[&str] = &["completion", "response", "answer", "output"];

/// A conversation, or a bare text, read from a dataset row.
///
/// ```
/// use records::dataset::{Example, InputFormat, Options, Schema};
///
/// let alpaca = r#"{"instruction":"Add.","input":"1 + 1","output":"2"}"#;
/// let row = Options::new().format(InputFormat::Jsonl).read(alpaca.as_bytes())?.next().unwrap()?;
/// let example = Example::recognise(&row, None)?;
/// assert_eq!(example.schema, Schema::Instruction);
/// assert_eq!(example.prompt(), Some("Add.\n1 + 1"));
/// assert_eq!(example.completion(), Some("2"));
/// # Ok::<(), records::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub schema: Schema,
    /// All turns, a system message first where there is one. Empty for [`Schema::Field`] and [`Schema::Text`].
    pub messages: Vec<Message>,
    /// The turn of another answer that was rejected.
    pub rejected: Option<Message>,
    /// The bare text of [`Schema::Field`] and [`Schema::Text`].
    pub text: Option<String>,
}

impl Example {
    /// The keys that [`Example::recognise`] may read: a projection for [`super::Options::fields`], beside `id` and the caller's own.
    pub const KEYS: &[&str] = &[
        "messages",
        "conversations",
        "system",
        "chosen",
        "rejected",
        "instruction",
        "input",
        "context",
        "output",
        "history",
        "prompt",
        "question",
        "completion",
        "response",
        "answer",
        "text",
    ];

    /// Reads a row: the text under `field` where one is named, else the first schema that fits.
    pub fn recognise(row: &Row, field: Option<&str>) -> Result<Example> {
        if let Some(field) = field {
            return Ok(Example {
                text: Some(row.text(field)?.to_owned()),
                ..Example::of(Schema::Field, Vec::new())
            });
        }
        Keys { row }.recognise()
    }

    fn of(schema: Schema, messages: Vec<Message>) -> Example {
        Example {
            schema,
            messages,
            rejected: None,
            text: None,
        }
    }

    /// The last user turn, or the bare text of a row that has no turns.
    pub fn prompt(&self) -> Option<&str> {
        if self.messages.is_empty() {
            self.text.as_deref()
        } else {
            self.last_of("user")
        }
    }

    /// The last turn, if the assistant has it.
    pub fn completion(&self) -> Option<&str> {
        self.messages
            .last()
            .filter(|message| message.role == "assistant")
            .map(|message| message.content.as_str())
    }

    /// The system message.
    pub fn system(&self) -> Option<&str> {
        self.messages
            .iter()
            .find(|message| message.role == "system")
            .map(|message| message.content.as_str())
    }

    /// All texts of one role, in order.
    pub fn texts_of<'e>(&'e self, role: &'e str) -> impl Iterator<Item = &'e str> {
        self.messages
            .iter()
            .filter(move |message| message.role == role)
            .map(|message| message.content.as_str())
    }

    /// The turns before the last answer: what a model is asked.
    pub fn context(&self) -> &[Message] {
        match self.messages.last() {
            Some(last) if last.role == "assistant" => &self.messages[..self.messages.len() - 1],
            _ => &self.messages,
        }
    }

    fn last_of(&self, role: &str) -> Option<&str> {
        self.messages
            .iter()
            .rev()
            .find(|message| message.role == role)
            .map(|message| message.content.as_str())
    }
}

/// The keys of a row under recognition. A `null`, and an empty string where a key is optional, count as absent: table writers fill so.
struct Keys<'r> {
    row: &'r Row,
}

impl Keys<'_> {
    fn recognise(&self) -> Result<Example> {
        if self.has("messages") {
            return Ok(Example::of(
                Schema::Messages,
                self.with_system(self.messages("messages")?)?,
            ));
        }
        if self.has("chosen") {
            return self.preference();
        }
        if self.has("conversations") {
            return Ok(Example::of(
                Schema::Conversations,
                self.with_system(self.conversations()?)?,
            ));
        }
        if self.has("instruction") {
            let mut messages = self.history()?;
            messages.push(Message::new("user", self.instruction()?));
            messages.extend(
                self.first_text(&["output", "response", "completion", "answer"])?
                    .map(|text| Message::new("assistant", text)),
            );
            return Ok(Example::of(Schema::Instruction, self.with_system(messages)?));
        }
        let prompt_key = ["prompt", "question"].into_iter().find(|key| self.has(key));
        let completion_key = COMPLETION_KEYS.iter().copied().find(|key| self.has(key));
        if prompt_key.is_some() || completion_key.is_some() {
            let mut messages = prompt_key
                .map(|key| self.turns(key, "user"))
                .transpose()?
                .unwrap_or_default();
            messages.extend(
                completion_key
                    .map(|key| self.turns(key, "assistant"))
                    .transpose()?
                    .unwrap_or_default(),
            );
            return Ok(Example::of(Schema::PromptCompletion, self.with_system(messages)?));
        }
        if self.has("text") {
            return Ok(Example {
                text: Some(self.row.text("text")?.to_owned()),
                ..Example::of(Schema::Text, Vec::new())
            });
        }
        let names: Vec<String> = self
            .row
            .value
            .keys()
            .take(8)
            .map(|key| KeyName::from(key).to_string())
            .collect();
        Err(self.row.fault(Fault::ExampleUnrecognised {
            expected: EXPECTED,
            found: names.join(", "),
        }))
    }

    /// `chosen` and `rejected`: whole conversations, single turns or texts.
    fn preference(&self) -> Result<Example> {
        let mut messages = if self.has("conversations") {
            self.conversations()?
        } else if self.has("instruction") {
            vec![Message::new("user", self.instruction()?)]
        } else if let Some(key) = ["prompt", "question"].into_iter().find(|key| self.has(key)) {
            self.turns(key, "user")?
        } else {
            Vec::new()
        };
        let chosen = self.turns("chosen", "assistant")?;
        // Chosen conversations often repeat the turns of the prompt.
        if chosen.len() > 1 && chosen.starts_with(&messages) {
            messages = chosen;
        } else {
            messages.extend(chosen);
        }
        let rejected = if self.has("rejected") {
            self.turns("rejected", "assistant")?.pop()
        } else {
            None
        };
        Ok(Example {
            rejected,
            ..Example::of(Schema::ChosenRejected, self.with_system(messages)?)
        })
    }

    fn has(&self, key: &str) -> bool {
        !matches!(self.row.value.get(key), None | Some(Value::Null))
    }

    /// The first of `keys` that holds a text which is not empty.
    fn first_text(&self, keys: &[&str]) -> Result<Option<&str>> {
        for key in keys.iter().filter(|key| self.has(key)) {
            let text = self.row.text(key)?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn instruction(&self) -> Result<String> {
        let instruction = self.row.text("instruction")?;
        Ok(match self.first_text(&["input", "context"])? {
            Some(input) => format!("{instruction}\n{input}"),
            None => instruction.to_owned(),
        })
    }

    /// `history`: pairs of an earlier prompt and its answer.
    fn history(&self) -> Result<Vec<Message>> {
        let Some(history) = self.row.value.get("history").filter(|_| self.has("history")) else {
            return Ok(Vec::new());
        };
        let unfit = || self.mismatch("history", kind(history), "an array of pairs of texts");
        let mut messages = Vec::new();
        for pair in history.as_array().ok_or_else(unfit)? {
            match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(prompt), Value::String(answer)]) => {
                    messages.extend([Message::new("user", prompt), Message::new("assistant", answer)]);
                }
                _ => return Err(unfit()),
            }
        }
        Ok(messages)
    }

    /// A text, one turn, or a list of turns.
    fn turns(&self, key: &str, role: &str) -> Result<Vec<Message>> {
        match &self.row.value[key] {
            Value::String(text) => Ok(vec![Message::new(role, text)]),
            Value::Object(turn) => Ok(vec![self.turn(key, turn)?]),
            Value::Array(_) => self.messages(key),
            other => Err(self.mismatch(key, kind(other), "text, a turn or a list of turns")),
        }
    }

    fn messages(&self, key: &str) -> Result<Vec<Message>> {
        let list = &self.row.value[key];
        let turns = list
            .as_array()
            .ok_or_else(|| self.mismatch(key, kind(list), "an array of messages"))?;
        turns
            .iter()
            .map(|turn| match turn {
                Value::Object(turn) => self.turn(key, turn),
                other => Err(self.mismatch(key, kind(other), "messages of `role` and `content`")),
            })
            .collect()
    }

    fn conversations(&self) -> Result<Vec<Message>> {
        self.messages("conversations")
    }

    /// One turn: `role` and `content`, or ShareGPT's `from` and `value`.
    fn turn(&self, key: &str, turn: &Map<String, Value>) -> Result<Message> {
        let share_gpt = turn.contains_key("from");
        let (role_key, content_key) = if share_gpt {
            ("from", "value")
        } else {
            ("role", "content")
        };
        let role = match turn.get(role_key) {
            Some(Value::String(role)) if share_gpt => share_gpt_role(role),
            Some(Value::String(role)) => role.as_str(),
            Some(other) => return Err(self.mismatch(&format!("{key}.{role_key}"), kind(other), "a string")),
            None => return Err(self.missing(key, role_key)),
        };
        let content = match turn.get(content_key) {
            // An assistant turn that only calls tools has no text.
            None | Some(Value::Null) if turn.contains_key("tool_calls") => String::new(),
            None => return Err(self.missing(key, content_key)),
            Some(Value::Null) => return Err(self.mismatch(&format!("{key}.{content_key}"), "null", "text")),
            Some(content) => text_of_content(content).map_err(|fault| self.row.fault(fault))?,
        };
        let is_rest = |name: &String| name != role_key && name != content_key;
        let rest = turn
            .iter()
            .filter(|(name, _)| is_rest(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Ok(Message {
            role: role.to_owned(),
            content,
            rest,
        })
    }

    /// Puts a row's own `system` first, unless the turns bring one.
    fn with_system(&self, mut messages: Vec<Message>) -> Result<Vec<Message>> {
        if let Some(system) = self.first_text(&["system"])?
            && messages.first().is_none_or(|message| message.role != "system")
        {
            messages.insert(0, Message::new("system", system));
        }
        Ok(messages)
    }

    fn mismatch(&self, key: &str, found: &str, expected: &str) -> Error {
        self.row.fault(Fault::KeyMismatch {
            key: key.into(),
            found: found.into(),
            expected: expected.into(),
        })
    }

    fn missing(&self, list: &str, key: &str) -> Error {
        self.row.fault(Fault::KeyMissing {
            key: format!("{list}.{key}").into(),
        })
    }
}

/// ShareGPT's names of the roles; a name it does not define is kept.
fn share_gpt_role(from: &str) -> &str {
    match from {
        "human" | "user" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" | "assistant" | "model" | "function_call" => "assistant",
        "observation" | "tool" | "function_response" => "tool",
        other => other,
    }
}

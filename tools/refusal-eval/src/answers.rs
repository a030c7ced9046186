//! Completions as judges want them, from any file that holds some: lm-gen's records, plain JSON lines, CSV, Parquet.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use clap::ValueEnum;
use process::{Error, Result, ResultExt};
use records::dataset::{Dataset, InputFormat, Options, Row};
use records::{JoinKey, Prompt, Seen, Status};
use serde_json::Value;

use crate::benchmarks::{label_word, text, text_of};
use crate::inspect;

/// One answer of a model.
#[derive(Clone, Debug)]
pub struct Answer {
    pub id: String,
    pub bench: String,
    pub attempt_index: u64,
    pub label: Option<String>,
    pub kind: Option<String>,
    pub text_digest: Option<String>,
    pub model_digest: Option<String>,
    pub prompt: Option<String>,
    pub completion: Text,
}

/// What was said, or why nothing was.
#[derive(Clone, Debug)]
pub enum Text {
    Said(String),
    /// The generation failed, with its own words.
    Failed(String),
}

impl Answer {
    /// Of a prompt that nobody answered.
    pub fn missing(prompt: &Prompt) -> Answer {
        Answer {
            id: prompt.id.clone(),
            bench: prompt.bench.clone().unwrap_or_default(),
            attempt_index: 0,
            label: prompt.label.clone(),
            kind: prompt.kind.clone(),
            text_digest: None,
            model_digest: None,
            prompt: None,
            completion: Text::Failed("the prompt has no completion".into()),
        }
    }

    pub fn key(&self) -> JoinKey {
        JoinKey::new(Some(&self.bench), &self.id, self.attempt_index)
    }
}

/// How to read a file of answers.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub origin: Origin,
    pub format: InputFormat,
    pub bench: Option<String>,
    pub map: Vec<(String, String)>,
    pub accept_partial: bool,
}

impl Reading {
    fn column(&self, key: &'static str) -> &str {
        let mapped = self.map.iter().find(|(name, _)| name == key);
        mapped.map_or(key, |(_, column)| column.as_str())
    }
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// Rows: lm-gen's records, or anybody's.
    #[default]
    Rows,
    /// A log of Inspect, dumped as JSON with its samples.
    Inspect,
}

/// The fields worth building; a row may carry much else.
const FIELDS: [&str; 17] = [
    "type",
    "id",
    "bench",
    "attempt_index",
    "label",
    "kind",
    "text_digest",
    "model_digest",
    "prompt",
    "completion",
    "finish",
    "error",
    "choices",
    "final_label",
    "annotation_1",
    "annotation_2",
    PSEUDO,
];

/// What `pseudo-label` writes: no person's word, so nothing is measured by it.
pub const PSEUDO: &str = "pseudo_label";

pub fn refuse_pseudo(row: &Row, subject: &str) -> Result<()> {
    match row.value.contains_key(PSEUDO) {
        true => Err(
            Error::input(subject, format!("{}: {PSEUDO} is no person's label", place(row)))
                .hint("judges are measured by what people say, never by what was learnt from judges"),
        ),
        false => Ok(()),
    }
}

/// What a line of the input is.
pub enum Entry {
    /// An answer, and what else its row holds.
    Answer(Answer, Row),
    /// A record of another type, as it is: a filter passes it on.
    Foreign(records::Row),
}

pub struct Answers {
    rows: Dataset,
    reading: Reading,
    subject: String,
    seen: Seen,
}

impl Answers {
    pub fn open(path: &Path, reading: Reading) -> Result<Answers> {
        let subject = process::input_name(path);
        let options = Self::options(&reading);
        let rows = match reading.origin {
            Origin::Rows => options.open(path),
            Origin::Inspect => options
                .format(InputFormat::Jsonl)
                .read(Cursor::new(inspect::rows(path)?)),
        };
        let rows = rows.at(&subject)?;
        Ok(Answers {
            rows,
            reading,
            subject,
            seen: Seen::default(),
        })
    }

    fn options(reading: &Reading) -> Options {
        let mut fields: Vec<&str> = FIELDS.to_vec();
        // XSTest's own column, where no other was named.
        fields.push("type");
        fields.extend(reading.map.iter().map(|(_, column)| column.as_str()));
        Options::new()
            .format(reading.format)
            .fields(&fields)
            .accept_partial(reading.accept_partial)
            .digest(true)
    }

    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        while let Some(row) = self.rows.next() {
            let mut row = row.at(&self.subject)?;
            match self.rows.record() {
                Some((kind, text)) if !is_answer(kind, &row) => {
                    return Ok(Some(Entry::Foreign(records::Row {
                        line: row.line.unwrap_or(row.index),
                        kind: Some(kind.to_owned()),
                        text: text.to_owned(),
                        value: row.value,
                    })));
                }
                Some(_) => {}
                // A record in a JSON array has no line to pass on.
                None if row
                    .value
                    .get("type")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| records::TYPES.contains(&kind) && !is_answer(kind, &row)) =>
                {
                    continue;
                }
                None => {}
            }
            let answer = answer(&mut row, &self.reading, &self.subject)?;
            if !self.seen.insert("", &answer.bench, &answer.id, answer.attempt_index) {
                let at = place(&row);
                return Err(Error::input(
                    &self.subject,
                    format!("{at}: the id {} of bench {:?} is there twice", answer.id, answer.bench),
                ));
            }
            return Ok(Some(Entry::Answer(answer, row)));
        }
        Ok(None)
    }

    /// All answers at once.
    pub fn by_key(mut self) -> Result<HashMap<JoinKey, Answer>> {
        let mut found = HashMap::new();
        while let Some(entry) = self.next_entry()? {
            if let Entry::Answer(answer, _) = entry {
                found.insert(answer.key(), answer);
            }
        }
        Ok(found)
    }

    pub fn status(&self) -> Status {
        self.rows.status()
    }

    pub fn digest(&self) -> Option<String> {
        self.rows.digest()
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// A column `type` of a table is something else than a record's (XSTest has one).
fn is_answer(kind: &str, row: &Row) -> bool {
    kind == "completion" || (kind == "prompt" && row.value.contains_key("completion"))
}

fn answer(row: &mut Row, reading: &Reading, subject: &str) -> Result<Answer> {
    let bench = take(row, reading, "bench")
        .or_else(|| reading.bench.clone())
        .unwrap_or_default();
    let id = take(row, reading, "id").ok_or_else(|| missing(row, reading.column("id"), subject))?;
    // XSTest numbers its answers v2-N and its prompts N.
    let id = match id.strip_prefix("v2-") {
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => number.to_string(),
        _ => id,
    };
    let attempt_index = match row.value.get("attempt_index") {
        None => 0,
        Some(value) => value
            .as_u64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            .ok_or_else(|| Error::input(subject, format!("{}: attempt_index is no whole number", place(row))))?,
    };
    // XSTest's tables say the kind in `type`, and its unsafe kinds begin with contrast_.
    let xstest_type = text_of(row, "type").filter(|kind| kind != "completion" && kind != "prompt");
    let kind = take(row, reading, "kind").or_else(|| xstest_type.clone());
    let label = match take(row, reading, "label") {
        Some(value) => Some(
            label_word(&value)
                .ok_or_else(|| {
                    Error::input(
                        subject,
                        format!("{}: label holds {value:?}, expected safe or unsafe", place(row)),
                    )
                })?
                .to_string(),
        ),
        None => xstest_type.map(|kind| {
            if kind.starts_with("contrast_") {
                "unsafe"
            } else {
                "safe"
            }
            .to_string()
        }),
    };
    let prompt = take(row, reading, "prompt");
    let text_digest = take(row, reading, "text_digest").or_else(|| prompt.as_deref().map(records::text_digest));
    let failed = row.value.get("finish").is_some_and(|finish| finish == "error");
    let error = take(row, reading, "error");
    let model_digest = take(row, reading, "model_digest");
    let scores_choices = row.value.contains_key("choices");
    // Last of all, so that no other key is read from a column that is empty now.
    let completion = match row.value.get_mut(reading.column("completion")) {
        _ if failed => Text::Failed(error.unwrap_or_else(|| "the generation failed".to_string())),
        Some(Value::String(completion)) => Text::Said(std::mem::take(completion)),
        Some(Value::Null) | None if scores_choices => {
            Text::Failed("the record scores choices and holds no completion".to_string())
        }
        Some(Value::Null) => Text::Failed("the completion is null".to_string()),
        Some(_) => return Err(Error::input(subject, format!("{}: completion is no text", place(row)))),
        None => return Err(missing(row, reading.column("completion"), subject)),
    };
    Ok(Answer {
        id,
        bench,
        attempt_index,
        label,
        kind,
        text_digest,
        model_digest,
        prompt,
        completion,
    })
}

/// Text or a number, as text, which a row need not keep where no other key is read from its column.
fn take(row: &mut Row, reading: &Reading, key: &'static str) -> Option<String> {
    match row.value.get_mut(reading.column(key))? {
        Value::String(text) if reading.map.is_empty() => Some(std::mem::take(text)),
        value => text(value),
    }
}

fn missing(row: &Row, column: &str, subject: &str) -> Error {
    Error::input(subject, format!("{}: no {column}", place(row))).hint("name columns with --map completion=COL,id=COL")
}

/// Where a row stands, for a message.
pub fn place(row: &Row) -> String {
    match row.line {
        Some(line) => format!("line {line}"),
        None => format!("row {}", row.index),
    }
}

//! Benchmarks: a file in, prompt records out. Knows the columns of the public sets; any other set is mapped by flags.

use std::collections::HashSet;
use std::path::Path;

use process::{Error, Result, ResultExt};
use records::Prompt;
use records::dataset::{self, InputFormat, Row};
use serde_json::Value;

/// Where the parts of a prompt stand in a file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Columns {
    pub prompt: String,
    pub id: Option<String>,
    pub label: Label,
    pub kind: Option<String>,
    /// Text that goes before the prompt.
    pub context: Option<String>,
    /// Whether a line break is written as a backslash and an n.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub escaped: bool,
    /// Rows that are read: each of these columns holds this value.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    Unknown,
    All(&'static str),
    Column(String),
}

/// A published set.
struct Known {
    name: &'static str,
    prompt: &'static str,
    id: Option<&'static str>,
    label: Of,
    kind: Option<&'static str>,
}

/// What a published set says of its prompts.
#[derive(Clone, Copy)]
enum Of {
    Safe,
    Unsafe,
    Column(&'static str),
}

const fn known(
    name: &'static str,
    prompt: &'static str,
    id: Option<&'static str>,
    label: Of,
    kind: Option<&'static str>,
) -> Known {
    Known {
        name,
        prompt,
        id,
        label,
        kind,
    }
}

const KNOWN: [Known; 17] = [
    known("xstest", "prompt", Some("id"), Of::Column("label"), Some("type")),
    known("advbench", "goal", None, Of::Unsafe, None),
    known(
        "harmbench",
        "Behavior",
        Some("BehaviorID"),
        Of::Unsafe,
        Some("SemanticCategory"),
    ),
    known("jailbreakbench", "Goal", Some("Index"), Of::Unsafe, Some("Category")),
    known("strongreject", "forbidden_prompt", None, Of::Unsafe, Some("category")),
    known("or-bench", "prompt", None, Of::Safe, Some("category")),
    known("or-bench-toxic", "prompt", None, Of::Unsafe, Some("category")),
    known("oktest", "prompt", None, Of::Safe, None),
    known("phtest", "Request", Some("ID"), Of::Safe, Some("Harmfulness")),
    known("falsereject", "prompt", None, Of::Safe, Some("category_text")),
    known(
        "sorry-bench",
        "turns",
        Some("question_id"),
        Of::Unsafe,
        Some("category"),
    ),
    known("coconot", "prompt", Some("id"), Of::Unsafe, Some("subcategory")),
    known("coconot-contrast", "prompt", Some("id"), Of::Safe, Some("subcategory")),
    known(
        "wildguardtest",
        "prompt",
        None,
        Of::Column("prompt_harm_label"),
        Some("subcategory"),
    ),
    known("toxigen", "prompt", None, Of::Column("prompt_label"), Some("group")),
    known("dan", "question", None, Of::Unsafe, Some("content_policy_name")),
    known("do-not-answer", "question", None, Of::Unsafe, Some("types_of_harm")),
];

impl Known {
    fn columns(&self) -> Columns {
        Columns {
            prompt: self.prompt.into(),
            id: self.id.map(Into::into),
            label: match self.label {
                Of::Safe => Label::All("safe"),
                Of::Unsafe => Label::All("unsafe"),
                Of::Column(column) => Label::Column(column.into()),
            },
            kind: self.kind.map(Into::into),
            context: (self.name == "harmbench").then(|| "ContextString".into()),
            escaped: self.name == "toxigen",
            wanted: Vec::new(),
        }
    }
}

impl Columns {
    /// The columns of a known benchmark, which may bear the name of a part behind a slash, or those that `map` names.
    pub fn of(bench: &str, map: &[(String, String)], wanted: &[(String, String)]) -> Result<Columns> {
        let set = bench.split('/').next().unwrap_or(bench);
        let map: Vec<(&str, &str)> = of_bench(map, bench).collect();
        let mut columns = match KNOWN.iter().find(|known| known.name == set) {
            Some(known) => known.columns(),
            None if map.iter().any(|(key, _)| *key == "prompt") => Columns::unknown(),
            None => {
                let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                return Err(Error::usage(
                    format!("--bench {bench}"),
                    "this benchmark is not known, and --map prompt=COL is not given",
                )
                .hint(format!("known: {}", names.join(", "))));
            }
        };
        for (key, column) in map {
            columns.put(key, column)?;
        }
        let own = |(column, value): (&str, &str)| (column.to_owned(), value.to_owned());
        columns.wanted = of_bench(wanted, bench).map(own).collect();
        Ok(columns)
    }

    fn unknown() -> Columns {
        Columns {
            prompt: "prompt".into(),
            id: None,
            label: Label::Unknown,
            kind: None,
            context: None,
            escaped: false,
            wanted: Vec::new(),
        }
    }

    fn put(&mut self, key: &str, column: &str) -> Result<()> {
        match key {
            "prompt" => self.prompt = column.into(),
            "id" => self.id = Some(column.into()),
            "kind" => self.kind = Some(column.into()),
            "label" => {
                self.label = match column {
                    "safe" => Label::All("safe"),
                    "unsafe" => Label::All("unsafe"),
                    _ => Label::Column(column.into()),
                }
            }
            other => {
                return Err(Error::usage(
                    "--map",
                    format!("unknown key {other}: prompt, id, label and kind can be mapped"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a row is asked for. A column that is not there is asked for in vain.
    fn wants(&self, row: &Row, bench: &str, subject: &str) -> Result<bool> {
        for (column, value) in &self.wanted {
            if !row.value.contains_key(column) {
                return Err(missing(row, column, bench, subject));
            }
            if text_of(row, column).as_ref() != Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The pairs that concern a benchmark: `NAME:KEY=VALUE` only that one, `KEY=VALUE` all.
fn of_bench<'m>(pairs: &'m [(String, String)], bench: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
    pairs.iter().filter_map(move |(key, value)| match key.split_once(':') {
        Some((name, key)) if name == bench => Some((key, value.as_str())),
        Some(_) => None,
        None => Some((key.as_str(), value.as_str())),
    })
}

/// Reads a benchmark. Rows keep the order of the file; ids are unique.
pub fn read(bench: &str, path: &Path, columns: &Columns, limit: Option<u64>) -> Result<Vec<Prompt>> {
    let subject = path.display().to_string();
    let mut seen = HashSet::new();
    let mut prompts = Vec::new();
    for row in dataset::open(path, InputFormat::Auto).at(&subject)? {
        if limit.is_some_and(|limit| prompts.len() as u64 >= limit) {
            break;
        }
        let row = row.at(&subject)?;
        if !columns.wants(&row, bench, &subject)? {
            continue;
        }
        let prompt = prompt(bench, &row, columns, &subject)?;
        if !seen.insert(prompt.id.clone()) {
            return Err(Error::input(
                &subject,
                format!("row {}: the id {} is there twice", row.index, prompt.id),
            ));
        }
        prompts.push(prompt);
    }
    if prompts.is_empty() && limit != Some(0) {
        let cause = match columns.wanted.is_empty() {
            true => "the benchmark holds no prompt",
            false => "no row is as --where wants it",
        };
        return Err(Error::input(&subject, cause));
    }
    Ok(prompts)
}

fn prompt(bench: &str, row: &Row, columns: &Columns, subject: &str) -> Result<Prompt> {
    // The prompt set that travels with several refusal papers is a JSON array of `instruction` and `category`.
    let carried =
        !row.value.contains_key(&columns.prompt) && row.value.contains_key("instruction") && bench != "xstest";
    let column = if carried { "instruction" } else { &columns.prompt };
    let kind = columns
        .kind
        .as_deref()
        .and_then(|column| text_of(row, if carried { "category" } else { column }));
    let text = asked(row, column, columns, bench, subject)?;
    Ok(Prompt {
        id: id(row, columns, subject)?,
        bench: Some(bench.to_string()),
        label: match &columns.label {
            Label::Unknown => None,
            Label::All(label) => Some((*label).to_string()),
            Label::Column(column) => label(row, column, bench, subject)?,
        },
        kind,
        prompt: Some(text),
        ..Prompt::default()
    })
}

/// What the row asks, with the context it stands in.
fn asked(row: &Row, column: &str, columns: &Columns, bench: &str, subject: &str) -> Result<String> {
    let mut text = match row.value.get(column) {
        None => return Err(missing(row, column, bench, subject)),
        // SORRY-Bench keeps conversations of one turn.
        Some(Value::Array(turns)) => match turns.as_slice() {
            [Value::String(turn)] => turn.clone(),
            _ => {
                let cause = format!("row {}: column {column} is no list of one turn", row.index);
                return Err(Error::input(subject, cause));
            }
        },
        Some(_) => row.text(column).at(subject)?.to_string(),
    };
    if columns.escaped {
        text = text.replace("\\n", "\n");
    }
    let context = columns.context.as_deref().and_then(|column| text_of(row, column));
    if let Some(context) = context.filter(|context| !context.is_empty()) {
        text = format!("{context}\n\n---\n\n{text}");
    }
    match text.trim().is_empty() {
        true => Err(Error::input(subject, format!("row {}: the prompt is empty", row.index))),
        false => Ok(text),
    }
}

fn id(row: &Row, columns: &Columns, subject: &str) -> Result<String> {
    match columns.id.as_deref() {
        Some(column) if row.value.contains_key(column) => text_of(row, column).ok_or_else(|| {
            Error::input(
                subject,
                format!("row {}: column {column} is no text or number", row.index),
            )
        }),
        // JailbreakBench's Index column has no name in its CSV.
        Some("Index") if row.value.contains_key("") => Ok(text_of(row, "").unwrap_or_default()),
        _ => row.id().at(subject),
    }
}

/// The label of a row. One that its annotators left open stays open.
fn label(row: &Row, column: &str, bench: &str, subject: &str) -> Result<Option<String>> {
    match row.value.get(column) {
        None => return Err(missing(row, column, bench, subject)),
        Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(_) => {}
    }
    let value = text_of(row, column).unwrap_or_default();
    match label_word(&value) {
        Some(label) => Ok(Some(label.to_string())),
        None => Err(Error::input(
            subject,
            format!(
                "row {}: column {column} holds {value:?}, expected safe or unsafe",
                row.index
            ),
        )),
    }
}

/// The two labels under the names that benchmarks give them.
pub fn label_word(value: &str) -> Option<&'static str> {
    match value.trim().to_ascii_lowercase().as_str() {
        "safe" | "unharmful" | "benign" | "harmless" | "0" | "false" => Some("safe"),
        "unsafe" | "harmful" | "toxic" | "1" | "true" => Some("unsafe"),
        _ => None,
    }
}

fn missing(row: &Row, column: &str, bench: &str, subject: &str) -> Error {
    let found: Vec<&str> = row.value.keys().map(String::as_str).take(8).collect();
    Error::input(
        subject,
        format!("no column {column} for benchmark {bench}; found {}", found.join(", ")),
    )
    .hint("name the columns with --map prompt=COL,label=COL,kind=COL")
}

/// Text or a number of a column, as text.
pub fn text_of(row: &Row, column: &str) -> Option<String> {
    text(row.value.get(column)?)
}

pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_benchmark_stands_in_the_manual() {
        let manual = crate::cli::NOTES;
        for known in &KNOWN {
            let line = manual
                .lines()
                .find(|line| line.split_whitespace().next() == Some(known.name))
                .unwrap_or_else(|| panic!("{} is not in the manual", known.name));
            let says_columns = [Some(known.prompt), known.id, known.kind].into_iter().flatten();
            for column in says_columns {
                assert!(line.contains(column), "{}: {column} is not in {line:?}", known.name);
            }
        }
    }

    #[test]
    fn a_pair_with_a_name_concerns_that_benchmark_alone() {
        let pairs = [("a:prompt".to_string(), "x".to_string()), ("kind".into(), "y".into())];
        assert_eq!(
            of_bench(&pairs, "a").collect::<Vec<_>>(),
            [("prompt", "x"), ("kind", "y")]
        );
        assert_eq!(of_bench(&pairs, "b").collect::<Vec<_>>(), [("kind", "y")]);
    }
}

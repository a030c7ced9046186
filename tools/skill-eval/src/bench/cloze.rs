//! ARC and HellaSwag: the likeliest of several texts that could follow. Asked without examples, in the words of lm-evaluation-harness, so
//! that the same log-likelihoods give the same score.

use std::path::Path;

use process::{Result, ResultExt};
use records::Prompt;
use records::dataset::Row;
use regex::Regex;
use serde_json::Value;

use super::{Made, open, row_count_max};
use crate::cli::Bench;
use crate::plan::Questions;

struct Question {
    text: String,
    endings: Vec<String>,
    /// Index of the right ending.
    answer: usize,
    subject: Option<String>,
}

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    let notes = Notes::new();
    for row in open(questions, path)?.take(row_count_max(questions)) {
        let row = row.at(path.display())?;
        let question = match questions.bench {
            Bench::Hellaswag => hellaswag(&row, &notes),
            _ => arc(&row),
        };
        let question = question.at(path.display())?;
        let id = made.next_id(&row).at(path.display())?;
        made.prompts.push(Prompt {
            id,
            bench: Some(questions.bench.name().into()),
            subject: question.subject,
            prompt: Some(question.text),
            choices: Some(question.endings.iter().map(|ending| format!(" {ending}")).collect()),
            reference: Some(char::from(b'A' + question.answer as u8).to_string().into()),
            ..Prompt::default()
        });
    }
    Ok(())
}

/// `question`, `choices` with its `text` and `label`, and the label of the right one in `answerKey`.
fn arc(row: &Row) -> records::Result<Question> {
    let choices = row.value.get("choices").and_then(Value::as_object);
    let list = |key: &str| {
        let found = choices.and_then(|choices| texts(choices.get(key)?));
        found.ok_or_else(|| row.refuse(format!("no list of texts under `choices.{key}`: not a row of ARC")))
    };
    let (endings, labels) = (list("text")?, list("label")?);
    let key = row.text("answerKey")?;
    let answer = labels.iter().position(|label| label == key);
    Ok(Question {
        text: format!("Question: {}\nAnswer:", row.text("question")?),
        answer: right(row, answer, &endings)?,
        endings,
        subject: None,
    })
}

/// `activity_label`, the context in `ctx_a` and `ctx_b`, `endings`, and the index of the right one in `label`.
fn hellaswag(row: &Row, notes: &Notes) -> records::Result<Question> {
    let endings = row.value.get("endings").and_then(texts);
    let endings = endings.ok_or_else(|| row.refuse("no list of texts under `endings`: not a row of HellaSwag"))?;
    let answer = match row.value.get("label") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let activity = row.text("activity_label")?;
    let context = format!("{activity}: {} {}", row.text("ctx_a")?, capitalised(row.text("ctx_b")?));
    Ok(Question {
        text: notes.strip(&context),
        answer: right(row, answer.and_then(|answer| usize::try_from(answer).ok()), &endings)?,
        endings: endings.iter().map(|ending| notes.strip(ending)).collect(),
        subject: Some(activity.to_owned()),
    })
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    value.as_array()?.iter().map(text).collect()
}

fn right(row: &Row, answer: Option<usize>, endings: &[String]) -> records::Result<usize> {
    match answer {
        Some(answer) if answer < endings.len() && endings.len() <= 26 => Ok(answer),
        _ => Err(row.refuse("the right ending is none of those offered")),
    }
}

/// The first letter large, all others small, as Python's `str.capitalize`.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + &letters.as_str().to_lowercase()
}

/// WikiHow's marks in brackets, which are no words of the text.
struct Notes {
    bracket: Regex,
}

impl Notes {
    fn new() -> Notes {
        Notes {
            bracket: Regex::new(r"\[.*?\]").expect("a valid expression"),
        }
    }

    fn strip(&self, text: &str) -> String {
        let text = text.trim().replace(" [title]", ". ");
        self.bracket.replace_all(&text, "").replace("  ", " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_brackets_are_taken_out_as_the_harness_does() {
        let notes = Notes::new();
        // Of its expression in Python: replace(" [title]", ". "), sub("\\[.*?\\]", ""), replace("  ", " ").
        assert_eq!(
            notes.strip(" Tie a knot [title] Cut the rope. [step] Take  it [substeps] up. "),
            "Tie a knot. Cut the rope. Take it up."
        );
        assert_eq!(capitalised("the man THEN Runs"), "The man then runs");
        assert_eq!(capitalised(""), "");
    }
}

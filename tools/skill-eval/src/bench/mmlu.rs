//! MMLU: multiple choice in 57 subjects. Reads the published headerless CSV files, tables with `question` and `choices` (or `A` … `D`),
//! and tables whose `prompt` holds question and options.

use std::collections::HashMap;
use std::path::Path;

use process::{Error, Result, ResultExt};
use records::Prompt;
use records::dataset::{Dataset, InputFormat, Options, Row};
use serde_json::Value;

use super::{Made, beside, row_count_max, stem};
use crate::cli::Style;
use crate::extract::choices_of;
use crate::plan::Questions;

/// The columns of the published files, which have no header.
const PUBLISHED: [&str; 6] = ["question", "A", "B", "C", "D", "answer"];

struct Question {
    /// Absent: its place in the whole input.
    id: Option<String>,
    subject: String,
    text: String,
    choices: Vec<String>,
    /// Index of the right choice.
    answer: usize,
}

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    let mut shots = Shots {
        questions,
        path,
        by_subject: HashMap::new(),
        common: None,
    };
    for question in read(questions, path)?.take(row_count_max(questions)) {
        let question = question?;
        let id = question.id.clone().unwrap_or_else(|| format!("#{}", made.row_count));
        made.row_count += 1;
        let before = match shots.before(&question.subject)? {
            Ok(before) => before.clone(),
            Err(why) if questions.keep_going => {
                let said = format!("subject {:?}: {why}", question.subject);
                if !made.left_out.contains(&said) {
                    made.left_out.push(said);
                }
                continue;
            }
            Err(why) => {
                return Err(Error::input(format!("subject {:?}", question.subject), why.clone())
                    .hint("--shots-from names the dev questions, --shots 0 asks without; --keep-going leaves the subject out"));
            }
        };
        let letters: Vec<String> = (0..question.choices.len()).map(letter).collect();
        let asked = ask(&question, questions.style);
        let choices = match questions.style {
            Style::Generate => None,
            Style::Cloze => Some(question.choices.iter().map(|choice| format!(" {choice}")).collect()),
            _ => Some(letters.iter().map(|letter| format!(" {letter}")).collect()),
        };
        let is_generated = choices.is_none();
        made.prompts.push(Prompt {
            id,
            bench: Some("mmlu".into()),
            subject: Some(question.subject),
            prompt: Some(format!("{before}{asked}")),
            choices,
            stop: is_generated.then(|| ["\n\n", "</s>", "<|im_end|>"].map(String::from).to_vec()),
            max_new_tokens: is_generated.then_some(256),
            reference: Some(letters[question.answer].clone().into()),
            ..Prompt::default()
        });
    }
    Ok(())
}

fn letter(index: usize) -> String {
    char::from(b'A' + index as u8).to_string()
}

fn ask(question: &Question, style: Style) -> String {
    if style == Style::Cloze {
        return format!("Question: {}\nAnswer:", question.text.trim());
    }
    let options: String = question
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| format!("\n{}. {choice}", letter(index)))
        .collect();
    format!("{}{options}\nAnswer:", question.text.trim())
}

/// The examples of each subject, read once.
struct Shots<'q> {
    questions: &'q Questions,
    path: &'q Path,
    by_subject: HashMap<String, std::result::Result<String, String>>,
    /// The examples of `--shots-from`, by subject.
    common: Option<HashMap<String, Vec<Question>>>,
}

impl Shots<'_> {
    fn before(&mut self, subject: &str) -> Result<&std::result::Result<String, String>> {
        if !self.by_subject.contains_key(subject) {
            let made = self.make(subject)?;
            self.by_subject.insert(subject.to_owned(), made);
        }
        Ok(&self.by_subject[subject])
    }

    fn make(&mut self, subject: &str) -> Result<std::result::Result<String, String>> {
        let count = self.questions.shots;
        let topic = subject.replace('_', " ");
        let about = if topic.is_empty() {
            String::new()
        } else {
            format!(" about {topic}")
        };
        let mut before = match self.questions.style {
            Style::Cloze => String::new(),
            _ => format!("The following are multiple choice questions (with answers){about}.\n\n"),
        };
        if count == 0 {
            return Ok(Ok(before));
        }
        if self.common.is_none() {
            self.common = Some(self.load()?);
        }
        let examples = self
            .common
            .as_ref()
            .and_then(|common| common.get(subject))
            .map(Vec::as_slice)
            .unwrap_or_default();
        if examples.len() < count {
            return Ok(Err(format!("{} examples, --shots asks for {count}", examples.len())));
        }
        for example in &examples[..count] {
            let answer = if self.questions.style == Style::Cloze {
                example.choices[example.answer].clone()
            } else {
                letter(example.answer)
            };
            before.push_str(&format!("{} {answer}\n\n", ask(example, self.questions.style)));
        }
        Ok(Ok(before))
    }

    fn load(&self) -> Result<HashMap<String, Vec<Question>>> {
        let stem = stem(self.path);
        let dev = match &self.questions.shots_from {
            Some(path) if path.is_dir() => path.join(format!("{}_dev.csv", subject_of(stem))),
            Some(path) => path.clone(),
            // The published layout: test/SUBJECT_test.csv and dev/SUBJECT_dev.csv, or both in one directory.
            None => {
                let name = format!("{}_dev.csv", subject_of(stem));
                let cousin = self
                    .path
                    .parent()
                    .map(|parent| parent.join("..").join("dev").join(&name));
                cousin
                    .filter(|path| path.is_file())
                    .unwrap_or_else(|| beside(self.path, &name))
            }
        };
        let mut by_subject: HashMap<String, Vec<Question>> = HashMap::new();
        if !dev.is_file() && self.questions.shots_from.is_none() {
            return Ok(by_subject);
        }
        for question in read(self.questions, &dev)? {
            let question = question?;
            by_subject.entry(question.subject.clone()).or_default().push(question);
        }
        Ok(by_subject)
    }
}

/// `abstract_algebra_test` is about abstract_algebra.
fn subject_of(stem: &str) -> &str {
    ["_test", "_dev", "_val"]
        .into_iter()
        .find_map(|suffix| stem.strip_suffix(suffix))
        .unwrap_or(stem)
}

fn read<'q>(questions: &'q Questions, path: &'q Path) -> Result<impl Iterator<Item = Result<Question>> + 'q> {
    let published =
        subject_of(stem(path)) != stem(path) && path.extension().is_some_and(|extension| extension == "csv");
    let rows: Dataset = if published {
        Options::new().format(InputFormat::Csv).columns(&PUBLISHED).open(path)
    } else {
        Options::new().format(questions.input_format).open(path)
    }
    .at(path.display())?;
    Ok(rows.map(move |row| question(&row.at(path.display())?, path, published).at(path.display())))
}

fn question(row: &Row, path: &Path, published: bool) -> records::Result<Question> {
    let stem = stem(path);
    let subject = match row.value.get("subject") {
        Some(Value::String(subject)) => subject.clone(),
        _ if published => subject_of(stem).to_owned(),
        _ => String::new(),
    };
    let (text, choices) = if row.value.contains_key("question") {
        let choices = match row.value.get("choices") {
            Some(Value::Array(choices)) => choices
                .iter()
                .map(|choice| {
                    choice
                        .as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| row.refuse("`choices` holds something that is no text"))
                })
                .collect::<records::Result<Vec<String>>>()?,
            _ => ["A", "B", "C", "D"]
                .iter()
                .map(|letter| row.text(letter).map(str::to_owned))
                .collect::<records::Result<_>>()?,
        };
        (row.text("question")?.to_owned(), choices)
    } else if row.value.contains_key("prompt") {
        let prompt = row.text("prompt")?;
        let choices: Vec<String> = choices_of(prompt).into_iter().map(|choice| choice.text).collect();
        let start = prompt
            .find("\nA. ")
            .or_else(|| prompt.find("\nA) "))
            .or_else(|| prompt.find("\n(A) "))
            .unwrap_or(prompt.len());
        (prompt[..start].trim().to_owned(), choices)
    } else {
        return Err(row.refuse("neither `question` nor `prompt`: wrong columns for MMLU"));
    };
    if !(2..=26).contains(&choices.len()) {
        return Err(row.refuse(format!("{} choices, expected 2 to 26", choices.len())));
    }
    let answer = match row.value.get("answer") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => match text.trim().as_bytes() {
            [byte @ b'A'..=b'Z'] => Some(u64::from(byte - b'A')),
            _ => text.trim().parse().ok(),
        },
        _ => None,
    };
    let answer = answer
        .and_then(|answer| usize::try_from(answer).ok())
        .filter(|answer| *answer < choices.len());
    let Some(answer) = answer else {
        return Err(row.refuse("`answer` is neither a letter nor the index of a choice"));
    };
    let id = match row.value.get("id") {
        Some(_) => Some(row.id()?),
        None if published => Some(format!("{}/{}", subject_of(stem), row.index)),
        None => None,
    };
    Ok(Question {
        id,
        subject,
        text,
        choices,
        answer,
    })
}

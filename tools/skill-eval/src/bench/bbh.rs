//! BIG-Bench Hard: 27 tasks, a file each (`{"examples":[{"input","target"}]}`), with the published chain-of-thought prompts.

use std::path::{Path, PathBuf};

use process::{Error, Result, ResultExt};
use records::Prompt;
use serde_json::Value;

use super::{Made, row_count_max, stem};
use crate::cli::Style;
use crate::plan::Questions;

const NEW_TOKENS_MAX: u64 = 1024;
/// BBH files hold 250 short examples; this bounds what is read of something else.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    let task = stem(path);
    let before = match examples(questions, path, task)? {
        Ok(before) => before,
        Err(why) if questions.keep_going => {
            made.left_out.push(format!("task {task}: {why}"));
            return Ok(());
        }
        Err(why) => {
            return Err(Error::input(format!("task {task}"), why)
                .hint("--shots-from names the directory; --keep-going leaves the task out"));
        }
    };
    let cue = if questions.style == Style::Direct {
        "\nA:"
    } else {
        "\nA: Let's think step by step.\n"
    };
    for (index, example) in read(path)?.iter().enumerate().take(row_count_max(questions)) {
        let text = |key: &str| match example.get(key).and_then(Value::as_str) {
            Some(text) => Ok(text),
            None => Err(Error::input(
                path.display(),
                format!("example {index}: no text under `{key}`"),
            )),
        };
        made.prompts.push(Prompt {
            id: format!("{task}/{index}"),
            bench: Some("bbh".into()),
            task: Some(task.to_owned()),
            prompt: Some(format!("{before}Q: {}{cue}", text("input")?)),
            stop: Some(["\n\nQ:", "</s>", "<|im_end|>"].map(String::from).to_vec()),
            max_new_tokens: Some(if questions.style == Style::Direct {
                32
            } else {
                NEW_TOKENS_MAX
            }),
            reference: Some(text("target")?.into()),
            ..Prompt::default()
        });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let mut rows = records::dataset::Options::new()
        .format(records::dataset::InputFormat::Json)
        .limits(records::Limits {
            line_bytes: FILE_BYTES_MAX as usize,
            ..records::Limits::default()
        })
        .open(path)
        .at(path.display())?;
    let first = rows.next().transpose().at(path.display())?;
    match first.and_then(|row| row.value.get("examples").cloned()) {
        Some(Value::Array(examples)) => Ok(examples),
        _ => Err(Error::input(
            path.display(),
            "no array under `examples`: not a BBH task",
        )),
    }
}

/// The examples before each question, or why there are none.
fn examples(questions: &Questions, path: &Path, task: &str) -> Result<std::result::Result<String, String>> {
    if questions.shots == 0 {
        return Ok(Ok(String::new()));
    }
    let directory = questions.shots_from.clone().unwrap_or_else(|| {
        let parent = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let parent = if parent.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            parent
        };
        parent.join("..").join("cot-prompts")
    });
    let file = directory.join(format!("{task}.txt"));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(format!("no examples at {}", file.display())));
        }
        Err(error) => return Err(error).at(file.display()),
    };
    // The canary stands above a line of dashes.
    let text = text
        .split_once("\n-----\n")
        .map_or(text.as_str(), |(_, text)| text)
        .trim();
    let mut parts = text.split("\n\nQ: ");
    let head = parts.next().unwrap_or_default();
    let shots: Vec<&str> = parts.take(questions.shots).collect();
    if shots.len() < questions.shots {
        return Ok(Err(format!(
            "{} examples in {}, --shots asks for {}",
            shots.len(),
            file.display(),
            questions.shots
        )));
    }
    let mut before = format!("{head}\n\n");
    for shot in shots {
        before.push_str("Q: ");
        match (questions.style, direct(shot)) {
            (Style::Direct, Some(shot)) => before.push_str(&shot),
            (Style::Direct, None) => return Ok(Err(format!("an example in {} announces no answer", file.display()))),
            _ => before.push_str(shot.trim_end()),
        }
        before.push_str("\n\n");
    }
    Ok(Ok(before))
}

/// An example without its reasoning.
fn direct(shot: &str) -> Option<String> {
    let (question, reasoning) = shot.split_once("\nA:")?;
    let answer = crate::extract::sentence_strict(reasoning)?.answer;
    Some(format!("{question}\nA: {answer}"))
}

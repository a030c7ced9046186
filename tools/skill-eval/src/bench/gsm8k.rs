//! GSM8K: grade-school word problems. Eight worked examples of Wei et al. (2022), or solved questions of the training set.

use std::path::Path;

use process::{Error, Result, ResultExt};
use records::Prompt;
use records::dataset::Row;

use super::{Made, open, row_count_max};
use crate::cli::Style;
use crate::plan::Questions;

const EXAMPLES: &str = include_str!("../../data/gsm8k-cot.txt");
/// More than any solution of the training set takes, and what others allow.
const NEW_TOKENS_MAX: u64 = 512;

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    let before = match questions.style {
        Style::Direct => solved(questions)?,
        _ => worked(questions.shots)?,
    };
    let (ask, reply, stop): (_, _, &[&str]) = match questions.style {
        Style::Direct => ("Question: ", "\nAnswer:", &["Question:", "</s>", "<|im_end|>"]),
        _ => ("Q: ", "\nA:", &["Q:", "</s>", "<|im_end|>"]),
    };
    for row in open(questions, path)?.take(row_count_max(questions)) {
        let row = row.at(path.display())?;
        let question = row.text("question").at(path.display())?;
        let reference = reference(&row).at(path.display())?;
        let id = made.next_id(&row).at(path.display())?;
        made.prompts.push(Prompt {
            id,
            bench: Some("gsm8k".into()),
            prompt: Some(format!("{before}{ask}{question}{reply}")),
            stop: Some(stop.iter().map(|stop| stop.to_string()).collect()),
            max_new_tokens: Some(NEW_TOKENS_MAX),
            reference: Some(reference.into()),
            ..Prompt::default()
        });
    }
    Ok(())
}

/// The number after `####` in a solution, or the whole of a bare one.
fn reference(row: &Row) -> records::Result<String> {
    let answer = row.text("answer")?;
    let number = answer.rsplit("####").next().unwrap_or(answer).trim();
    match crate::extract::number_of_reference(number) {
        Some(number) => Ok(number),
        None => Err(row.refuse("`answer` ends with no number")),
    }
}

fn worked(shots: usize) -> Result<String> {
    let examples: Vec<&str> = EXAMPLES.trim_end().split("\n\n").collect();
    if shots > examples.len() {
        return Err(Error::usage(
            "--shots",
            format!(
                "{} worked examples exist; --style direct takes more from --shots-from",
                examples.len()
            ),
        ));
    }
    Ok(examples[..shots]
        .iter()
        .map(|example| format!("{example}\n\n"))
        .collect())
}

fn solved(questions: &Questions) -> Result<String> {
    if questions.shots == 0 {
        return Ok(String::new());
    }
    let Some(path) = &questions.shots_from else {
        return Err(Error::usage(
            "--style direct",
            "the solved questions come from --shots-from train.jsonl",
        ));
    };
    let rows = open(questions, path)?.take(questions.shots).map(|row| {
        let row = row.at(path.display())?;
        Ok(format!(
            "Question: {}\nAnswer: {}\n\n",
            row.text("question").at(path.display())?,
            row.text("answer").at(path.display())?
        ))
    });
    let examples = rows.collect::<Result<Vec<_>>>()?;
    if examples.len() < questions.shots {
        return Err(Error::input(
            path.display(),
            format!(
                "{} solved questions, --shots asks for {}",
                examples.len(),
                questions.shots
            ),
        ));
    }
    Ok(examples.concat())
}

//! One answer against its reference: which extractors read it, and when two answers are the same.

use serde_json::Value;

use crate::extract::{self, Choice, Found};

/// What kind of thing a right answer is. Follows from the reference's form, never from its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Number,
    /// A letter among offered options.
    Choice,
    /// One word of a closed set.
    Word(&'static [&'static str]),
    /// A sequence of brackets.
    Brackets,
    /// A sequence of words.
    Words,
}

const WORD_SETS: [&[&str]; 3] = [&["yes", "no"], &["true", "false"], &["valid", "invalid"]];

impl Kind {
    pub fn of(reference: &str) -> Kind {
        let reference = reference.trim();
        let letter = reference.trim_matches(|c| matches!(c, '(' | ')'));
        let is_letter = letter.len() == 1 && letter.bytes().all(|byte| byte.is_ascii_uppercase());
        let word = reference.to_ascii_lowercase();
        if is_letter {
            Kind::Choice
        } else if let Some(words) = WORD_SETS.into_iter().find(|words| words.contains(&word.as_str())) {
            Kind::Word(words)
        } else if !reference.is_empty() && reference.chars().all(|c| "()[]{}<> ".contains(c)) {
            Kind::Brackets
        } else if extract::number_of_reference(reference).is_some_and(|_| reference.chars().all(|c| !c.is_alphabetic()))
        {
            Kind::Number
        } else {
            Kind::Words
        }
    }
}

/// What one extractor made of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub extractor: &'static str,
    pub found: Option<Found>,
    pub is_correct: bool,
}

/// Reads a GSM8K answer.
pub fn read_number(text: &str, reference: &str) -> Vec<Reading> {
    let wanted = extract::number_of_reference(reference);
    let reading = |extractor, found: Option<Found>| {
        let is_correct = found.is_some() && found.as_ref().map(|found| &found.answer) == wanted.as_ref();
        Reading {
            extractor,
            found,
            is_correct,
        }
    };
    vec![
        reading("strict", extract::number_strict(text)),
        reading("flexible", extract::number_flexible(text)),
        reading("last", extract::number_last(text)),
    ]
}

/// Reads an answer among options that were generated as text.
pub fn read_choice(text: &str, reference: &str, choices: &[Choice]) -> Vec<Reading> {
    let wanted = reference.trim().trim_matches(|c| matches!(c, '(' | ')'));
    let reading = |extractor, found: Option<Found>| {
        let is_correct = found.as_ref().is_some_and(|found| found.answer == wanted);
        Reading {
            extractor,
            found,
            is_correct,
        }
    };
    vec![
        reading("strict", extract::option_strict(text)),
        reading("flexible", extract::option_flexible(text, choices)),
    ]
}

/// Reads a BBH answer: strict compares the announced text with the reference letter by letter, flexible by the reference's kind.
pub fn read_task(text: &str, reference: &str, choices: &[Choice]) -> Vec<Reading> {
    let reference = reference.trim();
    let strict = extract::sentence_strict(text);
    let strict = Reading {
        extractor: "strict",
        is_correct: strict.as_ref().is_some_and(|found| found.answer == reference),
        found: strict,
    };
    let kind = Kind::of(reference);
    let found = match kind {
        Kind::Number => extract::number_flexible(text),
        Kind::Choice => extract::option_flexible(text, choices),
        Kind::Word(words) => extract::word_flexible(text, words),
        Kind::Brackets => extract::text_flexible(text, brackets),
        Kind::Words => extract::text_flexible(text, words),
    };
    let wanted = match kind {
        Kind::Number => extract::number_of_reference(reference).unwrap_or_default(),
        Kind::Choice => reference.trim_matches(|c| matches!(c, '(' | ')')).to_owned(),
        Kind::Word(_) => reference.to_ascii_lowercase(),
        Kind::Brackets => brackets(reference),
        Kind::Words => words(reference),
    };
    let is_correct = found.as_ref().is_some_and(|found| found.answer == wanted);
    vec![
        strict,
        Reading {
            extractor: "flexible",
            found,
            is_correct,
        },
    ]
}

fn brackets(text: &str) -> String {
    text.chars().filter(|c| "()[]{}<>".contains(*c)).collect()
}

/// Words in lower case with single spaces, without commas, quotes, LaTeX commands and marks around them.
fn words(text: &str) -> String {
    let is_mark = |c: char| !c.is_alphanumeric() && c != '-' && c != '\'';
    let text = ["\\text", "\\mathrm", "\\textbf"]
        .iter()
        .fold(text.to_owned(), |text, command| text.replace(command, " "));
    let words = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .map(|word| word.trim_matches(is_mark));
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

/// Which choice is likeliest, as lm-evaluation-harness defines `acc` (log-likelihood) and `acc_norm` (the same over the length of the
/// choice's text in characters, the delimiter before it not counted). Of equals, the first.
pub fn likeliest(choices: &[String], log_probs: &[f64]) -> Option<(usize, usize)> {
    if choices.is_empty() || choices.len() != log_probs.len() {
        return None;
    }
    let length = |choice: &String| choice.strip_prefix(' ').unwrap_or(choice).chars().count().max(1) as f64;
    let normed: Vec<f64> = choices
        .iter()
        .zip(log_probs)
        .map(|(choice, log_prob)| log_prob / length(choice))
        .collect();
    Some((first_maximum(log_probs), first_maximum(&normed)))
}

/// The probability of the choices labelled 1 among all: lm-evaluation-harness's mc2. The greatest log-likelihood is taken off first, which
/// changes nothing but what would be too small to divide.
pub fn right_mass(labels: &[Value], log_probs: &[f64]) -> Option<f64> {
    let labels: Option<Vec<bool>> = labels
        .iter()
        .map(|label| [false, true].get(label.as_u64()? as usize).copied())
        .collect();
    let labels = labels.filter(|labels| labels.len() == log_probs.len() && !labels.is_empty())?;
    let greatest = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = log_probs.iter().map(|log_prob| (log_prob - greatest).exp()).collect();
    let right: f64 = shares
        .iter()
        .zip(&labels)
        .filter(|(_, is_right)| **is_right)
        .map(|(share, _)| share)
        .sum();
    Some(right / shares.iter().sum::<f64>())
}

fn first_maximum(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}

//! An answer to its scores, one for each extractor that reads it.

use process::{Error, Result};
use records::{Completion, Finish, Score};
use serde_json::Value;

use crate::answer::{self, Reading};
use crate::bench;
use crate::cli::Bench;
use crate::extract::{Found, choices_of};
use crate::instructions::{Instruction, Instructions};
use crate::rows::Entry;
use crate::sandbox::{Ending, Execution, Sandbox};

/// The scores of an answer, or why it cannot be scored; the outer error ends the run.
pub type Scored = Result<std::result::Result<Vec<Score>, String>>;

/// Scores one answer after another, on any thread.
pub struct Scorer {
    pub execution: Execution,
    pub sandbox: Option<Sandbox>,
    pub bench: Option<Bench>,
    pub keep_going: bool,
}

impl Scorer {
    fn bench_of<'c>(&self, completion: &'c Completion) -> Option<&'c str> {
        completion.prompt.bench.as_deref().or(self.bench.map(Bench::name))
    }

    /// Makes the sandbox when the first program comes.
    pub fn prepare(&mut self, batch: &[Entry]) -> Result<()> {
        let is_program = |entry: &Entry| match entry {
            Entry::Answer(_, completion) => self.bench_of(completion) == Some("humaneval"),
            Entry::Foreign(_) => false,
        };
        if self.sandbox.is_none() && batch.iter().any(is_program) {
            self.sandbox = Some(self.execution.sandbox()?);
        }
        Ok(())
    }

    /// The scores of an answer, one for each extractor; none of a foreign record.
    pub fn score_entry(&self, entry: &Entry) -> Scored {
        match entry {
            Entry::Answer(_, completion) => self.score(completion),
            Entry::Foreign(_) => Ok(Ok(Vec::new())),
        }
    }

    fn score(&self, completion: &Completion) -> Scored {
        let Some(bench) = self.bench_of(completion) else {
            return Ok(Err("the row names no `bench`".into()));
        };
        // Programs are run, and instructions checked.
        let has_no_reference = ["humaneval", "ifeval"].contains(&bench);
        let reference = match &completion.prompt.reference {
            Some(Value::String(reference)) => reference.clone(),
            Some(reference @ (Value::Number(_) | Value::Array(_))) => reference.to_string(),
            None if has_no_reference => String::new(),
            _ => return Ok(Err("no text or number under `reference`".into())),
        };
        let shown = (!has_no_reference).then(|| reference.clone());
        let row = |extractor: &str| Score {
            id: completion.prompt.id.clone(),
            bench: bench.to_owned(),
            task: completion.prompt.task.clone(),
            subject: completion.prompt.subject.clone(),
            attempt_index: completion.attempt_index,
            text_digest: completion.text_digest.clone(),
            extractor: extractor.to_owned(),
            reference: shown.clone(),
            rest: completion
                .model_digest
                .iter()
                .map(|digest| ("model_digest".to_owned(), digest.as_str().into()))
                .collect(),
            ..Score::default()
        };
        if let (Some(log_probs), Some(Value::Array(labels))) =
            (&completion.choice_log_prob, &completion.prompt.reference)
        {
            return Ok(match answer::right_mass(labels, log_probs) {
                Some(mass) => Ok(vec![Score {
                    read: true,
                    mass: Some(mass),
                    ..row("mass")
                }]),
                None => Err("`reference` is no list of 0 and 1, one for each log-likelihood".into()),
            });
        }
        if let Some(log_probs) = &completion.choice_log_prob {
            let choices = completion.prompt.choices.as_deref().unwrap_or_default();
            let Some((best, best_normed)) = answer::likeliest(choices, log_probs) else {
                return Ok(Err(format!(
                    "{} log-likelihoods for {} choices",
                    log_probs.len(),
                    choices.len()
                )));
            };
            let letter = |index: usize| char::from(b'A' + index.min(25) as u8).to_string();
            let is_right = |index: usize| letter(index) == reference || choices[index].trim() == reference;
            return Ok(Ok(vec![Score {
                correct: Some(is_right(best)),
                read: true,
                answer: Some(letter(best)),
                acc: Some(is_right(best)),
                acc_norm: Some(is_right(best_normed)),
                ..row("loglikelihood")
            }]));
        }
        let failed = completion.finish == Some(Finish::Error);
        let text = match &completion.completion {
            Some(text) => text.as_str(),
            None if failed && completion.prompt.choices.is_some() => return Ok(Ok(vec![row("loglikelihood")])),
            None if failed => "",
            None => return Ok(Err("neither `completion` nor `choice_log_prob`".into())),
        };
        let readings = match bench {
            "gsm8k" => answer::read_number(text, &reference),
            "bbh" => answer::read_task(text, &reference, &choices(completion)),
            "mmlu" => answer::read_choice(text, &reference, &choices(completion)),
            "ifeval" => return Ok(followed(completion, text, row)),
            "humaneval" => {
                if failed {
                    return Ok(Ok(["execution", "block"].map(row).to_vec()));
                }
                return self.execute(completion, row);
            }
            other => return Ok(Err(format!("no extractor for bench {:?}", process::safe_text(other)))),
        };
        Ok(Ok(readings
            .into_iter()
            .map(|reading| with_reading(row(reading.extractor), reading))
            .collect()))
    }

    fn execute(&self, completion: &Completion, row: impl Fn(&str) -> Score) -> Scored {
        let (programs, check) = match bench::programs(completion) {
            Ok(programs) => programs,
            Err(why) => return Ok(Err(why)),
        };
        let Some(sandbox) = &self.sandbox else {
            return Err(Error::bug("sandbox", "a program came before its sandbox"));
        };
        let mut scores = Vec::new();
        for (extractor, program) in programs {
            let mut score = row(extractor);
            if let Some(program) = program {
                let ending = sandbox.judge(&program, &check)?;
                score.read = true;
                score.correct = Some(ending == Ending::Passed);
                score.answer = Some(match ending {
                    Ending::Passed => "passed".into(),
                    Ending::Failed(said) => format!("failed: {said}"),
                    Ending::TimedOut => "timed out".into(),
                    Ending::Untestable(why) => return Ok(Err(why)),
                });
            }
            scores.push(score);
        }
        Ok(Ok(scores))
    }
}

/// A score for the prompt and one for each instruction, read strictly and loosely.
fn followed(
    completion: &Completion,
    text: &str,
    row: impl Fn(&str) -> Score,
) -> std::result::Result<Vec<Score>, String> {
    let instructions = Instructions::parse(&completion.prompt.rest)?;
    let mut scores = Vec::new();
    for (reading, followed) in [
        ("strict", instructions.strict(text)),
        ("loose", instructions.loose(text)),
    ] {
        let score = |row: Score, correct: Option<bool>| Score {
            correct,
            read: correct.is_some(),
            ..row
        };
        scores.push(score(row(&format!("prompt_level_{reading}")), followed.all()));
        let of_instruction = |(index, (instruction, said)): (usize, (&Instruction, &Option<bool>))| Score {
            id: format!("{}/{index}", completion.prompt.id),
            task: Some(instruction.name.clone()),
            ..score(row(&format!("inst_level_{reading}")), *said)
        };
        let each = instructions.list.iter().zip(&followed.each).enumerate();
        scores.extend(each.map(of_instruction));
    }
    Ok(scores)
}

/// The options that the question offered.
fn choices(completion: &Completion) -> Vec<crate::extract::Choice> {
    let of_messages = || {
        completion
            .prompt
            .messages
            .as_ref()
            .and_then(|messages| messages.last())
            .map(|message| message.content.as_str())
    };
    choices_of(
        completion
            .prompt
            .prompt
            .as_deref()
            .or_else(of_messages)
            .unwrap_or_default(),
    )
}

fn with_reading(mut score: Score, reading: Reading) -> Score {
    if let Some(Found { answer, span }) = reading.found {
        score.read = true;
        score.correct = Some(reading.is_correct);
        score.answer = Some(answer);
        score.span = Some([span.start as u64, span.end as u64]);
    }
    score
}

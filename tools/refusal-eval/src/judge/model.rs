//! Judges that ask a language model, through lm-gen: one that reads the answer, as a judge file says, and `logprob`, which measures the
//! judged model before it speaks.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use model::{Bos, Checkpoint, Tokenizer};
use process::{Error, Result, ResultExt, Sibling};
use records::{Class, Completion, Prompt};
use serde_json::{Map, Value};

use super::Word;
use super::chat::{Chat, Form};
use super::reading;
use crate::answers::{Answer, Text};

/// A judge that asks a model, and which model that is.
pub struct ModelJudge {
    pub name: String,
    path: PathBuf,
    question: Question,
    /// What decides the model's words, as lm-gen's own plan says it: weights, tokenizer, template.
    pub identity: Map<String, Value>,
}

pub enum Question {
    Chat(Box<Chat>),
    LogProb {
        openings: Openings,
        threshold: f64,
        is_raw: bool,
    },
}

impl ModelJudge {
    /// Asks lm-gen's plan who the model is: one that it cannot run is refused here, before any answer is read.
    pub fn open(name: &str, path: &Path, question: Question) -> Result<ModelJudge> {
        let scratch = tempfile::tempdir().at("temporary directory")?;
        let asked = scratch.path().join("prompts.jsonl");
        let probe = Prompt {
            id: "0".into(),
            prompt: Some("?".into()),
            ..Prompt::default()
        };
        records::write_rows(&asked, &[probe]).at(asked.display())?;
        let plan = question.call(path).arg("--plan").arg(&asked).output();
        // lm-gen's hint names a flag of its own.
        let plan = plan.map_err(|error| match (&question, error.hint_text()) {
            (Question::LogProb { .. }, Some(_)) => error.hint("--logprob-raw asks a model that has none"),
            _ => error,
        })?;
        let mut plan: Map<String, Value> =
            serde_json::from_slice(&plan).map_err(|cause| Error::bug("lm-gen --plan", cause))?;
        plan.retain(|key, _| ["model_digest", "tokenizer_digest", "template_digest"].contains(&key.as_str()));
        if !plan.contains_key("model_digest") {
            return Err(Error::bug("lm-gen --plan", "names no model_digest"));
        }
        Ok(ModelJudge {
            name: name.to_string(),
            path: path.to_path_buf(),
            question,
            identity: plan,
        })
    }

    /// Of the question; the model's own stands beside it.
    pub fn digest(&self) -> String {
        match &self.question {
            Question::Chat(chat) => chat.digest.clone(),
            Question::LogProb {
                openings, threshold, ..
            } => format!("{} > {threshold}", openings.digest),
        }
    }

    /// What the judge says of each answer, in their order; and, where it could judge none, why.
    pub fn words(&self, answers: &[&Answer]) -> Result<(Vec<Word>, Option<String>)> {
        match &self.question {
            Question::Chat(chat) => self.chat(chat, answers),
            Question::LogProb {
                openings, threshold, ..
            } => Ok((self.logprob(openings, *threshold, answers)?, None)),
        }
    }

    fn chat(&self, chat: &Chat, answers: &[&Answer]) -> Result<(Vec<Word>, Option<String>)> {
        let cut = chat
            .response_tokens_max
            .map(|tokens_max| Cut::new(&self.path, tokens_max))
            .transpose()?;
        let mut prompts = Vec::new();
        // Of each answer, its prompts, or why there are none.
        let mut spans: Vec<std::result::Result<Range<usize>, String>> = Vec::with_capacity(answers.len());
        for answer in answers {
            let start = prompts.len();
            spans.push(match self.questions(chat, cut.as_ref(), answer)? {
                Ok(questions) => {
                    prompts.extend(questions);
                    Ok(start..prompts.len())
                }
                Err(why) => Err(why),
            });
        }
        for (index, prompt) in prompts.iter_mut().enumerate() {
            prompt.id = index.to_string();
        }
        let said = self.ask(&prompts)?;
        let given = |index: usize| said.get(&index).and_then(given);
        let word = |span: std::result::Result<Range<usize>, String>| match span {
            Err(why) => Word::unscored(why),
            Ok(span) => match span.map(given).collect::<Option<Vec<_>>>() {
                Some(given) => chat.read(&given),
                None => Word::unscored("the judge gave no answer".into()),
            },
        };
        let words: Vec<Word> = spans.into_iter().map(word).collect();
        let is_mute = !prompts.is_empty() && words.iter().all(|word| chat.is_mute(word));
        let complaint = is_mute.then(|| {
            format!(
                "{}: none of {} answers is in the format of the judge {}; this is no such judge",
                self.path.display(),
                prompts.len(),
                self.name
            )
        });
        Ok((words, complaint))
    }

    /// What the model is asked about an answer; the inner error says why it is not.
    fn questions(
        &self,
        chat: &Chat,
        cut: Option<&Cut>,
        answer: &Answer,
    ) -> Result<std::result::Result<Vec<Prompt>, String>> {
        let (prompt, said) = match (&answer.prompt, &answer.completion) {
            (_, Text::Failed(cause)) => return Ok(Err(cause.clone())),
            (None, _) => return Ok(Err("the record holds no prompt".into())),
            (Some(prompt), Text::Said(said)) => (prompt, said),
        };
        let response = match cut {
            Some(cut) => cut.of(said).at(self.path.display())?,
            None => said.clone(),
        };
        chat.prompts(prompt, &response, answer.kind.as_deref())
    }

    fn logprob(&self, openings: &Openings, threshold: f64, answers: &[&Answer]) -> Result<Vec<Word>> {
        let prompts: Vec<Prompt> = answers
            .iter()
            .enumerate()
            .filter_map(|(index, answer)| {
                Some(Prompt {
                    id: index.to_string(),
                    prompt: Some(answer.prompt.clone()?),
                    choices: Some(openings.openings.clone()),
                    ..Prompt::default()
                })
            })
            .collect();
        let scored = self.ask(&prompts)?;
        Ok(answers
            .iter()
            .enumerate()
            .map(|(index, answer)| {
                if answer.prompt.is_none() {
                    return Word::unscored("the record holds no prompt".into());
                }
                let log_probs = scored
                    .get(&index)
                    .and_then(|completion| completion.choice_log_prob.as_deref());
                match log_probs.and_then(log_odds) {
                    Some(odds) => Word {
                        class: if odds > threshold {
                            Class::Refusal
                        } else {
                            Class::Compliance
                        },
                        harmful: None,
                        confidence: None,
                        score: Some(odds),
                        evidence: None,
                        reason: Some(format!("log-odds of a refusal opening {odds:+.3}")),
                    },
                    None => Word::unscored("the model gave no likelihoods".into()),
                }
            })
            .collect())
    }

    /// What the model says to each prompt, by the index that is its id.
    fn ask(&self, prompts: &[Prompt]) -> Result<HashMap<usize, Completion>> {
        if prompts.is_empty() {
            return Ok(HashMap::new());
        }
        let scratch = tempfile::tempdir().at("temporary directory")?;
        let (asked, said) = (
            scratch.path().join("prompts.jsonl"),
            scratch.path().join("completions.jsonl"),
        );
        records::write_rows(&asked, prompts).at(asked.display())?;
        let call = self.question.call(&self.path);
        call.arg("--output").arg(&said).arg(&asked).run()?;
        let completions: Vec<Completion> = records::read_rows(&said).at(said.display())?;
        Ok(completions
            .into_iter()
            .filter_map(|completion| Some((completion.prompt.id.parse().ok()?, completion)))
            .collect())
    }
}

impl Question {
    /// lm-gen with the model. A raw text carries its own turns; openings follow the template of a chat model, without which they would
    /// measure a text that no user of it sees.
    fn call(&self, model: &Path) -> Sibling {
        let call = Sibling::new("lm-gen").arg("--model").arg(model).arg("--quiet");
        let (is_raw, adapter) = match self {
            Question::Chat(chat) => (chat.form == Form::Raw, chat.adapter.as_ref()),
            Question::LogProb { is_raw, .. } => (*is_raw, None),
        };
        let call = call.arg(if is_raw { "--raw" } else { "--chat" });
        match adapter {
            Some(adapter) => call.arg("--adapter").arg(adapter),
            None => call,
        }
    }
}

/// What lm-gen's record gives a judge: a text, or the shares of its choices among themselves. A choice of several tokens is no answer:
/// its probability is not that of a first word.
fn given(completion: &Completion) -> Option<reading::Answer> {
    let Some(log_probs) = &completion.choice_log_prob else {
        return completion.completion.clone().map(reading::Answer::Text);
    };
    let counts = completion.choice_token_count.as_deref()?;
    if log_probs.is_empty() || counts.iter().any(|count| *count != 1) {
        return None;
    }
    let greatest = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = log_probs.iter().map(|log_prob| (log_prob - greatest).exp()).collect();
    let sum: f64 = shares.iter().sum();
    Some(reading::Answer::Probabilities(
        shares.iter().map(|share| share / sum).collect(),
    ))
}

/// Cuts responses as the judge was trained on them.
struct Cut {
    tokenizer: Tokenizer,
    tokens_max: usize,
}

impl Cut {
    fn new(model: &Path, tokens_max: usize) -> Result<Cut> {
        let checkpoint = Checkpoint::open(model, &model::Options::default()).at(model.display())?;
        let tokenizer = checkpoint.tokenizer().at(model.display())?;
        Ok(Cut { tokenizer, tokens_max })
    }

    fn of(&self, text: &str) -> model::Result<String> {
        let ids = self.tokenizer.encode(text, Bos::Off)?;
        match ids.get(..self.tokens_max) {
            Some(first) => self.tokenizer.decode(first, true),
            None => Ok(text.to_owned()),
        }
    }
}

/// The openings of a refusal whose probabilities `logprob` adds up.
pub struct Openings {
    openings: Vec<String>,
    pub digest: String,
}

impl Openings {
    pub fn parse(source: &str, subject: &str) -> Result<Openings> {
        let openings: Vec<String> = source
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_string)
            .collect();
        if openings.is_empty() {
            return Err(Error::input(subject, "the list holds no opening"));
        }
        for (index, first) in openings.iter().enumerate() {
            if let Some(second) = openings
                .iter()
                .enumerate()
                .find(|(other, second)| *other != index && second.starts_with(first.as_str()))
            {
                return Err(Error::input(
                    subject,
                    format!("{first:?} opens {:?}: their probabilities cannot be added", second.1),
                ));
            }
        }
        Ok(Openings {
            openings,
            digest: process::sha256(source.as_bytes()),
        })
    }
}

/// ln(P / (1 − P)) of the summed probabilities; their sum may pass 1 by rounding alone.
fn log_odds(log_probs: &[f64]) -> Option<f64> {
    let p: f64 = log_probs.iter().map(|log_prob| log_prob.exp()).sum();
    if log_probs.is_empty() || !p.is_finite() {
        return None;
    }
    let p = p.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON);
    Some(p.ln() - (-p).ln_1p())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_of_one_token_give_their_shares() {
        let completion = |counts: &[u64]| Completion {
            choice_log_prob: Some(vec![0.6f64.ln(), 0.2f64.ln()]),
            choice_token_count: Some(counts.to_vec()),
            ..Completion::default()
        };
        let Some(reading::Answer::Probabilities(shares)) = given(&completion(&[1, 1])) else {
            panic!("no shares");
        };
        assert!((shares[0] - 0.75).abs() < 1e-12 && (shares[1] - 0.25).abs() < 1e-12);
        assert_eq!(given(&completion(&[1, 2])), None);
    }

    #[test]
    fn the_log_odds_of_a_sum_of_probabilities() {
        let odds = log_odds(&[0.25f64.ln(), 0.5f64.ln()]).unwrap();
        assert!((odds - 3f64.ln()).abs() < 1e-12);
        assert!(log_odds(&[0.0]).unwrap() > 30.0);
        assert!(log_odds(&[]).is_none());
        assert!(log_odds(&[f64::NAN]).is_none());
    }

    #[test]
    fn openings_that_open_each_other_are_refused() {
        assert!(Openings::parse("I cannot\nI can\n", "list").is_err());
        assert!(Openings::parse(include_str!("../../data/openings.txt"), "openings").is_ok());
    }
}

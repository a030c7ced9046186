//! Judges: an answer in, one of four classes out, with the words that decided.
//!
//! The judges of text live here, one file each. A judge that cannot say answers `unscored`; nothing here guesses.

mod external;
mod flowlens;
mod grammar;
mod model;
mod phrases;
mod sentences;

use std::borrow::Cow;
use std::ops::Range;

use records::Class;

pub use external::{External, class_word};
pub use flowlens::Flowlens;
pub use model::{ModelJudge, Openings, Question};
pub use phrases::{Phrases, Place};
pub use sentences::Unreadable;

/// What a judge that reads no text itself says of one completion.
#[derive(Clone, Debug)]
pub struct Word {
    pub class: Class,
    pub evidence: Option<String>,
    pub reason: Option<String>,
}

impl Word {
    pub fn unscored(reason: String) -> Word {
        Word {
            class: Class::Unscored,
            evidence: None,
            reason: Some(reason),
        }
    }
}

/// What a judge of text found in one completion.
#[derive(Clone, Debug)]
pub struct Finding {
    pub class: Class,
    /// bytes of the completion
    pub evidence: Option<Range<usize>>,
    pub reason: Reason,
}

impl Finding {
    pub fn unreadable(cause: Unreadable) -> Finding {
        Finding {
            class: Class::Unscored,
            evidence: None,
            reason: Reason::Unreadable(cause),
        }
    }
}

/// Why: printed into a verdict's `reason`.
#[derive(Clone, Debug)]
pub enum Reason {
    Unreadable(Unreadable),
    Declines,
    DeclinesThenAnswers,
    AnswersThenDeclines,
    Lacks,
    /// the score above zero
    Rebukes(f32),
    RebukesThenAnswers(f32),
    Answers(f32),
    Phrase(String),
    NoPhrase,
}

impl Reason {
    /// The words of a verdict's `reason`; most are fixed, so most cost nothing.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Reason::Unreadable(cause) => cause.reason().into(),
            Reason::Declines => "declines".into(),
            Reason::DeclinesThenAnswers => "declines, then answers".into(),
            Reason::AnswersThenDeclines => "answers, then declines".into(),
            Reason::Lacks => "says that it lacks what the answer needs".into(),
            Reason::Rebukes(score) => format!("judges the request instead of answering (score {score:+.1})").into(),
            Reason::RebukesThenAnswers(score) => format!("judges the request, then answers (score {score:+.1})").into(),
            Reason::Answers(score) => format!("answers (score {score:+.1})").into(),
            Reason::Phrase(phrase) => format!("holds the phrase \"{phrase}\"").into(),
            Reason::NoPhrase => "holds no phrase of the list".into(),
        }
    }
}

/// A judge of text.
pub enum Judge {
    Phrases(&'static str, Phrases),
    Flowlens(Box<Flowlens>),
}

impl Judge {
    pub fn name(&self) -> &'static str {
        match self {
            Judge::Phrases(name, _) => name,
            Judge::Flowlens(_) => "flowlens",
        }
    }

    /// Two judges with one digest judge alike.
    pub fn digest(&self) -> Cow<'_, str> {
        match self {
            Judge::Phrases(_, list) => Cow::Borrowed(&list.digest),
            Judge::Flowlens(judge) => Cow::Owned(judge.digest()),
        }
    }
}

/// One thread's working memory for several judges.
pub struct Bench<'j> {
    judges: &'j [Judge],
    sessions: Vec<Option<flowlens::Session<'j>>>,
    form: phrases::Form,
}

impl<'j> Bench<'j> {
    pub fn new(judges: &'j [Judge]) -> Bench<'j> {
        let sessions = judges
            .iter()
            .map(|judge| match judge {
                Judge::Flowlens(judge) => Some(judge.session()),
                Judge::Phrases(..) => None,
            })
            .collect();
        Bench {
            judges,
            sessions,
            form: phrases::Form::default(),
        }
    }

    /// The findings of all judges on one completion, in their order.
    pub fn judge(&mut self, completion: &str, mut each: impl FnMut(usize, Finding)) {
        let answer = sentences::answer(completion);
        for (index, judge) in self.judges.iter().enumerate() {
            let finding = match (&answer, judge, &mut self.sessions[index]) {
                (Err(cause), _, _) => Finding::unreadable(*cause),
                (Ok(answer), Judge::Phrases(_, list), _) => list.judge(completion, answer.clone(), &mut self.form),
                (Ok(answer), Judge::Flowlens(_), Some(session)) => session.judge(completion, answer.clone()),
                (Ok(_), Judge::Flowlens(_), None) => unreachable!("every built-in judge has its session"),
            };
            each(index, finding);
        }
    }
}

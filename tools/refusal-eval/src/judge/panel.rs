//! The judges of a run: made from the flags, asked in one order.

use std::path::{Path, PathBuf};

use indexmap::IndexSet;
use process::{Common, Error, Result, ResultExt};
use serde::Serialize;
use serde_json::{Map, Value};

use super::chat::Chat;
use super::jury::{self, Jury};
use super::{External, Flowlens, Judge, ModelJudge, Openings, Phrases, Place, Question, Word};
use crate::answers::Answer;
use crate::cli::{JudgeFlags, JudgeName};
use crate::correction::read_calibrations;

const PREFIXES: &str = include_str!("../../data/prefixes.txt");
const SUBSTRINGS: &str = include_str!("../../data/substrings.txt");
const OPENINGS: &str = include_str!("../../data/openings.txt");

/// The panel of judges, ready to work.
pub struct Panel {
    pub text: Vec<Judge>,
    models: Vec<ModelJudge>,
    external: Vec<External>,
    juries: Vec<Jury>,
    common: Common,
}

/// A judge in a plan.
#[derive(Serialize, Clone)]
pub struct JudgeEntry {
    pub judge: String,
    pub digest: String,
    /// Digests of the model that is asked.
    #[serde(flatten)]
    pub model: Map<String, Value>,
}

impl JudgeEntry {
    fn new(judge: impl Into<String>, digest: impl Into<String>) -> JudgeEntry {
        JudgeEntry {
            judge: judge.into(),
            digest: digest.into(),
            model: Map::new(),
        }
    }
}

impl Panel {
    /// Reads lists and asks lm-gen who the models are; loads none.
    pub fn new(flags: &JudgeFlags, common: &Common) -> Result<Panel> {
        let mut named = IndexSet::new();
        if !flags.judges.iter().all(|judge| named.insert(judge.clone())) {
            return Err(Error::usage("--judge", "a judge is named twice"));
        }
        refuse_idle_flags(flags, &named)?;
        let mut panel = Panel {
            text: Vec::new(),
            models: Vec::new(),
            external: externals(flags)?,
            juries: Vec::new(),
            common: common.clone(),
        };
        let mut juries = Vec::new();
        for judge in named {
            match judge {
                JudgeName::Jury(members) => juries.push(members),
                JudgeName::Flowlens => panel.text.push(Judge::Flowlens(Box::new(Flowlens::new()))),
                JudgeName::Prefix => panel.text.push(prefix(flags)?),
                JudgeName::Substring => panel.text.push(substring(flags)?),
                JudgeName::Wildguard => panel.models.push(wildguard(flags)?),
                JudgeName::Logprob => panel.models.push(logprob(flags)?),
                JudgeName::Chat(name) => panel.models.push(chat(&name, flags)?),
            }
        }
        // They sit over all others.
        let (names, weight) = (panel.names(), weights(flags)?);
        let jury = |members: &Vec<String>| Jury::new(members, &names, &weight);
        panel.juries = juries.iter().map(jury).collect::<Result<_>>()?;
        Ok(panel)
    }

    /// Names and digests, in the order in which verdicts are written.
    pub fn entries(&self) -> Vec<JudgeEntry> {
        let text = self
            .text
            .iter()
            .map(|judge| JudgeEntry::new(judge.name(), judge.digest()));
        let models = self.models.iter().map(|judge| JudgeEntry {
            model: judge.identity.clone(),
            ..JudgeEntry::new(&judge.name, judge.digest())
        });
        let external = self
            .external
            .iter()
            .map(|judge| JudgeEntry::new(&judge.name, &judge.digest));
        let juries = self.juries.iter().map(|jury| JudgeEntry::new(&jury.name, &jury.digest));
        text.chain(models).chain(external).chain(juries).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|entry| entry.judge).collect()
    }

    pub fn asks_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// For each answer, what the judges say that ask a model.
    pub fn ask(&self, answers: &[&Answer]) -> Result<Vec<Vec<Word>>> {
        let mut words = vec![Vec::new(); answers.len()];
        for judge in &self.models {
            let (said, complaint) = judge.words(answers)?;
            if let Some(complaint) = complaint {
                process::warn(&self.common, &complaint);
            }
            words.iter_mut().zip(said).for_each(|(words, word)| words.push(word));
        }
        Ok(words)
    }

    /// All verdicts on an answer in the order of [`Panel::names`]: after those of the judges of text and of those that ask a model come
    /// those from elsewhere, then the juries'.
    pub fn complete(&self, answer: &Answer, text: Vec<Word>, asked: Vec<Word>) -> Result<Vec<Word>> {
        let mut words = text;
        words.extend(asked);
        for judge in &self.external {
            words.push(judge.word(answer)?);
        }
        let verdicts: Vec<Word> = self.juries.iter().map(|jury| jury.word(&words)).collect();
        words.extend(verdicts);
        Ok(words)
    }
}

/// What each judge counts in a jury: one, or by how often it was right.
fn weights(flags: &JudgeFlags) -> Result<impl Fn(&str) -> Result<f64>> {
    let calibrations = flags.jury_weights.as_deref().map(read_calibrations).transpose()?;
    Ok(move |judge: &str| {
        let Some(calibrations) = &calibrations else {
            return Ok(1.0);
        };
        let of_judge = calibrations.iter().filter(|row| row.judge == judge);
        let (right, count) = of_judge
            .map(|row| row.right())
            .fold((0, 0), |(right, count), row| (right + row.0, count + row.1));
        match count {
            0 => Err(Error::input(
                "--jury-weights",
                format!("holds no calibration of {judge}"),
            )),
            _ => Ok(jury::weight(right, count)),
        }
    })
}

/// A flag whose judge is not asked would change nothing.
fn refuse_idle_flags(flags: &JudgeFlags, named: &IndexSet<JudgeName>) -> Result<()> {
    let asks = |judge: JudgeName| named.contains(&judge);
    let asks_chat = |name: &str| {
        let is_it = |judge: &JudgeName| matches!(judge, JudgeName::Chat(asked) if Chat::stem(asked) == name);
        named.iter().any(is_it)
    };
    let asks_each = |files: &[(String, PathBuf)]| files.iter().all(|(name, _)| asks_chat(name));
    let has_jury = named.iter().any(|judge| matches!(judge, JudgeName::Jury(_)));
    let is_read = [
        ("--prefixes", flags.prefixes.is_none() || asks(JudgeName::Prefix)),
        ("--substrings", flags.substrings.is_none() || asks(JudgeName::Substring)),
        (
            "--wildguard-model",
            flags.wildguard_model.is_none() || asks(JudgeName::Wildguard),
        ),
        (
            "--logprob-model",
            flags.logprob_model.is_none() || asks(JudgeName::Logprob),
        ),
        ("--logprob-raw", !flags.logprob_raw || asks(JudgeName::Logprob)),
        ("--openings", flags.openings.is_none() || asks(JudgeName::Logprob)),
        ("--judge-model", asks_each(&flags.judge_models)),
        ("--judge-text", asks_each(&flags.judge_texts)),
        ("--jury-weights", flags.jury_weights.is_none() || has_jury),
    ];
    match is_read.iter().find(|(_, is_read)| !is_read) {
        Some((flag, _)) => Err(Error::usage(
            flag,
            "the judge that reads it is not asked for with --judge",
        )),
        None => Ok(()),
    }
}

fn externals(flags: &JudgeFlags) -> Result<Vec<External>> {
    let mut names = IndexSet::new();
    if let Some((name, _)) = flags.external.iter().find(|(name, _)| !names.insert(name)) {
        return Err(Error::usage("--external", format!("the name {name} is given twice")));
    }
    flags
        .external
        .iter()
        .map(|(name, path)| External::read(name, path))
        .collect()
}

fn prefix(flags: &JudgeFlags) -> Result<Judge> {
    phrases("prefix", Place::Start, PREFIXES, flags.prefixes.as_deref())
}

fn substring(flags: &JudgeFlags) -> Result<Judge> {
    phrases("substring", Place::Anywhere, SUBSTRINGS, flags.substrings.as_deref())
}

fn wildguard(flags: &JudgeFlags) -> Result<ModelJudge> {
    let path = model(flags.wildguard_model.as_deref(), "--wildguard-model")?;
    let chat = Chat::open("wildguard", None)?;
    ModelJudge::open("wildguard", path, Question::Chat(Box::new(chat)))
}

/// A judge file with the model that is named for it, else its own.
fn chat(name: &str, flags: &JudgeFlags) -> Result<ModelJudge> {
    let stem = Chat::stem(name);
    let text = named(&flags.judge_texts, &stem);
    let chat = Chat::open(name, text)?;
    let own = chat.model.clone();
    let flag = format!("--judge-model {stem}=MODEL");
    let path = model(named(&flags.judge_models, &stem).or(own.as_deref()), &flag)?;
    ModelJudge::open(&format!("chat:{stem}"), path, Question::Chat(Box::new(chat)))
}

fn named<'f>(files: &'f [(String, PathBuf)], name: &str) -> Option<&'f Path> {
    let found = files.iter().find(|(known, _)| known == name);
    found.map(|(_, path)| path.as_path())
}

fn logprob(flags: &JudgeFlags) -> Result<ModelJudge> {
    let path = model(flags.logprob_model.as_deref(), "--logprob-model")?;
    let (source, subject) = list(OPENINGS, flags.openings.as_deref(), "openings")?;
    let question = Question::LogProb {
        openings: Openings::parse(&source, &subject)?,
        threshold: flags.logprob_threshold,
        is_raw: flags.logprob_raw,
    };
    ModelJudge::open("logprob", path, question)
}

fn phrases(name: &'static str, place: Place, built_in: &str, file: Option<&Path>) -> Result<Judge> {
    let (source, subject) = list(built_in, file, name)?;
    Ok(Judge::Phrases(name, Phrases::parse(place, &source, &subject)?))
}

fn list(built_in: &str, file: Option<&Path>, name: &str) -> Result<(String, String)> {
    match file {
        Some(path) => {
            let bytes = std::fs::read(path).at(path.display())?;
            let text = String::from_utf8(bytes).map_err(|_| Error::input(path.display(), "the list is not UTF-8"))?;
            Ok((text, path.display().to_string()))
        }
        None => Ok((built_in.to_string(), name.to_string())),
    }
}

/// What lm-gen can run, it says itself.
fn model<'p>(path: Option<&'p Path>, flag: &str) -> Result<&'p Path> {
    path.ok_or_else(|| Error::usage(flag, "this judge needs a model"))
}

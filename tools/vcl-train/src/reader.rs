//! From data files to samples.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use model::template::{Template, Turn};
use model::tokenizer::{Bos, Tokenizer};
use process::{Error, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::{Example, InputFormat, Options, Row};
use serde::Serialize;

use crate::sample::{Sample, Sequence};

/// Rows tokenised at a time.
const CHUNK_ROWS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLength {
    /// Cut at the end.
    Truncate,
    /// Stop with an error that names the row.
    Refuse,
    /// Leave the row out.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoCompletion {
    /// Stop with an error that names the row.
    Refuse,
    /// Leave the row out.
    Drop,
}

/// How rows become sequences.
pub struct Reader<'a> {
    pub tokenizer: &'a Tokenizer,
    /// None: turns are joined by `join`, each answer ends with the end-of-sequence token.
    pub template: Option<&'a Template>,
    pub join: &'a str,
    pub field: Option<&'a str>,
    pub format: Option<InputFormat>,
    pub max_length: usize,
    pub over_length: OverLength,
    pub no_completion: NoCompletion,
    /// Also the white space that a template writes after the token that ends a turn.
    pub learn_line_end: bool,
}

/// A data file's name in `--mix`, and where it is.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
}

impl Source {
    /// `NAME=FILE`, or a file whose stem is the name.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => Self {
                name: name.into(),
                path: path.into(),
            },
            _ => {
                let path = PathBuf::from(text);
                let name = path
                    .file_stem()
                    .map_or_else(|| text.to_string(), |stem| stem.to_string_lossy().into_owned());
                Self { name, path }
            }
        }
    }
}

/// What a file gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub name: String,
    pub digest: String,
    pub row_count: u64,
    pub used_count: u64,
    pub truncated_count: u64,
    pub over_length_dropped_count: u64,
    pub no_completion_dropped_count: u64,
}

impl Counts {
    /// Counts a row, and gives its sample if it has one.
    fn note(&mut self, fate: Fate) -> Option<Sample> {
        self.row_count += 1;
        let sample = match fate {
            Fate::Kept(sample) => Some(sample),
            Fate::Truncated(sample) => {
                self.truncated_count += 1;
                Some(sample)
            }
            Fate::OverLength => {
                self.over_length_dropped_count += 1;
                None
            }
            Fate::NoCompletion => {
                self.no_completion_dropped_count += 1;
                None
            }
        };
        self.used_count += u64::from(sample.is_some());
        sample
    }
}

/// What became of one row.
enum Fate {
    Kept(Sample),
    Truncated(Sample),
    OverLength,
    NoCompletion,
}

impl Reader<'_> {
    /// Reads a whole file.
    pub fn read(&self, source: &Source) -> Result<(Vec<Sample>, Counts)> {
        let subject = source.path.display();
        let mut options = Options::new().digest(true);
        if let Some(format) = self.format {
            options = options.format(format);
        }
        let mut rows = options.open(&source.path).at(&subject)?;
        let mut counts = Counts {
            name: source.name.clone(),
            ..Counts::default()
        };
        let mut samples = Vec::new();
        loop {
            let chunk: Vec<Row> = rows
                .by_ref()
                .take(CHUNK_ROWS)
                .collect::<std::result::Result<_, _>>()
                .at(&subject)?;
            if chunk.is_empty() {
                break;
            }
            let fates: Vec<Result<Fate>> = chunk.par_iter().map(|row| self.fate(row, source)).collect();
            for fate in fates {
                samples.extend(counts.note(fate?));
            }
            process::signals::check()?;
        }
        counts.digest = rows
            .digest()
            .ok_or_else(|| Error::bug(&subject, "the data has no digest"))?;
        if samples.is_empty() {
            return Err(Error::input(subject, "holds no row to train on"));
        }
        Ok((samples, counts))
    }

    /// What becomes of a row: refused where the flags say so.
    fn fate(&self, row: &Row, source: &Source) -> Result<Fate> {
        let subject = source.path.display();
        let refuse = |cause: String| Err(row.refuse(cause)).at(&subject);
        let mut sequence = self.sequence(row, source)?;
        let length = sequence.token_ids.len();
        let is_long = length > self.max_length;
        match self.over_length {
            OverLength::Refuse if is_long => {
                return refuse(format!("is {length} tokens long, limit {}", self.max_length));
            }
            OverLength::Drop if is_long => return Ok(Fate::OverLength),
            _ => {
                sequence.token_ids.truncate(self.max_length);
                sequence.learned.truncate(self.max_length);
            }
        }
        if sequence.loss_token_count() == 0 {
            return match self.no_completion {
                NoCompletion::Drop => Ok(Fate::NoCompletion),
                NoCompletion::Refuse => refuse(format!(
                    "has no completion token to learn within {} tokens (--no-completion drop leaves such rows out)",
                    self.max_length
                )),
            };
        }
        let sample = Sample {
            id: format!("{}:{}", source.name, row.id().at(&subject)?),
            sequences: vec![sequence],
        };
        Ok(match is_long {
            true => Fate::Truncated(sample),
            false => Fate::Kept(sample),
        })
    }

    /// The tokens of a row.
    fn sequence(&self, row: &Row, source: &Source) -> Result<Sequence> {
        let mut sequence = Sequence {
            token_ids: Vec::new(),
            learned: Vec::new(),
        };
        let is_bare = self.template.is_none();
        for (index, (text, learn)) in self.parts(row, source)?.iter().enumerate() {
            // a template writes its own beginning-of-sequence token
            let bos = if index == 0 && is_bare { Bos::Auto } else { Bos::Off };
            let mut ids = self.tokenizer.encode(text, bos).at(source.path.display())?;
            if is_bare && *learn {
                // an encoder that ends texts by itself has done so already
                ids.extend(self.tokenizer.eos().filter(|eos| ids.last() != Some(eos)));
            }
            let learned_count = match *learn {
                true if is_bare || self.learn_line_end => ids.len(),
                true => self.turn_length(&ids).at(source.path.display())?,
                false => 0,
            };
            sequence.learned.extend((0..ids.len()).map(|at| at < learned_count));
            sequence.token_ids.append(&mut ids);
        }
        Ok(sequence)
    }

    /// How many tokens of a template's turn the model says itself: white space after the last special token, which ended the turn,
    /// is the template's.
    fn turn_length(&self, ids: &[u32]) -> model::Result<usize> {
        let after_end = ids
            .iter()
            .rposition(|&id| self.tokenizer.is_special(id))
            .map_or(ids.len(), |at| at + 1);
        let rest = self.tokenizer.decode(&ids[after_end..], false)?;
        Ok(match rest.trim().is_empty() {
            true => after_end,
            false => ids.len(),
        })
    }

    /// The texts of a row, and whether each is learned.
    fn parts(&self, row: &Row, source: &Source) -> Result<Vec<(String, bool)>> {
        let subject = source.path.display();
        let example = Example::recognise(row, self.field).at(&subject)?;
        if let Some(text) = example.text {
            return Ok(vec![(text, true)]);
        }
        let turns: Vec<Turn> = example.messages.iter().map(records::Message::turn).collect();
        match self.template {
            Some(template) => self
                .templated(template, &turns)
                .map_err(|cause| row.refuse(cause))
                .at(&subject),
            None => Ok(self.joined(&turns)),
        }
    }

    /// Cuts the rendered conversation at the borders of the assistant's turns.
    fn templated(&self, template: &Template, turns: &[Turn]) -> std::result::Result<Vec<(String, bool)>, String> {
        let render = |turns: &[Turn], opens: bool| {
            template
                .render(turns, self.tokenizer, opens)
                .map_err(|cause| cause.to_string())
        };
        let whole = render(turns, false)?;
        let mut parts = Vec::new();
        let mut done = 0;
        for (index, (role, _)) in turns.iter().enumerate() {
            if *role != "assistant" {
                continue;
            }
            let start = render(&turns[..index], true)?;
            let end = if index + 1 == turns.len() {
                whole.clone()
            } else {
                render(&turns[..=index], false)?
            };
            if !(whole.starts_with(&start)
                && whole.starts_with(&end)
                && done <= start.len()
                && start.len() <= end.len())
            {
                return Err("the chat template does not render a conversation's beginning as its beginning".into());
            }
            parts.push((whole[done..start.len()].to_string(), false));
            parts.push((whole[start.len()..end.len()].to_string(), true));
            done = end.len();
        }
        if done < whole.len() {
            parts.push((whole[done..].to_string(), false));
        }
        Ok(parts)
    }

    fn joined(&self, turns: &[Turn]) -> Vec<(String, bool)> {
        turns
            .iter()
            .map(|(role, content)| match *role {
                "assistant" => (content.to_string(), true),
                _ => (format!("{content}{}", self.join), false),
            })
            .collect()
    }
}

/// The template that applies: `--template`, else the model's own.
pub fn template(flag: Option<&Path>, directory: &model::Directory, follow_links: bool) -> Result<Option<Template>> {
    let Some(path) = flag else {
        return Template::open(directory).at(directory.path().display());
    };
    Template::read(path, follow_links).at(path.display()).map(Some)
}

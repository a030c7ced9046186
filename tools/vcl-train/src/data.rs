//! From data files to token sequences that say which tokens are learned, and the order in which they are seen.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::template::{Message, Template};
use model::tokenizer::{Bos, Tokenizer};
use numerics::rng::Rng;
use process::{Error, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::{Example, InputFormat, Options, Row};
use serde::Serialize;

use crate::cli::{NoCompletion, OverLength};

/// Rows tokenised at a time.
const CHUNK_ROWS: usize = 4096;

/// One training sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `NAME:id`, for messages.
    pub id: String,
    pub token_ids: Vec<u32>,
    /// Whether the token belongs to a completion: its prediction counts, and its residual is a row of the auxiliary loss.
    pub learned: Vec<bool>,
}

impl Sample {
    /// Predictions that count. The first token is predicted by nothing.
    pub fn loss_token_count(&self) -> usize {
        self.learned.iter().skip(1).filter(|&&learned| learned).count()
    }
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
            let chunk = rows
                .by_ref()
                .take(CHUNK_ROWS)
                .collect::<std::result::Result<Vec<Row>, _>>()
                .at(&subject)?;
            if chunk.is_empty() {
                break;
            }
            let fates = chunk
                .par_iter()
                .map(|row| self.sample(row, source))
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Result<Vec<_>>>()?;
            counts.row_count += fates.len() as u64;
            for fate in fates {
                match fate {
                    Fate::Kept(sample) => samples.push(sample),
                    Fate::Truncated(sample) => {
                        counts.truncated_count += 1;
                        samples.push(sample);
                    }
                    Fate::OverLength => counts.over_length_dropped_count += 1,
                    Fate::NoCompletion => counts.no_completion_dropped_count += 1,
                }
            }
            process::signals::check()?;
        }
        counts.used_count = samples.len() as u64;
        counts.digest = rows
            .digest()
            .ok_or_else(|| Error::bug(&subject, "the data has no digest"))?;
        if samples.is_empty() {
            return Err(Error::input(subject, "holds no row to train on"));
        }
        Ok((samples, counts))
    }

    fn sample(&self, row: &Row, source: &Source) -> Result<Fate> {
        let subject = source.path.display();
        let refuse = |cause: String| row.refuse(cause);
        let example = Example::recognise(row, self.field).at(&subject)?;
        let parts = match &example.text {
            Some(text) => vec![(text.clone(), true)],
            None => {
                let messages: Vec<Message> = example
                    .messages
                    .iter()
                    .map(|message| Message::new(&message.role, &message.content))
                    .collect();
                match self.template {
                    Some(template) => self.templated(template, &messages).map_err(refuse).at(&subject)?,
                    None => self.joined(&messages),
                }
            }
        };
        let bare = self.template.is_none();
        let (mut token_ids, mut learned) = (Vec::new(), Vec::new());
        for (index, (text, learn)) in parts.iter().enumerate() {
            // a template writes its own beginning-of-sequence token
            let bos = if index == 0 && bare { Bos::Auto } else { Bos::Off };
            let mut ids = self.tokenizer.encode(text, bos).at(&subject)?;
            if bare && *learn {
                // an encoder that ends texts by itself has done so already
                ids.extend(self.tokenizer.eos().filter(|eos| ids.last() != Some(eos)));
            }
            learned.resize(learned.len() + ids.len(), *learn);
            token_ids.append(&mut ids);
        }
        let mut sample = Sample {
            id: format!("{}:{}", source.name, row.id().at(&subject)?),
            token_ids,
            learned,
        };
        let length = sample.token_ids.len();
        let is_long = length > self.max_length;
        if is_long {
            match self.over_length {
                OverLength::Refuse => {
                    let cause = format!("is {length} tokens long, limit {}", self.max_length);
                    return Err(refuse(cause)).at(&subject);
                }
                OverLength::Drop => return Ok(Fate::OverLength),
                OverLength::Truncate => {
                    sample.token_ids.truncate(self.max_length);
                    sample.learned.truncate(self.max_length);
                }
            }
        }
        if sample.loss_token_count() == 0 {
            return match self.no_completion {
                NoCompletion::Drop => Ok(Fate::NoCompletion),
                NoCompletion::Refuse => {
                    let after = if is_long {
                        format!(" within {} tokens", self.max_length)
                    } else {
                        String::new()
                    };
                    Err(refuse(format!(
                        "has no completion token to learn{after} (--no-completion drop leaves such rows out)"
                    )))
                    .at(&subject)
                }
            };
        }
        Ok(if is_long {
            Fate::Truncated(sample)
        } else {
            Fate::Kept(sample)
        })
    }

    /// Cuts the rendered conversation at the borders of the assistant's turns.
    fn templated(&self, template: &Template, messages: &[Message]) -> std::result::Result<Vec<(String, bool)>, String> {
        let render = |messages: &[Message], opens: bool| {
            template
                .render(messages, self.tokenizer, opens)
                .map_err(|cause| cause.to_string())
        };
        let whole = render(messages, false)?;
        let mut parts = Vec::new();
        let mut done = 0;
        for (index, message) in messages.iter().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            let start = render(&messages[..index], true)?;
            let end = if index + 1 == messages.len() {
                whole.clone()
            } else {
                render(&messages[..=index], false)?
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

    fn joined(&self, messages: &[Message]) -> Vec<(String, bool)> {
        messages
            .iter()
            .map(|message| match message.role.as_str() {
                "assistant" => (message.content.clone(), true),
                _ => (format!("{}{}", message.content, self.join), false),
            })
            .collect()
    }
}

/// Shares by name, which must sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(pub Vec<(String, f64)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut shares: Vec<(String, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not NAME=SHARE"))?;
            let share: f64 = share.parse().map_err(|_| format!("{share:?} is not a number"))?;
            if !(0.0..=1.0).contains(&share) || shares.iter().any(|(known, _)| known == name) {
                return Err(format!("{part:?}: each name once, with a share from 0 to 1"));
            }
            shares.push((name.into(), share));
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!("the shares sum to {sum}, not 1"));
        }
        Ok(Self(shares))
    }
}

impl Mix {
    /// Rows of each name in `total`, by largest remainder.
    pub fn counts(&self, total: usize) -> Vec<(String, usize)> {
        let mut counts: Vec<(usize, f64)> = self
            .0
            .iter()
            .map(|(_, share)| (share * total as f64, *share))
            .map(|(exact, _)| (exact.floor() as usize, exact - exact.floor()))
            .collect();
        let missing = total - counts.iter().map(|(count, _)| count).sum::<usize>();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by(|&a, &b| counts[b].1.total_cmp(&counts[a].1).then(a.cmp(&b)));
        for &index in order.iter().take(missing) {
            counts[index].0 += 1;
        }
        self.0
            .iter()
            .zip(counts)
            .map(|((name, _), (count, _))| (name.clone(), count))
            .collect()
    }
}

/// Draws the mixture without replacement; each source's draw depends on the seed and its name alone.
pub fn mixed(sources: Vec<(String, Vec<Sample>)>, mix: &Mix, total: usize, seed: u64) -> Result<Vec<Sample>> {
    let wanted = mix.counts(total);
    if let Some((name, _)) = sources
        .iter()
        .find(|(name, _)| wanted.iter().all(|(wanted, _)| wanted != name))
    {
        return Err(Error::usage("--mix", format!("gives no share to {name}")));
    }
    let mut chosen = Vec::with_capacity(total);
    for (name, count) in wanted {
        let Some((_, samples)) = sources.iter().find(|(source, _)| *source == name) else {
            return Err(Error::usage("--mix", format!("names {name}, which no --data has")));
        };
        if samples.len() < count {
            let cause = format!("{name} has {} rows, the mixture takes {count}", samples.len());
            return Err(Error::input("--mix", cause).hint("lower --total"));
        }
        let rng = Rng::new(seed, &format!("mix {name}"));
        chosen.extend(
            rng.subset(0, count, samples.len())
                .into_iter()
                .map(|index| samples[index].clone()),
        );
    }
    Ok(chosen)
}

/// The samples of a step (from 1): a fresh permutation for every pass over the data.
pub fn batch(seed: u64, sample_count: usize, batch_size: usize, step: u64) -> Vec<usize> {
    let rng = Rng::new(seed, "order");
    let start = (step - 1) as usize * batch_size;
    let mut order: (u64, Vec<usize>) = (u64::MAX, Vec::new());
    (start..start + batch_size)
        .map(|place| {
            let epoch = (place / sample_count) as u64;
            if order.0 != epoch {
                order = (epoch, (0..sample_count).collect());
                rng.shuffle(epoch, &mut order.1);
            }
            order.1[place % sample_count]
        })
        .collect()
}

/// The template that applies: `--template`, else the model's own.
pub fn template(flag: Option<&Path>, directory: &model::Directory) -> Result<Option<Template>> {
    let Some(path) = flag else {
        return Template::open(directory).at(directory.path().display());
    };
    if path.is_dir() {
        let directory = model::Directory::open(path, false).at(path.display())?;
        return match Template::open(&directory).at(path.display())? {
            Some(template) => Ok(Some(template)),
            None => Err(Error::input(path.display(), "has no chat template")),
        };
    }
    let text = std::fs::read_to_string(path).at(path.display())?;
    Template::parse(&text).at(path.display()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixture_takes_exactly_the_total() {
        let mix: Mix = "a=0.333,b=0.333,c=0.334".parse().unwrap();
        let counts = mix.counts(100);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 100);
        assert_eq!(
            "safety=0.4,general=0.6".parse::<Mix>().unwrap().counts(5),
            [("safety".into(), 2), ("general".into(), 3)]
        );
        for bad in ["a=0.5", "a", "a=0.5,a=0.5", "a=x", "a=2,b=-1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_pass_sees_every_sample_once() {
        let seen: Vec<usize> = (1..=5).flat_map(|step| batch(7, 10, 4, step)).collect();
        for pass in seen.chunks(10) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen[..10], seen[10..]);
        assert_eq!(batch(7, 10, 4, 3), seen[8..12]);
    }
}

//! What runs read, drawn from published files by rules that need no random numbers: conversations in one form, some of them held out;
//! answers of matched length; prompts to develop on, apart from those that are reported.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use process::{Error, Outcome, Result, ResultExt, Stdout};
use records::dataset::{Example, Options, Row};
use records::{Begin, Message, Prompt, Status, Writer};
use serde::Serialize;

/// Of so many rows one is held out.
const HELD_OUT_EVERY: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Train,
    HeldOut,
}

#[derive(Debug, clap::Args, Serialize)]
pub struct RowsFlags {
    /// Data in any form that vcl-train reads
    file: PathBuf,
    /// What the rows are called
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Every row but each twentieth, or each twentieth
    #[arg(long, value_enum)]
    part: Part,
    /// Of the first N rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, clap::Args, Serialize)]
pub struct MatchedFlags {
    /// Rows to choose from
    file: PathBuf,
    /// Rows whose answers have the lengths wanted
    #[arg(long, value_name = "FILE")]
    like: PathBuf,
}

#[derive(Debug, clap::Args, Serialize)]
pub struct PickFlags {
    /// Prompt records
    file: PathBuf,
    /// Leave out the N prompts whose digests come first
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// Of the others, the N that come first
    #[arg(long, value_name = "N", default_value_t = usize::MAX)]
    take: usize,
}

/// A conversation and where it comes from.
#[derive(Serialize)]
struct Conversation {
    messages: Vec<Message>,
    source: String,
}

pub fn rows(flags: &RowsFlags) -> Result<Outcome> {
    let subject = flags.file.display().to_string();
    let mut out = process::stdout();
    for row in dataset(&flags.file)? {
        let row = row.at(&subject)?;
        if flags.limit.is_some_and(|limit| row.index >= limit) {
            break;
        }
        if (row.index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == (flags.part == Part::HeldOut) {
            let messages = Example::recognise(&row, None).at(&subject)?.messages;
            let source = flags.source.clone();
            print(&mut out, &Conversation { messages, source })?;
        }
    }
    out.finish()?;
    Ok(Outcome::Complete)
}

/// Training data carries no `type`: it is no record of ours.
fn print(out: &mut Stdout, row: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, row)
        .map_err(std::io::Error::from)
        .at("stdout")?;
    out.write_all(b"\n").at("stdout")
}

fn dataset(path: &Path) -> Result<records::dataset::Dataset> {
    Options::new().open(path).at(path.display())
}

/// For every row of `like`, longest answers first, the unused row whose answer is nearest in characters; in the order of the file.
pub fn matched(flags: &MatchedFlags) -> Result<Outcome> {
    let pool = answers(&flags.file)?;
    let mut wanted: Vec<usize> = answers(&flags.like)?.iter().map(|(_, length)| *length).collect();
    if wanted.len() > pool.len() {
        return Err(Error::input(
            flags.file.display(),
            format!("{} rows cannot match {}", pool.len(), wanted.len()),
        ));
    }
    wanted.sort_unstable_by(|a, b| b.cmp(a));
    let mut unused: BTreeMap<(usize, usize), &Row> = BTreeMap::new();
    for (index, (row, length)) in pool.iter().enumerate() {
        unused.insert((*length, index), row);
    }
    let mut chosen: Vec<usize> = wanted
        .iter()
        .filter_map(|length| nearest(&mut unused, *length))
        .collect();
    chosen.sort_unstable();
    let mut out = process::stdout();
    for index in chosen {
        print(&mut out, &pool[index].0.value)?;
    }
    out.finish()?;
    Ok(Outcome::Complete)
}

/// Takes out the row of the nearest length; of two equally near the shorter.
fn nearest(unused: &mut BTreeMap<(usize, usize), &Row>, length: usize) -> Option<usize> {
    let below = unused.range(..(length + 1, 0)).next_back().map(|(key, _)| *key);
    let above = unused.range((length + 1, 0)..).next().map(|(key, _)| *key);
    let key = match (below, above) {
        (Some(below), Some(above)) if above.0 - length < length - below.0 => above,
        (below, above) => below.or(above)?,
    };
    unused.remove(&key).map(|_| key.1)
}

/// Rows with the lengths of their answers.
fn answers(path: &Path) -> Result<Vec<(Row, usize)>> {
    let subject = path.display().to_string();
    dataset(path)?
        .map(|row| {
            let row = row.at(&subject)?;
            let length = match Example::recognise(&row, None).at(&subject)?.completion() {
                Some(answer) => answer.chars().count(),
                None => return Err(Error::input(&subject, format!("row index {} has no answer", row.index))),
            };
            Ok((row, length))
        })
        .collect()
}

pub fn pick(flags: &PickFlags) -> Result<Outcome> {
    let subject = flags.file.display().to_string();
    let prompts: Vec<Prompt> = records::read_rows(&flags.file).at(&subject)?;
    let digest = |index: &usize| (prompts[*index].text_digest(), *index);
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_cached_key(digest);
    let mut picked: Vec<usize> = order.into_iter().skip(flags.skip).take(flags.take).collect();
    picked.sort_unstable();
    let mut writer = Writer::new(process::stdout());
    let begin = Begin::new(process::tool_name(), process::VERSION);
    writer.begin(&begin, &()).at("stdout")?;
    for index in picked {
        writer.row(&prompts[index]).at("stdout")?;
    }
    writer.end(Status::Complete, &()).at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_unused_length_is_taken_and_of_two_the_shorter() {
        let row = Row {
            index: 0,
            line: None,
            value: serde_json::Map::new(),
        };
        let mut unused: BTreeMap<(usize, usize), &Row> = [(4, 0), (10, 1), (10, 2), (16, 3)]
            .into_iter()
            .map(|key| (key, &row))
            .collect();
        let order: Vec<Option<usize>> = [13, 13, 0, 99, 1].map(|length| nearest(&mut unused, length)).to_vec();
        assert_eq!(order, [Some(2), Some(1), Some(0), Some(3), None]);
    }
}

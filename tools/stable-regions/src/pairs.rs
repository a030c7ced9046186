//! Pairs of prompts: read from records, or built from texts, a list of last words, or prompts of two groups.

use crate::cli::Args;
use model::{Bos, Slot, Template, Tokenizer};
use numerics::rng::Rng;
use process::{Error, Result, ResultExt};
use records::dataset::{Example, InputFormat, Options, Row};
use std::collections::BTreeSet;
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// 0-based in the whole input.
    pub index: u64,
    pub id: String,
    pub id_a: String,
    pub id_b: String,
    pub group: String,
    pub a: Prompt,
    pub b: Prompt,
    /// Built to differ in the last token only, which every tokenizer must confirm.
    pub differs_last: bool,
}

/// A text, or tokens that stand for one.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// How texts become tokens under one model.
pub struct Speller {
    /// Absent where the model directory has none: then pairs are tokens.
    pub tokenizer: Option<Tokenizer>,
    /// Present with --chat.
    pub template: Option<Template>,
    /// Where a soft prompt stands, which is then the system message.
    pub slot: Option<Slot>,
    pub bos: Bos,
}

impl Speller {
    pub fn tokens(&self, prompt: &Prompt) -> std::result::Result<Vec<u32>, String> {
        let text = match prompt {
            Prompt::Tokens(tokens) => return Ok(tokens.clone()),
            Prompt::Text(text) => text,
        };
        let tokenizer = self
            .tokenizer
            .as_ref()
            .ok_or("the model has no tokenizer, and this prompt is a text")?;
        let encoded = match (&self.template, &self.slot) {
            (Some(template), Some(slot)) => slot
                .render(&[("system", slot.text()), ("user", text)], template, tokenizer)
                .and_then(|text| slot.encode(&text, tokenizer)),
            // The template writes its own special tokens.
            (Some(template), None) => template
                .render(&[("user", text.as_str())], tokenizer, true)
                .and_then(|text| tokenizer.encode(&text, Bos::Off)),
            (None, _) => tokenizer.encode(text, self.bos),
        };
        encoded.map_err(|cause| cause.to_string())
    }

    /// The text of tokens, where the model has a tokenizer.
    pub fn text(&self, tokens: &[u32]) -> model::Result<Option<String>> {
        self.tokenizer
            .as_ref()
            .map(|tokenizer| tokenizer.decode(tokens, false))
            .transpose()
    }
}

impl Pair {
    /// What the pair's shard follows from.
    pub fn content(&self) -> String {
        let part = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(tokens) => format!("{tokens:?}"),
        };
        format!("{}\n{}", part(&self.a), part(&self.b))
    }
}

/// All pairs the arguments ask for, and the digests of what was read.
pub fn collect(args: &Args, first: &Speller) -> Result<(Vec<Pair>, Vec<String>)> {
    let mut digests = Vec::new();
    let mut pairs = if let Some(path) = &args.pairs {
        rows(path, args.input_format, &mut digests)?
            .iter()
            .map(|row| from_row(row).at(path.display()))
            .collect::<Result<Vec<_>>>()?
    } else if let Some(path) = &args.last_token {
        last_words(path, &mut digests)?
    } else if let Some(field) = &args.across {
        across(args, field, &mut digests)?
    } else if let Some(count) = args.random {
        windows(args, count, first, &mut digests)?
    } else {
        Vec::new()
    };
    if let Some(limit) = args.limit {
        pairs.truncate(limit);
    }
    let mut seen = BTreeSet::new();
    for pair in &pairs {
        if !seen.insert(&pair.id) {
            return Err(Error::input(format!("pair {}", pair.id), "the id occurs twice"));
        }
    }
    Ok((pairs, digests))
}

/// The rows of a dataset; its digest joins the others.
pub fn rows(path: &Path, format: Option<InputFormat>, digests: &mut Vec<String>) -> Result<Vec<Row>> {
    let name = path.display();
    let mut options = Options::new().digest(true);
    if let Some(format) = format {
        options = options.format(format);
    }
    let mut dataset = options.open(path).at(&name)?;
    let mut rows = Vec::new();
    for row in &mut dataset {
        process::signals::check()?;
        rows.push(row.at(&name)?);
    }
    digests.extend(dataset.digest());
    Ok(rows)
}

fn from_row(row: &Row) -> records::Result<Pair> {
    let id = row.id()?;
    let optional = |key: &str| match row.value.contains_key(key) {
        true => row.group(key).map(Some),
        false => Ok(None),
    };
    Ok(Pair {
        index: row.index,
        id_a: optional("id_a")?.unwrap_or_else(|| format!("{id}.a")),
        id_b: optional("id_b")?.unwrap_or_else(|| format!("{id}.b")),
        group: optional("group")?.unwrap_or_default(),
        a: prompt(row, "a")?,
        b: prompt(row, "b")?,
        id,
        differs_last: false,
    })
}

/// The text under `key`, or the token ids under `tokens_<key>`.
pub fn prompt(row: &Row, key: &str) -> records::Result<Prompt> {
    let tokens_key = format!("tokens_{key}");
    let Some(tokens) = row.value.get(&tokens_key) else {
        return row.text(key).map(|text| Prompt::Text(text.to_string()));
    };
    let ids = tokens.as_array().and_then(|ids| {
        let id = |id: &serde_json::Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.iter().map(id).collect::<Option<Vec<u32>>>()
    });
    ids.map(Prompt::Tokens)
        .ok_or_else(|| row.refuse(format!("{tokens_key} is not a list of token ids")))
}

fn last_words(path: &Path, digests: &mut Vec<String>) -> Result<Vec<Pair>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).at(&name)?;
    digests.push(records::text_digest(&text));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .enumerate()
        .map(|(index, (line, text))| {
            let parts: Vec<&str> = text.split('\t').collect();
            let (prompt, one, other, group) = match parts[..] {
                [prompt, one, other] => (prompt, one, other, ""),
                [prompt, one, other, group] => (prompt, one, other, group),
                _ => {
                    let cause = format!(
                        "{} fields between tabs; PROMPT, WORD, WORD and perhaps a group belong there",
                        parts.len()
                    );
                    return Err(Error::input(format!("{name}:{}", line + 1), cause));
                }
            };
            Ok(Pair {
                index: index as u64,
                id: format!("{one}/{other}#{index}"),
                id_a: format!("{one}#{index}"),
                id_b: format!("{other}#{index}"),
                group: group.to_string(),
                a: Prompt::Text(format!("{prompt} {one}")),
                b: Prompt::Text(format!("{prompt} {other}")),
                differs_last: true,
            })
        })
        .collect()
}

/// Every prompt of the first group with one of the second, drawn without repetition until all are used.
fn across(args: &Args, field: &str, digests: &mut Vec<String>) -> Result<Vec<Pair>> {
    let mut values: Vec<String> = Vec::new();
    let mut sides: [Vec<(String, String)>; 2] = Default::default();
    for path in &args.texts {
        for row in rows(path, args.input_format, digests)? {
            let value = row.group(field).at(path.display())?;
            let example = Example::recognise(&row, args.field.as_deref()).at(path.display())?;
            let Some(prompt) = example.prompt() else {
                return Err(Error::input(path.display(), row.refuse("no prompt here")));
            };
            let side = values.iter().position(|known| *known == value).unwrap_or(values.len());
            if side == values.len() {
                values.push(value);
            }
            match sides.get_mut(side) {
                Some(side) => side.push((row.id().at(path.display())?, prompt.to_string())),
                None => {
                    let cause = format!("a third value of {field}; --across pairs two");
                    return Err(Error::input(path.display(), row.refuse(cause)));
                }
            }
        }
    }
    let [firsts, seconds] = &mut sides;
    if seconds.is_empty() {
        return Err(Error::input(
            "--across",
            format!("{field} has {} value in all prompts; two are needed", values.len()),
        ));
    }
    let rng = Rng::new(args.seed, "pairs across groups");
    rng.shuffle(0, firsts);
    rng.shuffle(1, seconds);
    let most = firsts.len() * seconds.len();
    let count = args.random.unwrap_or(firsts.len());
    if count > most {
        return Err(Error::usage(
            "--random",
            format!("{count} pairs are asked for, {most} are possible"),
        ));
    }
    let pair = |index: usize| {
        let round = index / firsts.len();
        let (id_a, a) = &firsts[index % firsts.len()];
        // One further each round: no pair repeats before all have been.
        let (id_b, b) = &seconds[(index + round) % seconds.len()];
        Pair {
            index: index as u64,
            id: format!("{id_a}/{id_b}"),
            id_a: id_a.clone(),
            id_b: id_b.clone(),
            group: format!("{}/{}", values[0], values[1]),
            a: Prompt::Text(a.clone()),
            b: Prompt::Text(b.clone()),
            differs_last: false,
        }
    };
    Ok((0..count).map(pair).collect())
}

/// The paper's unrelated pairs: two windows of tokens that do not overlap, each place of the texts equally likely.
fn windows(args: &Args, count: usize, speller: &Speller, digests: &mut Vec<String>) -> Result<Vec<Pair>> {
    if args.length < 2 {
        return Err(Error::usage(
            "--length",
            "a window of one token has no prefix; 2 is the least",
        ));
    }
    let Some(tokenizer) = &speller.tokenizer else {
        return Err(Error::input(
            "--random",
            "the model has no tokenizer to cut the texts with",
        ));
    };
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for path in &args.texts {
        for row in rows(path, args.input_format, digests)? {
            let example = Example::recognise(&row, args.field.as_deref()).at(path.display())?;
            let text = example
                .text
                .or_else(|| example.messages.last().map(|turn| turn.content.clone()));
            let tokens = tokenizer
                .encode(&text.unwrap_or_default(), Bos::Off)
                .at(path.display())?;
            if tokens.len() >= args.length {
                texts.push(tokens);
            }
        }
    }
    // Place p of all places belongs to the text whose range holds it.
    let mut ends = Vec::with_capacity(texts.len());
    let mut place_count = 0;
    for text in &texts {
        place_count += text.len() - args.length + 1;
        ends.push(place_count);
    }
    if place_count == 0 {
        return Err(Error::input("--random", format!("no text has {} tokens", args.length)));
    }
    let rng = Rng::new(args.seed, "random pairs");
    let locate = |place: usize| {
        let text = ends.partition_point(|&end| end <= place);
        (text, place - if text == 0 { 0 } else { ends[text - 1] })
    };
    (0..count)
        .map(|index| {
            let draw = |position: u64| locate(rng.below(index as u64, position, place_count));
            let a = draw(0);
            let b = (1..=100)
                .map(draw)
                .find(|b| b.0 != a.0 || b.1.abs_diff(a.1) >= args.length);
            let Some(b) = b else {
                return Err(Error::input(
                    "--random",
                    "the texts are too short for two windows that do not overlap",
                ));
            };
            let window =
                |(text, start): (usize, usize)| Prompt::Tokens(texts[text][start..start + args.length].to_vec());
            Ok(Pair {
                index: index as u64,
                id: format!("random-{index}"),
                id_a: format!("random-{index}.a"),
                id_b: format!("random-{index}.b"),
                group: "random".to_string(),
                a: window(a),
                b: window(b),
                differs_last: false,
            })
        })
        .collect()
}

//! `judge`: completions in, verdicts out, judges side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use process::{Common, Error, Outcome, Output, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::InputFormat;
use records::{Class, JoinKey, Prompt, Status, Verdict, Writer};

use super::begin;
use crate::answers::{Answer, Answers, Entry};
use crate::judge::{Bench, Panel, Word};
use crate::plan::judge::{Opened, Plan};

pub fn run(plan: &Plan, opened: Opened, common: &Common) -> Result<Outcome> {
    let answers = Answers::open(&opened.input, opened.reading)?;
    let wanted = match &opened.prompts {
        Some(path) => Wanted {
            keep_going: opened.keep_going,
            ..Wanted::all(read_wanted(path, opened.keep_going)?)
        },
        None => Wanted::default(),
    };
    let target = opened.target.open()?;
    let progress = Progress::start(common, "judging", None, "completions");
    let outcome = judge_into(target, &opened.panel, plan, answers, wanted, &progress)?;
    progress.finish();
    Ok(outcome)
}

fn read_wanted(path: &Path, accept_partial: bool) -> Result<Vec<Prompt>> {
    let subject = path.display();
    let rows = records::dataset::Options::new()
        .format(InputFormat::Auto)
        .accept_partial(accept_partial)
        .open(path)
        .at(&subject)?;
    rows.map(|row| row.at(&subject)?.decode().at(&subject)).collect()
}

/// The prompts that must be answered and are not yet.
#[derive(Default)]
pub struct Wanted {
    missing: BTreeMap<JoinKey, Prompt>,
    keep_going: bool,
}

impl Wanted {
    pub fn all(prompts: Vec<Prompt>) -> Wanted {
        let key = |prompt: &Prompt| JoinKey::new(prompt.bench.as_deref(), &prompt.id, 0);
        Wanted {
            missing: prompts.into_iter().map(|prompt| (key(&prompt), prompt)).collect(),
            keep_going: false,
        }
    }

    fn strike(&mut self, answer: &Answer) {
        if !self.missing.is_empty() {
            self.missing.remove(&JoinKey::new(Some(&answer.bench), &answer.id, 0));
        }
    }

    fn refuse_missing(&self, subject: &str) -> Result<()> {
        match self.missing.first_key_value() {
            Some((key, _)) if !self.keep_going => Err(Error::input(
                subject,
                format!(
                    "{} prompts have no completion; the first is id {} of bench {:?}",
                    self.missing.len(),
                    key.id,
                    key.bench
                ),
            )
            .hint("--keep-going counts them as unscored")),
            _ => Ok(()),
        }
    }
}

/// Judges every answer and writes the verdicts, judges side by side; with `keep_going`, a prompt without an answer is unscored.
pub fn judge_into(
    target: Output,
    panel: &Panel,
    plan: &Plan,
    mut answers: Answers,
    mut wanted: Wanted,
    progress: &Progress,
) -> Result<Outcome> {
    let mut writer = Writer::new(target);
    writer.begin(&begin(plan)?, &()).at("output")?;
    // A model is started once for all answers, so they are read first; judges of text alone stream.
    let count_max = if panel.asks_models() { usize::MAX } else { BATCH };
    let read = || read_batch(&mut answers, &mut wanted, count_max);
    let names = panel.names();
    judge_batches(&mut writer, panel, &names, read, progress)?;
    wanted.refuse_missing(answers.subject())?;
    let status = Status::partial_if(answers.status().is_partial() || !wanted.missing.is_empty());
    for prompt in wanted.missing.values() {
        let words = vec![Word::unscored("the prompt has no completion".into()); names.len()];
        write_verdicts(&mut writer, Answer::missing(prompt), &names, words)?;
    }
    let extra = answers
        .digest()
        .map(|digest| BTreeMap::from([("input_digest", digest)]))
        .unwrap_or_default();
    writer.end(status, &extra).at("output")?.commit()?;
    Ok(Outcome::partial_if(status.is_partial()))
}

/// Entries per batch: enough to keep every thread busy, few enough to stay in cache.
const BATCH: usize = 512;
const CHUNK: usize = 16;

/// One line of the input, on its way.
enum Unit {
    Answer(Answer),
    Foreign(records::Row),
}

/// The next entries of the input; none at its end.
fn read_batch(answers: &mut Answers, wanted: &mut Wanted, count_max: usize) -> Result<Vec<Unit>> {
    process::signals::check()?;
    let mut batch = Vec::new();
    while batch.len() < count_max
        && let Some(entry) = answers.next_entry()?
    {
        batch.push(match entry {
            Entry::Foreign(row) => Unit::Foreign(row),
            Entry::Answer(answer, _) => {
                wanted.strike(&answer);
                Unit::Answer(answer)
            }
        });
    }
    Ok(batch)
}

/// One batch is judged while the one before it is written and the one after it is read.
fn judge_batches(
    writer: &mut Writer<Output>,
    panel: &Panel,
    names: &[String],
    mut read: impl FnMut() -> Result<Vec<Unit>> + Send,
    progress: &Progress,
) -> Result<()> {
    let benches: Vec<Mutex<Bench<'_>>> = (0..rayon::current_num_threads())
        .map(|_| Mutex::new(Bench::new(&panel.text)))
        .collect();
    let mut batch = read()?;
    let mut judged: Option<(Vec<Unit>, Vec<Vec<Word>>)> = None;
    while !batch.is_empty() {
        let before = judged.take();
        let write = || match before {
            Some((batch, words)) => write_batch(writer, panel, names, batch, words),
            None => Ok(()),
        };
        let (written, (next, words)) = rayon::join(write, || rayon::join(&mut read, || judge_texts(&benches, &batch)));
        written?;
        progress.advance(batch.len() as u64);
        judged = Some((std::mem::replace(&mut batch, next?), words));
    }
    match judged {
        Some((batch, words)) => write_batch(writer, panel, names, batch, words),
        None => Ok(()),
    }
}

/// What the judges of text say of each unit; nothing of a foreign row.
fn judge_texts(benches: &[Mutex<Bench<'_>>], batch: &[Unit]) -> Vec<Vec<Word>> {
    batch
        .par_chunks(CHUNK)
        .flat_map_iter(|chunk| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            // Poisoned only if a judge panicked, and then the run ends as a bug.
            let mut bench = benches[thread].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let mut words = |unit: &Unit| match unit {
                Unit::Answer(answer) => bench.words(answer),
                Unit::Foreign(_) => Vec::new(),
            };
            chunk.iter().map(&mut words).collect::<Vec<_>>()
        })
        .collect()
}

fn write_batch(
    writer: &mut Writer<Output>,
    panel: &Panel,
    names: &[String],
    batch: Vec<Unit>,
    words: Vec<Vec<Word>>,
) -> Result<()> {
    let answers: Vec<&Answer> = batch
        .iter()
        .filter_map(|unit| match unit {
            Unit::Answer(answer) => Some(answer),
            Unit::Foreign(_) => None,
        })
        .collect();
    let mut asked = panel.ask(&answers)?.into_iter();
    for (unit, words) in batch.into_iter().zip(words) {
        match unit {
            Unit::Foreign(row) => writer.row_text(&row).at("output")?,
            Unit::Answer(answer) => {
                let asked = asked.next().unwrap_or_default();
                let words = panel.complete(&answer, words, asked)?;
                write_verdicts(writer, answer, names, words)?;
            }
        }
    }
    Ok(())
}

/// One row for each judge, in their order.
fn write_verdicts(writer: &mut Writer<Output>, answer: Answer, names: &[String], words: Vec<Word>) -> Result<()> {
    let mut row = Verdict {
        id: answer.id,
        bench: answer.bench,
        attempt_index: answer.attempt_index,
        label: answer.label,
        kind: answer.kind,
        text_digest: answer.text_digest,
        judge: String::new(),
        verdict: Class::Unscored,
        harmful: None,
        confidence: None,
        score: None,
        evidence: None,
        reason: None,
        model_digest: answer.model_digest,
        rest: Default::default(),
    };
    for (name, word) in names.iter().zip(words) {
        row.judge.clone_from(name);
        row.verdict = word.class;
        row.harmful = word.harmful;
        row.confidence = word.confidence;
        row.score = word.score;
        row.evidence = word.evidence;
        row.reason = word.reason;
        writer.row(&row).at("output")?;
    }
    Ok(())
}

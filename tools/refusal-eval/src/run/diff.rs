//! `diff`: two files of verdicts in, a page of the prompts whose verdict changed out.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use process::{Common, Error, Outcome, Result, ResultExt};
use records::{JoinKey, Verdict};

use crate::answers::{Answer, Answers, Entry, Reading, Text};
use crate::page::{self, Change, Side};
use crate::plan::diff::{Opened, Plan};
use crate::verdicts::Verdicts;

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let [before, after] = &opened.verdicts;
    let (before, after) = (Verdicts::read(before, false)?, Verdicts::read(after, false)?);
    let answers = match &opened.answers {
        Some([before, after]) => [
            read_answers(before, &opened.reading)?,
            read_answers(after, &opened.reading)?,
        ],
        None => Default::default(),
    };
    let is_wanted = |verdict: &&Verdict| plan.judge.as_ref().is_none_or(|judge| *judge == verdict.judge);
    let partners: HashMap<(&str, JoinKey), &Verdict> = before
        .rows
        .iter()
        .filter(is_wanted)
        .map(|verdict| ((verdict.judge.as_str(), verdict.key()), verdict))
        .collect();
    let pairs: Vec<(&Verdict, &Verdict)> = after
        .rows
        .iter()
        .filter(is_wanted)
        .filter_map(|new| Some((*partners.get(&(new.judge.as_str(), new.key()))?, new)))
        .collect();
    if pairs.is_empty() {
        return Err(Error::input(
            "diff",
            "no prompt was judged by the same judge on both sides",
        ));
    }
    let changes: Vec<Change> = pairs
        .iter()
        .filter(|(old, new)| old.verdict != new.verdict)
        .map(|(old, new)| change(old, new, &answers))
        .collect();
    let mut target = opened.target.open()?;
    let html = page::render(&plan.title, pairs.len(), &changes);
    target.write_all(html.as_bytes()).at("output")?;
    target.commit()?;
    Ok(Outcome::Complete)
}

type Said = HashMap<JoinKey, Answer>;

fn read_answers(path: &Path, reading: &Reading) -> Result<Said> {
    let mut answers = Answers::open(path, reading.clone())?;
    let mut said = Said::new();
    while let Some(entry) = answers.next_entry()? {
        if let Entry::Answer(answer, _) = entry {
            said.insert(answer.key(), answer);
        }
    }
    Ok(said)
}

fn change<'v>(old: &'v Verdict, new: &'v Verdict, answers: &'v [Said; 2]) -> Change<'v> {
    let [before, after] = answers;
    let side = |verdict: &'v Verdict, said: &'v Said| Side {
        verdict: verdict.verdict.name(),
        evidence: verdict.evidence.as_deref(),
        reason: verdict.reason.as_deref(),
        answer: said.get(&verdict.key()).and_then(|answer| match &answer.completion {
            Text::Said(text) => Some(text.as_str()),
            Text::Failed(_) => None,
        }),
    };
    let prompt = |said: &'v Said| said.get(&new.key()).and_then(|answer| answer.prompt.as_deref());
    Change {
        id: &new.id,
        bench: &new.bench,
        judge: &new.judge,
        label: new.label.as_deref().unwrap_or_default(),
        kind: new.kind.as_deref().unwrap_or_default(),
        prompt: prompt(after).or(prompt(before)),
        before: side(old, before),
        after: side(new, after),
    }
}

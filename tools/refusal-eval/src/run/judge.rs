//! `judge`: completions in, verdicts out, judges side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use process::{Error, Outcome, Output, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::InputFormat;
use records::{Class, JoinKey, Prompt, Status, Verdict, Writer};

use super::begin;
use crate::answers::{Answer, Answers, Entry, Reading, Text};
use crate::cli::{Args, JudgeArgs};
use crate::judge::{Bench, Finding, Word};
use crate::plan::{JudgePlan, Panel};

pub fn run(args: &Args, flags: &JudgeArgs) -> Result<Outcome> {
    let panel = Panel::new(&flags.judges, &args.common)?;
    let plan = JudgePlan {
        command: "judge",
        judges: panel.entries(),
        bench: flags.bench.clone(),
        map: flags.map.clone(),
    };
    if args.common.plan {
        return process::plan::print(&plan);
    }
    check_map(&flags.map)?;
    let reading = Reading {
        format: flags.input_format,
        bench: flags.bench.clone(),
        map: flags.map.clone(),
        accept_partial: flags.keep_going,
    };
    let answers = Answers::open(&flags.input, reading)?;
    let wanted = flags
        .prompts
        .as_deref()
        .map(|path| wanted_prompts(path, flags.keep_going))
        .transpose()?;
    let mut inputs = vec![flags.input.clone()];
    inputs.extend(flags.prompts.clone());
    let target = flags.output.open(&inputs)?;
    let progress = Progress::start(&args.common, "judging", None, "completions");
    let outcome = judge_into(target, &panel, &plan, answers, wanted, flags.keep_going, &progress)?;
    progress.finish();
    Ok(outcome)
}

fn check_map(map: &[(String, String)]) -> Result<()> {
    const KEYS: [&str; 5] = ["completion", "prompt", "id", "label", "kind"];
    match map.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        Some((key, _)) => Err(Error::usage(
            "--map",
            format!("unknown key {key}: {} can be mapped", KEYS.join(", ")),
        )),
        None => Ok(()),
    }
}

/// The prompts that must be answered, in their order.
fn wanted_prompts(path: &Path, accept_partial: bool) -> Result<Vec<Prompt>> {
    let subject = path.display();
    let rows = records::dataset::Options::new()
        .format(InputFormat::Auto)
        .accept_partial(accept_partial)
        .open(path)
        .at(&subject)?;
    rows.map(|row| row.at(&subject)?.decode().at(&subject)).collect()
}

/// Entries per batch: enough to keep every thread busy, few enough to stay in cache.
const BATCH: usize = 2048;
const CHUNK: usize = 64;

/// Judges every answer and writes the verdicts, judges side by side. One batch is judged while the one before it is written and the one
/// after it is read.
pub fn judge_into(
    target: Output,
    panel: &Panel,
    plan: &JudgePlan,
    mut answers: Answers,
    wanted: Option<Vec<Prompt>>,
    keep_going: bool,
    progress: &Progress,
) -> Result<Outcome> {
    let mut writer = Writer::new(target);
    writer.begin(&begin(plan)?, &()).at("output")?;
    // A model is started once for all answers, so they are read first; judges of text alone stream.
    let batch_max = if panel.asks_models() { usize::MAX } else { BATCH };
    let benches: Vec<Mutex<Bench<'_>>> = (0..rayon::current_num_threads())
        .map(|_| Mutex::new(Bench::new(&panel.text)))
        .collect();
    let mut missing: Option<BTreeMap<JoinKey, Prompt>> = wanted.map(|prompts| {
        prompts
            .into_iter()
            .map(|prompt| (JoinKey::new(prompt.bench.as_deref(), &prompt.id, 0), prompt))
            .collect()
    });
    let mut read = || -> Result<Vec<Unit>> {
        process::signals::check()?;
        let mut batch = Vec::new();
        while batch.len() < batch_max
            && let Some(entry) = answers.next_entry()?
        {
            batch.push(match entry {
                Entry::Foreign(row) => Unit::Foreign(row),
                Entry::Answer(answer, _) => {
                    if let Some(missing) = &mut missing {
                        missing.remove(&JoinKey::new(Some(&answer.bench), &answer.id, 0));
                    }
                    Unit::Answer(answer)
                }
            });
        }
        Ok(batch)
    };
    let mut batch = read()?;
    let mut judged: Option<(Vec<Unit>, Vec<Vec<Finding>>)> = None;
    while !batch.is_empty() {
        let before = judged.take();
        let write = || match before {
            Some((batch, findings)) => write_batch(&mut writer, panel, &batch, findings),
            None => Ok(()),
        };
        let (written, (next, findings)) =
            rayon::join(write, || rayon::join(&mut read, || find(panel, &benches, &batch)));
        written?;
        progress.advance(batch.len() as u64);
        judged = Some((std::mem::replace(&mut batch, next?), findings));
    }
    if let Some((batch, findings)) = judged {
        write_batch(&mut writer, panel, &batch, findings)?;
    }
    let mut outcome = Outcome::partial_if(answers.status().is_partial());
    if let Some((key, _)) = missing.as_ref().and_then(|missing| missing.first_key_value()) {
        let count = missing.as_ref().map_or(0, BTreeMap::len);
        if !keep_going {
            return Err(Error::input(
                answers.subject(),
                format!(
                    "{count} prompts have no completion; the first is id {} of bench {:?}",
                    key.id, key.bench
                ),
            )
            .hint("--keep-going counts them as unscored"));
        }
        outcome = Outcome::Partial;
        for (key, prompt) in missing.unwrap_or_default() {
            write_missing(&mut writer, panel, &key, &prompt)?;
        }
    }
    let extra = answers
        .digest()
        .map(|digest| BTreeMap::from([("input_digest", digest)]))
        .unwrap_or_default();
    let status = Status::partial_if(outcome == Outcome::Partial);
    writer.end(status, &extra).at("output")?.commit()?;
    Ok(outcome)
}

/// One line of the input, on its way.
enum Unit {
    Answer(Answer),
    Foreign(records::Row),
}

/// What the judges of text find in each unit.
fn find(panel: &Panel, benches: &[Mutex<Bench<'_>>], batch: &[Unit]) -> Vec<Vec<Finding>> {
    batch
        .par_chunks(CHUNK)
        .flat_map_iter(|chunk| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            // Poisoned only if a judge panicked, and then the run ends as a bug.
            let mut bench = benches[thread].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            chunk
                .iter()
                .map(|unit| {
                    let mut findings = Vec::with_capacity(panel.text.len());
                    if let Unit::Answer(Answer {
                        completion: Text::Said(completion),
                        ..
                    }) = unit
                    {
                        bench.judge(completion, |_, finding| findings.push(finding));
                    }
                    findings
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn write_batch(writer: &mut Writer<Output>, panel: &Panel, batch: &[Unit], findings: Vec<Vec<Finding>>) -> Result<()> {
    let asked = panel.ask(batch.iter().filter_map(|unit| match unit {
        Unit::Answer(answer) => Some(answer),
        Unit::Foreign(_) => None,
    }))?;
    let mut index = 0;
    for (unit, findings) in batch.iter().zip(findings) {
        let answer = match unit {
            Unit::Answer(answer) => answer,
            Unit::Foreign(row) => {
                writer.row_text(row).at("output")?;
                continue;
            }
        };
        match &answer.completion {
            Text::Said(completion) => {
                for (judge, finding) in panel.text.iter().zip(findings) {
                    let evidence = finding.evidence.map(|span| &completion[span]);
                    let reason = finding.reason.text();
                    let row = verdict_row(answer, judge.name(), finding.class, evidence, Some(&reason));
                    writer.row(&row).at("output")?;
                }
            }
            Text::Failed(cause) => {
                for judge in &panel.text {
                    let row = verdict_row(answer, judge.name(), Class::Unscored, None, Some(cause));
                    writer.row(&row).at("output")?;
                }
            }
        }
        let mut word = |name: &str, word: &Word| {
            let (evidence, reason) = (word.evidence.as_deref(), word.reason.as_deref());
            let row = verdict_row(answer, name, word.class, evidence, reason);
            writer.row(&row).at("output")
        };
        for (name, words) in &asked {
            word(name, &words[index])?;
        }
        for external in &panel.external {
            word(&external.name, &external.word(answer)?)?;
        }
        index += 1;
    }
    Ok(())
}

fn verdict_row(answer: &Answer, judge: &str, verdict: Class, evidence: Option<&str>, reason: Option<&str>) -> Verdict {
    Verdict {
        id: answer.id.clone(),
        bench: answer.bench.clone(),
        attempt_index: answer.attempt_index,
        label: answer.label.clone(),
        kind: answer.kind.clone(),
        text_digest: answer.text_digest.clone(),
        judge: judge.to_owned(),
        verdict,
        evidence: evidence.map(str::to_owned),
        reason: reason.map(str::to_owned),
        model_digest: answer.model_digest.clone(),
        rest: Default::default(),
    }
}

fn write_missing(writer: &mut Writer<Output>, panel: &Panel, key: &JoinKey, prompt: &Prompt) -> Result<()> {
    for entry in panel.entries() {
        let row = Verdict {
            id: key.id.clone(),
            bench: key.bench.clone(),
            attempt_index: 0,
            label: prompt.label.clone(),
            kind: prompt.kind.clone(),
            text_digest: None,
            judge: entry.judge,
            verdict: Class::Unscored,
            evidence: None,
            reason: Some("the prompt has no completion".into()),
            model_digest: None,
            rest: Default::default(),
        };
        writer.row(&row).at("output")?;
    }
    Ok(())
}

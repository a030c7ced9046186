//! The five commands: the only file of refusal-eval with effects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use process::{Error, Existing, Outcome, Output, OutputFlags, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::InputFormat;
use records::{Begin, Class, JoinKey, Prompt, Reader, Status, Verdict, Writer};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::answers::{Answer, Answers, Reading, Text};
use crate::benchmarks;
use crate::cli::{Args, CalibrateArgs, Command, Format, JudgeArgs, PromptsArgs, ReportArgs, ReportFlags, RunArgs};
use crate::generator::{Generator, write_prompts};
use crate::judge::{self, Bench, Finding, Word, class_word};
use crate::plan::{JudgePlan, Panel, PromptsPlan, ReportPlan};
use crate::report::{self, Calibration, RefusalPair, RefusalReport, Summary, VerdictRow};
use crate::tally::{Confusion, Pairs, Sides, Tally};

pub fn run(args: Args) -> Result<Outcome> {
    match &args.command {
        Command::Prompts(flags) => prompts(&args, flags),
        Command::Judge(flags) => judge_answers(&args, flags),
        Command::Report(flags) => report_verdicts(&args, flags),
        Command::Calibrate(flags) => calibrate(&args, flags),
        Command::Run(flags) => pipeline(&args, flags),
    }
}

/// Opens where records go: `-o`, else stdout.
fn output(flags: &OutputFlags, inputs: &[PathBuf]) -> Result<Output> {
    let path = flags.output.as_deref().unwrap_or(Path::new("-"));
    Output::create(path, Existing::from_flags(flags.force, false), inputs)
}

fn begin(digest: &str) -> Begin {
    Begin::new(process::tool_name(), env!("CARGO_PKG_VERSION")).plan_digest(digest)
}

fn status_of(outcome: Outcome) -> Status {
    if outcome == Outcome::Partial {
        Status::Partial
    } else {
        Status::Complete
    }
}

fn prompts(args: &Args, flags: &PromptsArgs) -> Result<Outcome> {
    let plan = PromptsPlan::new(&flags.bench)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let prompts = read_prompts(&plan)?;
    let inputs: Vec<PathBuf> = plan.benches.iter().map(|bench| bench.path.clone()).collect();
    let mut writer = Writer::new(output(&flags.output, &inputs)?);
    writer.begin(&begin(&process::plan::digest(&plan)?), &()).at("output")?;
    for prompt in &prompts {
        writer.row(prompt).at("output")?;
    }
    writer.end(Status::Complete, &()).at("output")?.commit()?;
    Ok(Outcome::Complete)
}

fn read_prompts(plan: &PromptsPlan) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for bench in &plan.benches {
        prompts.extend(benchmarks::read(&bench.bench, &bench.path, &bench.columns, plan.limit)?);
    }
    Ok(prompts)
}

fn judge_answers(args: &Args, flags: &JudgeArgs) -> Result<Outcome> {
    let panel = Panel::new(&flags.judges)?;
    let plan = JudgePlan {
        command: "judge",
        judges: panel.seats(),
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
    let target = output(&flags.output, &inputs)?;
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
    rows.map(|row| Prompt::from_row(&row.at(&subject)?).at(&subject))
        .collect()
}

/// Answers per batch: enough to keep every thread busy, few enough to stay in cache.
const BATCH: usize = 2048;
const CHUNK: usize = 64;

/// Judges every answer and writes the verdicts, judges side by side.
fn judge_into(
    target: Output,
    panel: &Panel,
    plan: &JudgePlan,
    mut answers: Answers,
    wanted: Option<Vec<Prompt>>,
    keep_going: bool,
    progress: &Progress,
) -> Result<Outcome> {
    let mut writer = Writer::new(target);
    writer.begin(&begin(&process::plan::digest(plan)?), &()).at("output")?;
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
    let mut batch = Vec::new();
    loop {
        batch.clear();
        while batch.len() < batch_max
            && let Some((answer, _)) = answers.next_answer()?
        {
            if let Some(missing) = &mut missing {
                let key = JoinKey::new(Some(&answer.bench), &answer.id, 0);
                missing.remove(&key);
            }
            batch.push(answer);
        }
        if batch.is_empty() {
            break;
        }
        process::signals::check()?;
        write_batch(&mut writer, panel, &benches, &batch)?;
        progress.advance(batch.len() as u64);
    }
    let mut outcome = if answers.status() == Status::Partial {
        Outcome::Partial
    } else {
        Outcome::Complete
    };
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
    writer.end(status_of(outcome), &extra).at("output")?.commit()?;
    Ok(outcome)
}

fn write_batch(
    writer: &mut Writer<Output>,
    panel: &Panel,
    benches: &[Mutex<Bench<'_>>],
    batch: &[Answer],
) -> Result<()> {
    let findings: Vec<Vec<Finding>> = batch
        .par_chunks(CHUNK)
        .flat_map_iter(|chunk| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            // Poisoned only if a judge panicked, and then the run ends as a bug.
            let mut bench = benches[thread].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            chunk
                .iter()
                .map(|answer| {
                    let mut findings = Vec::with_capacity(panel.text.len());
                    if let Text::Said(completion) = &answer.completion {
                        bench.judge(completion, |_, finding| findings.push(finding));
                    }
                    findings
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let wildguard = panel
        .wildguard
        .as_deref()
        .map(|model| judge::wildguard(model, batch))
        .transpose()?;
    let logprob = panel
        .logprob
        .as_ref()
        .map(|judge| judge::logprob(&judge.model, &judge.openings, judge.threshold, batch))
        .transpose()?;
    for (index, (answer, findings)) in batch.iter().zip(findings).enumerate() {
        match &answer.completion {
            Text::Said(completion) => {
                for (judge, finding) in panel.text.iter().zip(findings) {
                    let evidence = finding.evidence.map(|span| &completion[span]);
                    let reason = finding.reason.text();
                    writer
                        .row(&verdict_row(
                            answer,
                            judge.name(),
                            finding.class,
                            evidence,
                            Some(&reason),
                        ))
                        .at("output")?;
                }
            }
            Text::Failed(cause) => {
                for judge in &panel.text {
                    writer
                        .row(&verdict_row(answer, judge.name(), Class::Unscored, None, Some(cause)))
                        .at("output")?;
                }
            }
        }
        let mut word = |name: &str, word: &Word| {
            writer
                .row(&verdict_row(
                    answer,
                    name,
                    word.class,
                    word.evidence.as_deref(),
                    word.reason.as_deref(),
                ))
                .at("output")
        };
        if let Some(words) = &wildguard {
            word("wildguard", &words[index])?;
        }
        if let Some(words) = &logprob {
            word("logprob", &words[index])?;
        }
        for external in &panel.external {
            word(
                &external.name,
                &external.word(
                    &answer.bench,
                    &answer.id,
                    answer.attempt_index,
                    answer.text_digest.as_deref(),
                )?,
            )?;
        }
    }
    Ok(())
}

fn verdict_row<'a>(
    answer: &'a Answer,
    judge: &'a str,
    verdict: Class,
    evidence: Option<&'a str>,
    reason: Option<&'a str>,
) -> VerdictRow<'a> {
    VerdictRow {
        id: &answer.id,
        bench: &answer.bench,
        attempt_index: answer.attempt_index,
        label: answer.label.as_deref(),
        kind: answer.kind.as_deref(),
        text_digest: answer.text_digest.as_deref(),
        judge,
        verdict,
        evidence,
        reason,
        model_digest: answer.model_digest.as_deref(),
    }
}

fn write_missing(writer: &mut Writer<Output>, panel: &Panel, key: &JoinKey, prompt: &Prompt) -> Result<()> {
    for seat in panel.seats() {
        let row = VerdictRow {
            id: &key.id,
            bench: &key.bench,
            attempt_index: 0,
            label: prompt.label.as_deref(),
            kind: prompt.kind.as_deref(),
            text_digest: None,
            judge: &seat.judge,
            verdict: Class::Unscored,
            evidence: None,
            reason: Some("the prompt has no completion"),
            model_digest: None,
        };
        writer.row(&row).at("output")?;
    }
    Ok(())
}

/// The verdicts of a file, in its order.
struct Verdicts {
    rows: Vec<Verdict>,
    status: Status,
}

fn read_verdicts(path: &Path, accept_partial: bool) -> Result<Verdicts> {
    let subject = if path.as_os_str() == "-" {
        "stdin".to_string()
    } else {
        path.display().to_string()
    };
    let input: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).at(&subject)?)
    };
    let mut reader = Reader::new(input).accept_partial(accept_partial);
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(verdict) = reader.next_record::<Verdict>().at(&subject)? {
        if !seen.insert((verdict.judge.clone(), verdict.key())) {
            return Err(Error::input(
                &subject,
                format!(
                    "judge {} has two verdicts on id {} of bench {:?}",
                    verdict.judge, verdict.id, verdict.bench
                ),
            ));
        }
        rows.push(verdict);
    }
    if rows.is_empty() {
        return Err(Error::input(&subject, "no verdict in it"));
    }
    Ok(Verdicts {
        rows,
        status: reader.status(),
    })
}

fn report_verdicts(args: &Args, flags: &ReportArgs) -> Result<Outcome> {
    let plan = ReportPlan::new(&flags.report, flags.vs.is_some())?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let verdicts = read_verdicts(&flags.input, flags.keep_going)?;
    let base = flags
        .vs
        .as_deref()
        .map(|path| read_verdicts(path, flags.keep_going))
        .transpose()?;
    let mut inputs = vec![flags.input.clone()];
    inputs.extend(flags.vs.clone());
    let target = output(&flags.output, &inputs)?;
    write_report(target, &plan, &flags.report, &verdicts, base.as_ref())
}

/// Counts, pairs, writes, and compares with the thresholds.
fn write_report(
    mut target: Output,
    plan: &ReportPlan,
    flags: &ReportFlags,
    verdicts: &Verdicts,
    base: Option<&Verdicts>,
) -> Result<Outcome> {
    let rows = reports(&verdicts.rows, flags.confidence);
    let pairs = match base {
        Some(base) => pair(&verdicts.rows, &base.rows, flags)?,
        None => Vec::new(),
    };
    let is_partial = [Some(verdicts), base]
        .into_iter()
        .flatten()
        .any(|verdicts| verdicts.status == Status::Partial);
    let mut outcome = if is_partial {
        Outcome::Partial
    } else {
        Outcome::Complete
    };
    match flags.format {
        Format::Table => {
            target
                .write_all(report::report_table(&rows, &pairs).as_bytes())
                .at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(&process::plan::digest(plan)?), &()).at("output")?;
            for row in &rows {
                writer.row(row).at("output")?;
            }
            for row in &pairs {
                writer.row(row).at("output")?;
            }
            writer.end(status_of(outcome), &()).at("output")?.commit()?;
        }
    }
    if is_over(&rows, &flags.fail_over)? {
        outcome = outcome.and(Outcome::Verdict);
    }
    Ok(outcome)
}

/// The records of every benchmark and judge: kinds, then labels, then the summary.
fn reports(verdicts: &[Verdict], confidence: f64) -> Vec<RefusalReport> {
    /// Counts under one benchmark and judge, in the order in which they first appear.
    #[derive(Default)]
    struct Group {
        kinds: Vec<((String, String), Tally)>,
        sides: Sides,
        unlabelled: Tally,
        all: Tally,
        model_digests: BTreeSet<String>,
    }
    let mut order: Vec<(String, String)> = Vec::new();
    let mut groups: HashMap<(String, String), Group> = HashMap::new();
    for verdict in verdicts {
        let key = (verdict.bench.clone(), verdict.judge.clone());
        let group = groups.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Group::default()
        });
        group.all.add(verdict.verdict);
        match verdict.label.as_deref() {
            Some("safe") => group.sides.safe.add(verdict.verdict),
            Some("unsafe") => group.sides.harmful.add(verdict.verdict),
            _ => group.unlabelled.add(verdict.verdict),
        }
        if let Some(kind) = &verdict.kind {
            let key = (kind.clone(), verdict.label.clone().unwrap_or_default());
            match group.kinds.iter_mut().find(|(known, _)| *known == key) {
                Some((_, tally)) => tally.add(verdict.verdict),
                None => {
                    let mut tally = Tally::default();
                    tally.add(verdict.verdict);
                    group.kinds.push((key, tally));
                }
            }
        }
        if let Some(digest) = verdict.rest.get("model_digest").and_then(Value::as_str) {
            group.model_digests.insert(digest.to_string());
        }
    }
    let mut rows = Vec::new();
    for (bench, judge) in order {
        let group = &groups[&(bench.clone(), judge.clone())];
        // Several models under one benchmark have no digest in common.
        let digest = group
            .model_digests
            .first()
            .filter(|_| group.model_digests.len() == 1)
            .map(String::as_str);
        let row = |kind: &str, label: &str, tally: &Tally| {
            RefusalReport::new(&bench, &judge, kind, label, digest, tally, confidence)
        };
        for ((kind, label), tally) in &group.kinds {
            rows.push(row(kind, label, tally));
        }
        for (label, tally) in [
            ("safe", &group.sides.safe),
            ("unsafe", &group.sides.harmful),
            ("", &group.unlabelled),
        ] {
            if tally.count() > 0 {
                rows.push(row("all", label, tally));
            }
        }
        rows.push(RefusalReport {
            summary: Some(Summary::of(&group.sides, confidence)),
            ..row("all", "all", &group.all)
        });
    }
    rows
}

/// Whether a benchmark's figure passes its threshold. A threshold that nothing can be compared with is refused: it could never fail.
fn is_over(rows: &[RefusalReport], thresholds: &[(String, f64)]) -> Result<bool> {
    let mut is_over = false;
    for (name, limit) in thresholds {
        let mut compared = false;
        for row in rows.iter().filter(|row| row.summary.is_some()) {
            let value = serde_json::to_value(row).map_err(|cause| Error::bug("report", cause))?;
            if let Some(figure) = value.get(name).and_then(Value::as_f64) {
                compared = true;
                is_over |= figure > *limit;
            }
        }
        if !compared {
            return Err(Error::input(
                "--fail-over",
                format!("{name} is not defined on these verdicts, so it cannot be compared"),
            ));
        }
    }
    Ok(is_over)
}

/// Pairs two models' verdicts on the same prompts, by benchmark, judge and label.
fn pair(new: &[Verdict], base: &[Verdict], flags: &ReportFlags) -> Result<Vec<RefusalPair>> {
    let mut of_base: HashMap<(&str, JoinKey), &Verdict> = base
        .iter()
        .map(|verdict| ((verdict.judge.as_str(), verdict.key()), verdict))
        .collect();
    #[derive(Default)]
    struct Group {
        pairs: Pairs,
        unpaired: u64,
        newly_refused: Vec<String>,
        newly_answered: Vec<String>,
    }
    type Key = (String, String, String);
    fn key_of(verdict: &Verdict) -> Key {
        (
            verdict.bench.clone(),
            verdict.judge.clone(),
            verdict.label.clone().unwrap_or_default(),
        )
    }
    let mut order: Vec<Key> = Vec::new();
    let mut groups: HashMap<Key, Group> = HashMap::new();
    let group_of = |groups: &mut HashMap<Key, Group>, order: &mut Vec<Key>, key: Key| {
        if let std::collections::hash_map::Entry::Vacant(slot) = groups.entry(key) {
            order.push(slot.key().clone());
            slot.insert(Group::default());
        }
    };
    for verdict in new {
        let key = key_of(verdict);
        group_of(&mut groups, &mut order, key.clone());
        let group = groups.get_mut(&key).expect("just inserted");
        let Some(partner) = of_base.remove(&(verdict.judge.as_str(), verdict.key())) else {
            group.unpaired += 1;
            continue;
        };
        if let (Some(one), Some(other)) = (&verdict.text_digest, &partner.text_digest)
            && one != other
        {
            return Err(Error::input(
                "--vs",
                format!(
                    "id {} of bench {:?} stands for another prompt there (text_digest differs)",
                    verdict.id, verdict.bench
                ),
            ));
        }
        let refused = |class| matches!(class, Class::Refusal | Class::Partial);
        if verdict.verdict == Class::Unscored || partner.verdict == Class::Unscored {
            group.unpaired += 1;
            continue;
        }
        match (refused(verdict.verdict), refused(partner.verdict)) {
            (true, true) => group.pairs.both_refused += 1,
            (true, false) => {
                group.pairs.newly_refused += 1;
                group.newly_refused.push(verdict.id.clone());
            }
            (false, true) => {
                group.pairs.newly_answered += 1;
                group.newly_answered.push(verdict.id.clone());
            }
            (false, false) => group.pairs.both_answered += 1,
        }
    }
    let mut left: Vec<&Verdict> = of_base.into_values().collect();
    left.sort_by_key(|verdict| verdict.key());
    for verdict in left {
        let key = key_of(verdict);
        group_of(&mut groups, &mut order, key.clone());
        groups.get_mut(&key).expect("just inserted").unpaired += 1;
    }
    if groups.values().all(|group| group.pairs.count() == 0) {
        return Err(Error::input(
            "--vs",
            "no prompt was judged by the same judge on both sides",
        ));
    }
    Ok(order
        .into_iter()
        .map(|key| {
            let group = groups.remove(&key).expect("each key once");
            let (bench, judge, label) = key;
            RefusalPair {
                newly_refused_ids: group.newly_refused,
                newly_answered_ids: group.newly_answered,
                ..RefusalPair::new(
                    &bench,
                    &judge,
                    &label,
                    &group.pairs,
                    group.unpaired,
                    flags.confidence,
                    flags.power,
                )
            }
        })
        .collect())
}

/// The human labels of one file, with what was labelled.
struct Labelled {
    source: String,
    answers: Vec<(Answer, Class)>,
    annotators: Confusion,
}

fn read_labelled(path: &Path) -> Result<Labelled> {
    let source = path.file_stem().map_or_else(
        || path.display().to_string(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let mut answers = Answers::open(
        path,
        Reading {
            bench: None,
            ..Reading::default()
        },
    )?;
    let subject = answers.subject().to_string();
    let mut labelled = Labelled {
        source,
        answers: Vec::new(),
        annotators: Confusion::default(),
    };
    while let Some((answer, row)) = answers.next_answer()? {
        let human = |column: &str| {
            benchmarks::text_of(&row, column)
                .map(|said| class_word(&said).filter(|class| *class != Class::Unscored).ok_or(said))
        };
        let refuse = |column: &str, said: String| {
            Error::input(
                &subject,
                format!(
                    "{}: {column} is {said:?}, which is no class",
                    crate::answers::place(&row)
                ),
            )
        };
        let label = match human("final_label") {
            Some(Ok(class)) => class,
            Some(Err(said)) => return Err(refuse("final_label", said)),
            None => {
                return Err(Error::input(
                    &subject,
                    format!("{}: no final_label", crate::answers::place(&row)),
                ));
            }
        };
        if let (Some(Ok(first)), Some(Ok(second))) = (human("annotation_1"), human("annotation_2")) {
            labelled.annotators.add(first, second);
        }
        labelled.answers.push((answer, label));
    }
    if labelled.answers.is_empty() {
        return Err(Error::input(&subject, "no labelled completion in it"));
    }
    Ok(labelled)
}

fn calibrate(args: &Args, flags: &CalibrateArgs) -> Result<Outcome> {
    let panel = Panel::new(&flags.judges)?;
    let plan = JudgePlan {
        command: "calibrate",
        judges: panel.seats(),
        bench: None,
        map: Vec::new(),
    };
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if flags.verdicts.is_some() && flags.inputs.len() != 1 {
        return Err(Error::usage("--verdicts", "belong to one file of labels"));
    }
    let mut rows = Vec::new();
    for path in &flags.inputs {
        let labelled = read_labelled(path)?;
        let confusions = match &flags.verdicts {
            Some(verdicts) => confusions_of(&labelled, &read_verdicts(verdicts, false)?.rows)?,
            None => confusions_by(&labelled, &panel)?,
        };
        for (judge, confusion) in &confusions {
            rows.push(Calibration::new(judge, &labelled.source, confusion, flags.confidence));
        }
        if labelled.annotators.count() > 0 {
            rows.push(Calibration::new(
                "annotators",
                &labelled.source,
                &labelled.annotators,
                flags.confidence,
            ));
        }
    }
    let mut target = output(&flags.output, &flags.inputs)?;
    match flags.format {
        Format::Table => {
            target
                .write_all(report::calibration_table(&rows).as_bytes())
                .at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(&process::plan::digest(&plan)?), &()).at("output")?;
            for row in &rows {
                writer.row(row).at("output")?;
            }
            writer.end(Status::Complete, &()).at("output")?.commit()?;
        }
    }
    Ok(Outcome::Complete)
}

/// Judges what the humans judged.
fn confusions_by(labelled: &Labelled, panel: &Panel) -> Result<Vec<(String, Confusion)>> {
    let mut confusions: Vec<(String, Confusion)> = panel
        .seats()
        .into_iter()
        .map(|seat| (seat.judge, Confusion::default()))
        .collect();
    let answers: Vec<Answer> = labelled.answers.iter().map(|(answer, _)| answer.clone()).collect();
    let mut bench = Bench::new(&panel.text);
    let wildguard = panel
        .wildguard
        .as_deref()
        .map(|model| judge::wildguard(model, &answers))
        .transpose()?;
    let logprob = panel
        .logprob
        .as_ref()
        .map(|judge| judge::logprob(&judge.model, &judge.openings, judge.threshold, &answers))
        .transpose()?;
    for (index, (answer, human)) in labelled.answers.iter().enumerate() {
        let mut classes = Vec::with_capacity(confusions.len());
        match &answer.completion {
            Text::Said(completion) => bench.judge(completion, |_, finding| classes.push(finding.class)),
            Text::Failed(_) => classes.extend(panel.text.iter().map(|_| Class::Unscored)),
        }
        classes.extend(wildguard.as_ref().map(|words| words[index].class));
        classes.extend(logprob.as_ref().map(|words| words[index].class));
        for external in &panel.external {
            classes.push(
                external
                    .word(
                        &answer.bench,
                        &answer.id,
                        answer.attempt_index,
                        answer.text_digest.as_deref(),
                    )?
                    .class,
            );
        }
        for ((_, confusion), class) in confusions.iter_mut().zip(classes) {
            confusion.add(*human, class);
        }
    }
    Ok(confusions)
}

/// Compares given verdicts; a label without a verdict is unscored.
fn confusions_of(labelled: &Labelled, verdicts: &[Verdict]) -> Result<Vec<(String, Confusion)>> {
    let mut judges: Vec<&str> = Vec::new();
    for verdict in verdicts {
        if !judges.contains(&verdict.judge.as_str()) {
            judges.push(&verdict.judge);
        }
    }
    // Archives of labels name no benchmark; ids are compared alone where they are unique.
    let mut by_id: HashMap<(&str, &str, u64), Class> = HashMap::new();
    for verdict in verdicts {
        if by_id
            .insert((&verdict.judge, &verdict.id, verdict.attempt_index), verdict.verdict)
            .is_some()
        {
            return Err(Error::input(
                "--verdicts",
                format!("id {} stands for several benchmarks", verdict.id),
            ));
        }
    }
    Ok(judges
        .into_iter()
        .map(|judge| {
            let mut confusion = Confusion::default();
            for (answer, human) in &labelled.answers {
                let class = by_id
                    .get(&(judge, answer.id.as_str(), answer.attempt_index))
                    .copied()
                    .unwrap_or(Class::Unscored);
                confusion.add(*human, class);
            }
            (judge.to_string(), confusion)
        })
        .collect())
}

/// Where the files of a whole pipe go.
enum Place {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        match self {
            Place::Kept(directory) => directory.join(name),
            Place::Passing(scratch) => scratch.path().join(name),
        }
    }
}

fn pipeline(args: &Args, flags: &RunArgs) -> Result<Outcome> {
    let prompts_plan = PromptsPlan::new(&flags.bench)?;
    let panel = Panel::new(&flags.judges)?;
    let judge_plan = JudgePlan {
        command: "judge",
        judges: panel.seats(),
        bench: None,
        map: Vec::new(),
    };
    let report_plan = ReportPlan::new(&flags.report, flags.vs.is_some())?;
    if args.common.plan {
        let mut plan = Map::new();
        plan.insert("command".into(), "run".into());
        for (name, part) in [
            ("prompts", serde_json::to_value(&prompts_plan)),
            ("judge", serde_json::to_value(&judge_plan)),
            ("report", serde_json::to_value(&report_plan)),
        ] {
            plan.insert(name.into(), part.map_err(|cause| Error::bug("plan", cause))?);
        }
        return process::plan::print(&plan);
    }
    let prompts = read_prompts(&prompts_plan)?;
    let base = flags.vs.as_deref().map(|path| read_verdicts(path, false)).transpose()?;
    let place = match &flags.output {
        Some(directory) => {
            std::fs::create_dir_all(directory).at(directory.display())?;
            Place::Kept(directory.clone())
        }
        None => Place::Passing(tempfile::tempdir().at("temporary directory")?),
    };
    let (asked, said, judged) = (
        place.file("prompts.jsonl"),
        place.file("completions.jsonl"),
        place.file("verdicts.jsonl"),
    );
    write_prompts(&asked, &prompts)?;
    let mut generator_args = vec![
        "--max-new-tokens".to_string(),
        flags.max_new_tokens.to_string(),
        "--resume".to_string(),
    ];
    if let Some(system) = &flags.system {
        generator_args.extend(["--system".to_string(), system.clone()]);
    }
    if flags.raw {
        generator_args.push("--raw".to_string());
    }
    if args.common.quiet {
        generator_args.push("--quiet".to_string());
    }
    if let Some(threads) = args.common.threads {
        generator_args.extend(["--threads".to_string(), threads.to_string()]);
    }
    generator_args.extend(flags.generator.iter().cloned());
    Generator {
        model: &flags.model,
        args: generator_args,
    }
    .run(&asked, &said)?;

    let answers = Answers::open(&said, Reading::default())?;
    let progress = Progress::start(&args.common, "judging", Some(prompts.len() as u64), "completions");
    // Answers are dear, verdicts are cheap: they are made anew from what is there.
    let target = Output::create(&judged, Existing::Replace, std::slice::from_ref(&said))?;
    let outcome = judge_into(target, &panel, &judge_plan, answers, Some(prompts), false, &progress)?;
    progress.finish();

    let verdicts = read_verdicts(&judged, false)?;
    if flags.output.is_some() {
        let kept = Output::create(
            &place.file("report.jsonl"),
            Existing::Replace,
            std::slice::from_ref(&judged),
        )?;
        let records = ReportFlags {
            format: Format::Jsonl,
            fail_over: Vec::new(),
            ..flags.report.clone()
        };
        write_report(kept, &report_plan, &records, &verdicts, base.as_ref())?;
    }
    let target = Output::create(Path::new("-"), Existing::Refuse, &[])?;
    Ok(outcome.and(write_report(
        target,
        &report_plan,
        &flags.report,
        &verdicts,
        base.as_ref(),
    )?))
}

//! `report`: verdicts in, rates and pairs out.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

use process::{Error, Format, Outcome, Output, Result, ResultExt};
use records::{Class, JoinKey, Reader, RefusalReport, Status, Verdict, Writer};
use serde_json::Value;

use super::begin;
use crate::cli::{Args, ReportArgs, ReportFlags};
use crate::plan::ReportPlan;
use crate::report::{self, RefusalPair};
use crate::table;
use crate::tally::{Pairs, Sides, Tally};

/// The verdicts of a file, in its order.
pub struct Verdicts {
    pub rows: Vec<Verdict>,
    status: Status,
}

pub fn read_verdicts(path: &Path, accept_partial: bool) -> Result<Verdicts> {
    let subject = process::input_name(path);
    let mut reader = Reader::new(process::open_input(path)?).accept_partial(accept_partial);
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

pub fn run(args: &Args, flags: &ReportArgs) -> Result<Outcome> {
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
    let target = flags.output.open(&inputs)?;
    let format = flags.report.format.resolve(flags.output.output.as_deref());
    write_report(target, &plan, &flags.report, format, &verdicts, base.as_ref())
}

/// Counts, pairs, writes, and compares with the thresholds.
pub fn write_report(
    mut target: Output,
    plan: &ReportPlan,
    flags: &ReportFlags,
    format: Format,
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
    let mut outcome = Outcome::partial_if(is_partial);
    match format {
        Format::Table => {
            target
                .write_all(table::reports(&rows, &pairs).as_bytes())
                .at("output")?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer.begin(&begin(plan)?, &()).at("output")?;
            for row in &rows {
                writer.row(row).at("output")?;
            }
            for row in &pairs {
                writer.row(row).at("output")?;
            }
            writer
                .end(Status::partial_if(outcome == Outcome::Partial), &())
                .at("output")?
                .commit()?;
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
        group.model_digests.extend(verdict.model_digest.clone());
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
            report::refusal_report(&bench, &judge, kind, label, digest, tally, confidence)
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
            summary: Some(report::refusal_summary(&group.sides, confidence)),
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

//! Verdicts counted by benchmark and judge, then by type and label, in the order in which they first appear.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use records::{JoinKey, RefusalReport, Verdict};

use crate::correction::Correction;
use crate::report;
use crate::strata::{self, Item};
use crate::tally::{HarmTally, Sides, Tally};

/// What is counted of any set of verdicts.
#[derive(Default)]
struct Counts {
    tally: Tally,
    harm: HarmTally,
    disputed: u64,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        self.tally.add(verdict.verdict);
        self.harm.add(verdict.verdict, verdict.harmful);
        self.disputed += u64::from(verdict.confidence.is_some_and(|confidence| confidence < 1.0));
    }
}

/// Counts under one benchmark and judge.
#[derive(Default)]
struct Group {
    /// By type and label.
    kinds: IndexMap<(String, String), Counts>,
    /// By label; an empty one is none.
    labels: IndexMap<String, Counts>,
    all: Counts,
    model_digests: BTreeSet<String>,
}

fn label_of(verdict: &Verdict) -> &str {
    verdict.label.as_deref().unwrap_or_default()
}

impl Group {
    fn add(&mut self, verdict: &Verdict) {
        let label = label_of(verdict);
        self.all.add(verdict);
        self.labels.entry(label.to_owned()).or_default().add(verdict);
        if let Some(kind) = &verdict.kind {
            let key = (kind.clone(), label.to_owned());
            self.kinds.entry(key).or_default().add(verdict);
        }
        self.model_digests.extend(verdict.model_digest.clone());
    }

    /// Several models under one benchmark have no digest in common.
    fn model_digest(&self) -> Option<&str> {
        let first = self.model_digests.first().filter(|_| self.model_digests.len() == 1);
        first.map(String::as_str)
    }

    fn sides(&self) -> Sides {
        let tally = |label: &str| self.labels.get(label).map(|counts| counts.tally).unwrap_or_default();
        Sides {
            safe: tally("safe"),
            harmful: tally("unsafe"),
        }
    }
}

/// How rates are corrected, and by the verdicts on which answers.
pub struct Corrected<'v> {
    correction: &'v Correction,
    items: IndexMap<JoinKey, Item<'v>>,
}

impl<'v> Corrected<'v> {
    pub fn new(correction: &'v Correction, verdicts: &'v [Verdict]) -> Corrected<'v> {
        let items = match correction {
            Correction::None => IndexMap::new(),
            _ => strata::items(verdicts),
        };
        Corrected { correction, items }
    }
}

/// Verdicts, counted.
#[derive(Default)]
pub struct Groups {
    groups: IndexMap<(String, String), Group>,
}

impl Groups {
    pub fn add(&mut self, verdict: &Verdict) {
        let key = (verdict.bench.clone(), verdict.judge.clone());
        self.groups.entry(key).or_default().add(verdict);
    }

    /// The records of every benchmark and judge.
    pub fn reports(&self, corrected: &Corrected, confidence: f64) -> Vec<RefusalReport> {
        let rows =
            |((bench, judge), group): (&(String, String), &Group)| rows(bench, judge, group, corrected, confidence);
        self.groups.iter().flat_map(rows).collect()
    }
}

/// A group's types, then its labels, then the whole with the summary.
fn rows(bench: &str, judge: &str, group: &Group, corrected: &Corrected, confidence: f64) -> Vec<RefusalReport> {
    let digest = group.model_digest();
    let row = |kind: &str, label: &str, counts: &Counts| {
        let is_in = |verdict: &Verdict| {
            verdict.bench == bench
                && (kind == "all" || verdict.kind.as_deref() == Some(kind))
                && (label == "all" || label_of(verdict) == label)
        };
        let rate = corrected.correction.rate(judge, &corrected.items, &is_in, confidence);
        RefusalReport {
            disputed_count: judge.starts_with("jury:").then_some(counts.disputed),
            harm: report::harm(&counts.harm, confidence),
            correction: rate.as_ref().map(report::correction),
            ..report::refusal_report(bench, judge, kind, label, digest, &counts.tally, confidence)
        }
    };
    let kinds = group
        .kinds
        .iter()
        .map(|((kind, label), counts)| row(kind, label, counts));
    let labels = ["safe", "unsafe", ""]
        .into_iter()
        .filter_map(|label| group.labels.get(label).map(|counts| row("all", label, counts)));
    let whole = RefusalReport {
        summary: Some(report::refusal_summary(&group.sides(), confidence)),
        ..row("all", "all", &group.all)
    };
    kinds.chain(labels).chain([whole]).collect()
}

/// Gives verdicts that say nothing of harm the word of another judge on the same answer.
pub fn take_harm(verdicts: &mut [Verdict], judge: &str) {
    let said: IndexMap<JoinKey, bool> = verdicts
        .iter()
        .filter(|verdict| verdict.judge == judge)
        .filter_map(|verdict| Some((verdict.key(), verdict.harmful?)))
        .collect();
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.harmful.is_none()) {
        verdict.harmful = said.get(&verdict.key()).copied();
    }
}

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
struct Group<'v> {
    /// By type and label.
    kinds: IndexMap<(&'v str, &'v str), Counts>,
    /// By label; an empty one is none.
    labels: IndexMap<&'v str, Counts>,
    all: Counts,
    model_digests: BTreeSet<&'v str>,
}

fn label_of(verdict: &Verdict) -> &str {
    verdict.label.as_deref().unwrap_or_default()
}

impl<'v> Group<'v> {
    fn add(&mut self, verdict: &'v Verdict) {
        let label = label_of(verdict);
        self.all.add(verdict);
        self.labels.entry(label).or_default().add(verdict);
        if let Some(kind) = &verdict.kind {
            self.kinds.entry((kind, label)).or_default().add(verdict);
        }
        self.model_digests.extend(verdict.model_digest.as_deref());
    }

    /// Several models under one benchmark have no digest in common.
    fn model_digest(&self) -> Option<&'v str> {
        self.model_digests
            .first()
            .copied()
            .filter(|_| self.model_digests.len() == 1)
    }

    fn sides(&self) -> Sides {
        let tally = |label: &str| self.labels.get(label).map(|counts| counts.tally).unwrap_or_default();
        Sides {
            safe: tally("safe"),
            harmful: tally("unsafe"),
        }
    }
}

/// The verdicts of a report, and how its rates are corrected.
pub struct Groups<'v> {
    verdicts: &'v [Verdict],
    items: IndexMap<JoinKey, Item<'v>>,
    correction: &'v Correction,
    confidence: f64,
}

impl<'v> Groups<'v> {
    pub fn new(verdicts: &'v [Verdict], correction: &'v Correction, confidence: f64) -> Groups<'v> {
        Groups {
            verdicts,
            items: strata::items(verdicts),
            correction,
            confidence,
        }
    }

    /// The records of every benchmark and judge.
    pub fn reports(&self) -> Vec<RefusalReport> {
        let mut groups: IndexMap<(&str, &str), Group> = IndexMap::new();
        for verdict in self.verdicts {
            groups.entry((&verdict.bench, &verdict.judge)).or_default().add(verdict);
        }
        groups
            .iter()
            .flat_map(|((bench, judge), group)| self.rows(bench, judge, group))
            .collect()
    }

    /// Its types, then its labels, then the whole with the summary.
    fn rows(&self, bench: &str, judge: &str, group: &Group) -> Vec<RefusalReport> {
        let digest = group.model_digest();
        let row = |kind: &str, label: &str, counts: &Counts| {
            let is_in = |verdict: &Verdict| {
                verdict.bench == bench
                    && (kind == "all" || verdict.kind.as_deref() == Some(kind))
                    && (label == "all" || label_of(verdict) == label)
            };
            let rate = self.correction.rate(judge, &self.items, &is_in, self.confidence);
            RefusalReport {
                disputed_count: judge.starts_with("jury:").then_some(counts.disputed),
                harm: report::harm(&counts.harm, self.confidence),
                correction: rate.as_ref().map(report::correction),
                ..report::refusal_report(bench, judge, kind, label, digest, &counts.tally, self.confidence)
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
            summary: Some(report::refusal_summary(&group.sides(), self.confidence)),
            ..row("all", "all", &group.all)
        };
        kinds.chain(labels).chain([whole]).collect()
    }
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
